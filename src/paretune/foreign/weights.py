"""Checks for everybody who reads other people's weights: what is no weight, and what is no number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import torch
from torch import nn

# Buffers that older versions of the libraries wrote and newer ones compute: they are no weights.
COMPUTED = re.compile(
    r"(^|\.)(position_ids|inv_freq|masked_bias|relative_position_index|attn\.bias|attention\.bias)$"
)
SHOWN = 3  # names of tensors that a message shows


def listed(names: Iterable[str]) -> str:
    """The first names in order, and how many more there are."""
    every = sorted(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def not_finite(model: nn.Module) -> Iterator[str]:
    """The names of a model's tensors that hold NaN or infinity. One pass over memory, without a copy."""
    for name, tensor in model.state_dict().items():
        # Eight-bit floats have no minimum in torch, and no model of ours is computed in them.
        if tensor.is_floating_point() and tensor.numel() and tensor.element_size() > 1:
            low, high = torch.aminmax(tensor)
            if not bool(torch.isfinite(low) & torch.isfinite(high)):
                yield name
