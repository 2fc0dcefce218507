"""Weights that were read are the whole model's: nothing is missing, left over or not a number.

A library fills what a file lacks with random numbers and goes on; scores of such a model look like scores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from paretune.foreign.weights import COMPUTED, listed, not_finite
from paretune.types import ParetuneError


def check_loaded(info: Mapping[str, Any], model: nn.Module, where: str) -> None:
    """Raise ParetuneError, naming tensors, unless a model's weights are all there and finite.

    info: what `from_pretrained(.., output_loading_info=True)` of transformers and diffusers tells, or the
    same of `load_state_dict`: missing_keys, unexpected_keys, mismatched_keys, error_msgs. where: begins the
    message.
    """
    missing = list(info.get("missing_keys") or ())
    unexpected = [key for key in info.get("unexpected_keys") or () if not COMPUTED.search(key)]
    mismatched = [key if isinstance(key, str) else key[0] for key in info.get("mismatched_keys") or ()]
    if missing:
        raise ParetuneError(f"{where} is incomplete: its files lack {listed(missing)}")
    if mismatched:
        raise ParetuneError(f"{where} does not fit its own configuration: {listed(mismatched)}")
    if unexpected:
        raise ParetuneError(f"{where} holds weights that its model has no place for: {listed(unexpected)}")
    if info.get("error_msgs"):
        first = str(next(iter(info["error_msgs"]))).strip().split("\n")[0]
        raise ParetuneError(f"{where} cannot be loaded: {first}")
    if damaged := list(not_finite(model)):
        raise ParetuneError(f"{where} is damaged: NaN or infinite numbers in {listed(damaged)}")


def load_strictly(model: nn.Module, file: Path, where: str) -> dict[str, torch.Tensor]:
    """Load a safetensors file, floats as float32, into a model that it must fit exactly.

    Returns what the file holds beside the model's own names and without a dot in theirs: constants.
    """
    tensors = load_file(file)
    own = model.state_dict()
    constants = {k: tensors.pop(k) for k in list(tensors) if k not in own and "." not in k}
    floats = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    mismatched = [k for k, v in floats.items() if k in own and v.shape != own[k].shape]
    info = model.load_state_dict({k: v for k, v in floats.items() if k not in mismatched}, strict=False)
    told = {"missing_keys": set(info.missing_keys) - set(mismatched), "unexpected_keys": info.unexpected_keys,
            "mismatched_keys": mismatched}  # fmt: skip
    check_loaded(told, model, where)
    return constants


def refuse_pickles(folder: str | Path) -> None:
    """Raise ParetuneError for a folder whose weights are in pickle files alone: to read one can run code."""
    place = Path(folder)
    for stem in ("model", "adapter_model"):
        if any(place.glob(f"{stem}*.safetensors")):
            continue
        pattern = re.compile(rf"(pytorch_|tf_|flax_)?{stem}.*\.(bin|pt|pth|ckpt|pkl|h5|msgpack)")
        found = sorted(p for p in place.glob("*") if pattern.fullmatch(p.name))
        if found:
            raise ParetuneError(
                f"{found[0]}: weights are read from safetensors alone, never from a pickle, which can run "
                "code; convert it to safetensors (save_pretrained of transformers writes them)"
            )
