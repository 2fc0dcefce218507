"""The models that ship pass the checks of damaged models: what is right is not refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretune.models.config_files import check_sizes, read_config
from paretune.models.detect import check_model
from paretune.types import ParetuneError
from paretune.worlds.embedded import EMBEDDED

CONFIGS = [(name, path) for name, base in EMBEDDED.items() for path in sorted(base.rglob("*config.json"))]


@pytest.mark.parametrize(("name", "path"), CONFIGS, ids=[f"{n}-{p.parent.name}" for n, p in CONFIGS])
def test_no_size_of_a_shipped_model_is_damage(name: str, path: Path) -> None:
    check_sizes(read_config(path), path)


@pytest.mark.parametrize("name", sorted(EMBEDDED))
def test_a_shipped_model_is_opened(name: str) -> None:
    assert check_model(name) is not None


@pytest.mark.parametrize("key", ["layers_per_block", "num_single_layers", "num_refiner_layers"])
def test_a_model_may_have_none_of_a_kind_of_layers(key: str) -> None:
    check_sizes({key: 0}, Path("config.json"))
    with pytest.raises(ParetuneError, match=f"{key} is -1, and must be a whole number from 0 up"):
        check_sizes({key: -1}, Path("config.json"))
