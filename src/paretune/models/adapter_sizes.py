"""How many numbers an adapter has, counted on the transformer's modules without their weights."""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from torch import nn

from ..config import RunConfig
from .config_files import read_model_config
from .detect import family_of, resolve_path
from .family import Family, transformers_of


def adapter_numbers(config: RunConfig) -> int | None:
    """The numbers of one expert: of its adapter, or with `lora: null` of all weights.

    None for a hub model whose configuration is not known, and for language models.
    """
    family = family_of(config.model.path)
    settings, networks = _settings(config, family)
    if settings is None or not family.transformer:
        return None
    import diffusers

    kind: Any = getattr(diffusers, family.transformer)
    with init_empty_weights():
        transformer: nn.Module = kind(**settings)
    if config.lora is None:
        return sum(p.numel() for p in transformer.parameters())
    module, name = family.policy.split(":")
    targets: Sequence[str] = config.lora.targets or getattr(import_module(module), name).targets
    widths = [
        sum(m.weight.shape)
        for name, m in transformer.named_modules()
        if isinstance(m, nn.Linear) and any(name == t or name.endswith(f".{t}") for t in targets)
    ]
    return networks * config.lora.rank * sum(widths)


def _settings(config: RunConfig, family: Family) -> tuple[dict[str, Any] | None, int]:
    """The transformer's configuration, and how many transformers of it the model has."""
    folder = Path(resolve_path(config.model.path))
    if folder.is_dir():
        file = folder / "transformer" / "config.json"
        values = dict(read_model_config(file)) if file.is_file() else None
        parts = [path.name for path in folder.iterdir() if path.is_dir()]
        kept = values and {key: value for key, value in values.items() if not key.startswith("_")}
        return kept, len(transformers_of(parts))
    published = family.published.get(config.model.path)
    if published is None or not published.transformer:
        return None, 1
    return dict(published.transformer), len(transformers_of(published.billions))
