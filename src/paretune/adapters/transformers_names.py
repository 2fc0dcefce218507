"""The names of a transformers model's weights, in its class and in its files, and its tied weights.

A checkpoint stores an embedding and the head tied to it once, under one of their names, and the files of some
models have older names than their classes. Only the model's class defines both, so the model is built without
memory (on the meta device).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..files import write_json

TIE = "tie_word_embeddings"
CONFIG = "config.json"


@dataclass(frozen=True)
class Names:
    """The names of a model's weights.

    tied: the names of each tied weight, as in files. stored: name in the class -> name in files.
    """

    tied: list[list[str]] = field(default_factory=list)
    stored: dict[str, str] = field(default_factory=dict)


def names_of(folder: Path) -> Names:
    """The names of a folder's model; none for a folder without a transformers configuration.

    If transformers has no class for the model and the configuration says that embeddings are tied, the two
    usual names are returned.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        named = [str(name) for name in config.get("architectures") or []]
        ties = [part[TIE] for part in (config, config.get("text_config") or {}) if TIE in part]
        known = bool(named or config.get("model_type"))
    except (OSError, ValueError, AttributeError, TypeError):
        return Names()
    if not known:
        return Names()
    model = _build(folder, named)
    if model is None:
        return Names([["model.embed_tokens.weight", "lm_head.weight"]] if any(ties) else [])
    stored = _stored(model)
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(stored.get(name, name))
    return Names([names for names in groups.values() if len(names) > 1], stored)


def _stored(model: nn.Module) -> dict[str, str]:
    """Name of each weight -> its name in files, which transformers may change on saving since version 5."""
    try:
        from transformers.core_model_loading import revert_weight_conversion

        values = {name: tensor.detach() for name, tensor in model.state_dict(keep_vars=True).items()}
        written = revert_weight_conversion(cast(Any, model), dict(values))
    except Exception:  # an older version, or a conversion that needs the weights' values
        return {}
    places = {id(tensor): name for name, tensor in written.items()}
    return {name: places[id(tensor)] for name, tensor in values.items() if id(tensor) in places}


def _build(folder: Path, architectures: Sequence[str]) -> nn.Module | None:
    """The model without values; None if its class is not part of transformers."""
    import transformers

    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            kind: Any = getattr(transformers, architectures[0], None) if architectures else None
            automatic: Any = transformers.AutoModelForCausalLM
            own = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
            model = kind(config) if own else automatic.from_config(config, trust_remote_code=False)
            model.tie_weights()
    except Exception:  # a class may raise anything for a wrong configuration
        return None
    return model


def untie(folder: Path) -> None:
    """Write into the folder's configuration that embeddings are not tied."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config[TIE] = False
    for value in config.values():
        if isinstance(value, dict) and TIE in value:
            value[TIE] = False
    write_json(folder / CONFIG, config)


def own_weight(model: nn.Module, module: nn.Module) -> torch.Tensor:
    """The module's weight; a weight that other modules share is copied first."""
    weight: Any = module.weight
    sharers = [m for m in model.modules() if m is not module and getattr(m, "weight", None) is weight]
    if sharers:
        with torch.no_grad():
            module.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
    return module.weight  # type: ignore[return-value]
