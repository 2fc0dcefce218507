"""Runs with `lora.init: carried`, of pictures and of a language model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paretune.adapters.store import load_delta
from paretune.ops.lowrank import LowRank, compress
from tests.conftest import tiny_recipe
from tests.here import run_here
from tests.language import language_recipe

# After one update A is what it began with: its gradient is zero as long as B is.
ONCE = {"epochs": 1, "updates_per_epoch": 1, "weight_decay": 0.0, "learning_rate": 0.02}


@pytest.mark.parametrize("kind", ["pictures", "answers"])
def test_experts_of_the_second_round_begin_along_the_first(
    kind: str, tiny_sd3: Path, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, model = (tiny_recipe, tiny_sd3) if kind == "pictures" else (language_recipe, tiny_llama)
    first = {}
    for init in ("gaussian", "carried"):
        recipe = write(tmp_path / init, model, lora={"init": init}, train=ONCE, methods=["mapreduce"])
        run_here(recipe, tmp_path / init / "run", monkeypatch)
        first[init] = load_delta([tmp_path / init / "run/round-1/merged"])
    # The first round has nothing before it, and begins as gaussian does.
    for module, delta in first["gaussian"].items():
        assert torch.equal(delta.dense(), first["carried"][module].dense())
    experts = sorted((tmp_path / "carried/run/round-2/experts").iterdir())
    assert len(experts) == 2
    # The last block's query of the text does not reach SD3's output, so nothing changed it.
    changed = {module: delta for module, delta in first["carried"].items() if delta.norm() > 0}
    assert len(changed) >= len(first["carried"]) - 1
    for expert in map(load_delta, ([folder] for folder in experts)):
        assert [module for module, delta in changed.items() if not along(expert[module], delta)] == []
    for expert in (load_delta([tmp_path / "gaussian/run/round-2/experts" / f.name]) for f in experts):
        assert not any(along(expert[module], delta) for module, delta in changed.items())


def along(delta: LowRank, earlier: LowRank) -> bool:
    """Whether the rows of A are the main input directions of the earlier round."""
    main = torch.nn.functional.normalize(compress(earlier, rank=2).delta.A, dim=1)
    return bool(torch.allclose(torch.nn.functional.normalize(delta.A, dim=1), main, atol=1e-4))
