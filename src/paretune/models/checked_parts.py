"""The networks of a pipeline, loaded one by one, for only so do the libraries tell what they filled in."""
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
    """What `kind.from_pretrained` is given beside `place`: `given`, and every other network of the pipeline.

    place: a folder or a hub id. given: parts by name, None to leave one out. Raises ParetuneError, one line
    that begins with `what`, for weights that are not whole; see `checked`.
    """
    parts = dict(given)
    for name, listed in kind.load_config(place).items():
        network = None if name in given else _network(listed)
        if network is not None:
            own = {"low_cpu_mem_usage": True} if listed[0] == "diffusers" else {}
            parts[name] = load_checked(network, place, f"{what}/{name}", subfolder=name, **own, **{
                "torch_dtype" if listed[0] == "diffusers" else "dtype": dtype
            })  # fmt: skip
    return parts


def _network(listed: Any) -> Any:
    """The class that a model_index.json names, where it is a network of the two libraries."""
    if not isinstance(listed, list | tuple) or len(listed) != 2 or listed[0] not in KINDS:
        return None
    found = getattr(import_module(listed[0]), str(listed[1]), None)
    return found if isinstance(found, type) and issubclass(found, KINDS[listed[0]]) else None
