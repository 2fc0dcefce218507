"""FLUX.2-klein as a policy: any Flux2KleinPipeline folder or hub id. Latents as those of FLUX.2.

Guidance is a second pass with the empty prompt. The distilled models ignore it, as their pipeline does.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

import torch
from diffusers import Flux2KleinPipeline

from ..flow import Conditions
from ..flux2.shared import Flux2Shared
from .family import FAMILY


class Flux2KleinPolicy(Flux2Shared):
    """See `flow.FlowPolicy`."""

    kind = Flux2KleinPipeline
    family = FAMILY
    two_pass_guidance = True

    @property
    def distilled(self) -> bool:
        """Whether guidance is ignored."""
        return bool(self.pipe.config.is_distilled)

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """The transformer's output, with classifier-free guidance if `guidance` is above 1. float32."""
        cond = self.one_pass(x, sigma, conditions.embeds, None)
        if guidance <= 1 or self.distilled:
            return cond
        assert conditions.negative_embeds is not None
        empty = conditions.negative_embeds.expand(len(x), -1, -1)
        uncond = self.one_pass(x, sigma, empty, None)
        return uncond + guidance * (cond - uncond)
