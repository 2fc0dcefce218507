"""Checks for everybody who reads other people's weights: what lacks, what is no weight, what is no number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from ..types import ParetuneError

# Buffers that older versions of the libraries wrote and newer ones compute: they are no weights.
COMPUTED = re.compile(
    r"(^|\.)(position_ids|inv_freq|masked_bias|relative_position_index|attn\.bias|attention\.bias)$"
)
# Tensors that a file may hold in addition to a model's: other towers and heads of the model that a text
# encoder, or a language model, was taken from.
OTHERS = re.compile(
    r"^(model\.)?(vision_model|vision_tower|visual|visual_projection|text_projection|multi_modal_projector|"
    r"logit_scale|logit_bias|lm_head|decoder|v_head|mtp)(\.|$)"
)
SHOWN = 3  # names of tensors that a message shows


def listed(names: Iterable[str]) -> str:
    """The first names in order, and how many more there are."""
    every = sorted(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def check_keys(info: dict[str, Any], what: str, whole: bool) -> None:
    """Raise ParetuneError for tensors that are missing, of another shape or unknown.

    Args:
        info: the library's loading info.
        what: the beginning of the error message.
        whole: whether the files hold this model only, and no part of another.
    """
    if info["mismatched_keys"]:
        name, stored, wanted = sorted(info["mismatched_keys"])[0]
        raise ParetuneError(
            f"{what}: its weights do not fit its config.json: {name} is {list(stored)}, not {list(wanted)}"
        )
    if info["missing_keys"]:
        raise ParetuneError(f"{what}: its weights lack {listed(info['missing_keys'])}; get its files again")
    unknown = [
        key for key in info["unexpected_keys"]
        if not COMPUTED.search(key) and (whole or not OTHERS.match(key))
    ]  # fmt: skip
    if unknown:
        raise ParetuneError(
            f"{what}: its weights hold {listed(unknown)}, which the model of its config.json does not have"
        )
    if info.get("error_msgs"):
        raise ParetuneError(f"{what} cannot be loaded: {' '.join(str(info['error_msgs'][0]).split())}")


def not_finite(model: nn.Module) -> Iterator[str]:
    """The names of a model's tensors that hold NaN or infinity. One pass over memory, without a copy."""
    for name, tensor in model.state_dict().items():
        # Eight-bit floats have no minimum in torch, and no model of ours is computed in them.
        if tensor.is_floating_point() and tensor.numel() and tensor.element_size() > 1:
            low, high = torch.aminmax(tensor)
            if not bool(torch.isfinite(low) & torch.isfinite(high)):
                yield name
