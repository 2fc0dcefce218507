"""Two transformers of one pipeline, such as experts for high and for low noise, as one module.

Adapters, folding and quantization see one module, whose names begin with those of `adapters.parts.PAIR`:
`transformer_1.blocks.0..` and `transformer_2.blocks.0..`.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from typing import Any

import torch
from diffusers.loaders.peft import PeftAdapterMixin
from torch import nn

from ..types import ParetuneError


class TransformerPair(nn.Module, PeftAdapterMixin):
    """Two diffusers transformers of the same inputs. Each sample goes through one of them."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        # Any, because the type of a module does not have the attributes of diffusers' classes.
        self.transformer_1: Any = first
        self.transformer_2: Any = second

    @property
    def config(self) -> Any:
        """The configuration of the first; the second has the same sizes."""
        return self.transformer_1.config

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the inputs."""
        return self.transformer_1.dtype

    def enable_gradient_checkpointing(self) -> None:
        """As diffusers' method, for both."""
        self.transformer_1.enable_gradient_checkpointing()
        self.transformer_2.enable_gradient_checkpointing()

    def forward(
        self, hidden_states: torch.Tensor, first: torch.Tensor, return_dict: bool = False, **inputs: Any
    ) -> tuple[torch.Tensor]:
        """The outputs [B, ..] of the transformers, in the order of the samples.

        Args:
            hidden_states: [B, ..].
            first: [B], true for samples that go through the first, false for the second.
            return_dict: only False, as in the calls of pipelines.
            inputs: the other inputs; tensors whose first dimension is B are divided among the two.
        """
        assert not return_dict
        if first.all() or not first.any():
            part = self.transformer_1 if first.all() else self.transformer_2
            return part(hidden_states=hidden_states, return_dict=False, **inputs)
        places = [first.nonzero()[:, 0], first.logical_not().nonzero()[:, 0]]
        outputs = []
        for part, rows in zip((self.transformer_1, self.transformer_2), places, strict=True):
            own = {name: _rows(value, rows, len(first)) for name, value in inputs.items()}
            outputs.append(part(hidden_states=hidden_states[rows], return_dict=False, **own)[0])
        return (torch.cat(outputs)[torch.cat(places).argsort()],)


def pair_of(pipe: Any, path: str) -> TransformerPair:
    """The `transformer` and `transformer_2` of a pipeline. Raises ParetuneError for different sizes."""
    first, second = (
        {key: value for key, value in part.config.items() if not key.startswith("_")}
        for part in (pipe.transformer, pipe.transformer_2)
    )
    if first != second:
        key = next(key for key in {**first, **second} if first.get(key) != second.get(key))
        raise ParetuneError(
            f"model.path: the two transformers of {path} do not fit together: {key} is {first.get(key)} and "
            f"{second.get(key)}"
        )
    return TransformerPair(pipe.transformer, pipe.transformer_2)


def _rows(value: Any, rows: torch.Tensor, count: int) -> Any:
    """Some samples of an input; anything else unchanged."""
    batched = isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == count
    return value[rows] if batched else value
