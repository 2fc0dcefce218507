"""Strict loading of the networks of a pipeline.

They are loaded one by one, because only then do the libraries report which tensors they filled in.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from importlib import import_module
from typing import Any

import diffusers
import torch
import transformers

from .checked import load_checked

KINDS = {"diffusers": diffusers.ModelMixin, "transformers": transformers.PreTrainedModel}


def load_parts(kind: Any, place: str, dtype: torch.dtype, given: dict[str, Any], what: str) -> dict[str, Any]:
    """Load the networks of a pipeline, as arguments of `kind.from_pretrained`.

    Args:
        kind: the class of the pipeline.
        place: a folder or a hub id.
        dtype: of the networks.
        given: parts that are not loaded, by name; None leaves a part out of the pipeline.
        what: the beginning of the error message.

    Returns:
        `given`, and every other network of the pipeline.

    Raises:
        ParetuneError: weights are incomplete or not finite; see `checked`.
    """
    parts = dict(given)
    for name, listed in kind.load_config(place).items():
        network = None if name in given else _network(listed)
        if network is not None:
            is_diffusers = listed[0] == "diffusers"
            extra = {"low_cpu_mem_usage": True} if is_diffusers else {}
            parts[name] = load_checked(
                network, place, f"{what}/{name}", subfolder=name, **extra,
                **{"torch_dtype" if is_diffusers else "dtype": dtype},
            )  # fmt: skip
    return parts


def _network(listed: Any) -> Any:
    """The class of an entry of model_index.json, or None if it is not a network of the two libraries."""
    if not isinstance(listed, list | tuple) or len(listed) != 2 or listed[0] not in KINDS:
        return None
    kind = getattr(import_module(listed[0]), str(listed[1]), None)
    return kind if isinstance(kind, type) and issubclass(kind, KINDS[listed[0]]) else None
