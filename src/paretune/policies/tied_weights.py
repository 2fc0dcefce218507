"""Which weights of a transformers model are one and the same: an embedding and the head tied to it.

A checkpoint stores such a weight once, under one of its names. What the others are called is known
by the model's class alone, so it is built without memory (on the meta device) and asked.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..files import write_json

TIE = "tie_word_embeddings"
CONFIG = "config.json"


def tied_groups(folder: Path) -> list[list[str]]:
    """The names of every weight that the model of this folder has under several, as its class calls them.

    None for a folder without a transformers configuration. Where transformers does not know the model
    and the configuration says that embeddings are tied, the usual two names are given.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        named = [str(name) for name in config.get("architectures") or []]
        said = [part[TIE] for part in (config, config.get("text_config") or {}) if TIE in part]
        known = bool(named or config.get("model_type"))
    except (OSError, ValueError, AttributeError, TypeError):
        return []
    if not known or (said and not any(said)):
        return []
    model = _build(folder, named)
    if model is None:
        return [["model.embed_tokens.weight", "lm_head.weight"]] if any(said) else []
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _build(folder: Path, architectures: Sequence[str]) -> nn.Module | None:
    """The model without values; None where its class is none of transformers' own."""
    import transformers

    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            kind: Any = getattr(transformers, architectures[0], None) if architectures else None
            model = kind(config) if kind else transformers.AutoModelForCausalLM.from_config(config)
            model.tie_weights()
    except Exception:  # a class raises whatever it likes about a configuration that does not suit it
        return None
    return model


def untie(folder: Path) -> None:
    """Say in the folder's configuration that no embedding is tied any more."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config[TIE] = False
    for value in config.values():
        if isinstance(value, dict) and TIE in value:
            value[TIE] = False
    write_json(folder / CONFIG, config)


def own_weight(model: nn.Module, module: nn.Module) -> torch.Tensor:
    """The module's weight, made its own first where other modules of the model share it."""
    weight: Any = module.weight
    sharers = [m for m in model.modules() if m is not module and getattr(m, "weight", None) is weight]
    if sharers:
        with torch.no_grad():
            module.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
    return module.weight  # type: ignore[return-value]
