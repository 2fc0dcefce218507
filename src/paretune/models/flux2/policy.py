"""FLUX.2-dev as a policy: any Flux2Pipeline folder or hub id.

Mistral reads the prompt in its chat template. Guidance is an input of the model.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from typing import Any

import torch
from diffusers import Flux2Pipeline
from transformers import AutoTokenizer

from ...foreign import loading as foreign
from ..checked import loading
from ..detect import resolve_path
from ..flow import Conditions
from .family import FAMILY
from .shared import Flux2Shared


class Flux2Policy(Flux2Shared):
    """See `flow.FlowPolicy`."""

    kind = Flux2Pipeline
    family = FAMILY
    left_out = ("tokenizer",)

    def load(self) -> Any:
        """See `PipelinePolicy.load`.

        Of the published processor of text and pictures, which needs torchvision, only the tokenizer is taken:
        it gives the same ids.
        """
        pipe, path = super().load(), self.config.path
        with loading(f"model.path: the tokenizer of {path} cannot be loaded"):
            place, what = resolve_path(path), f"model.path: {path}"
            tokenizer = foreign.load(AutoTokenizer, place, what, subfolder="tokenizer")
        pipe.register_modules(tokenizer=tokenizer)
        return pipe

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """The transformer's output, with guidance as an input. float32 [B, C, h, w]."""
        return self.one_pass(x, sigma, conditions.embeds, self.guidance_input(len(x), guidance))
