"""Objectives that another package adds in one file: one with a loss, one that brings its own samples."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.planning.methods import build_plan
from paretune.planning.plan import ExpertTask
from paretune.recipes import load_config
from paretune.stages.map import mixture_of
from paretune.training.expert import ExpertTrainer
from paretune.training.objectives.table import find_objective, objective_names
from paretune.training.trainers import check_objective, open_trainer
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "my_objective.py"

# Matches given pictures, white for the first prompt and black for the second, whatever the rewards say.
OWN_DATA = '''
from collections.abc import Sequence
from typing import Any

import torch

from paretune.ops.policy_losses import matching_log_prob
from paretune.models.flow import Trajectories
from paretune.training.mixture import Mixture
from paretune.training.objectives.flow import Batch, Collected, Learner
from paretune.training.objectives.forward import Fit, ForwardObjective, ForwardOptions, Noised


class Given(ForwardObjective[ForwardOptions]):
    options_kind = ForwardOptions

    @classmethod
    def captions(cls, options: Any, mixture: Mixture) -> Sequence[str]:
        return ["white", "black"]

    def collect(self, learner: Learner, generator: torch.Generator) -> Collected:
        pixels = torch.stack([torch.ones(3, 16, 16), torch.zeros(3, 16, 16)])
        latents = learner.policy.encode_media(pixels)
        both = torch.arange(2)
        return Collected(
            Batch(Trajectories(latents), torch.ones(2), learner.conditions.select(both), both),
            {"reward": 0.0},
        )

    def fit(self, at: Noised, velocity: torch.Tensor) -> Fit:
        return Fit(-matching_log_prob(velocity, at.clean, at.noise).mean())
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with both, and with two that are broken."""
    site = tmp_path / "site"
    info = site / "my_objectives-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-objectives\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(
        "[paretune.objectives]\nweighted = my_objective:Weighted\ngiven = own_data:Given\n"
        "broken = broken_objective:Missing\nplain = my_objective:torch\n"
    )
    (site / "my_objective.py").write_text(EXAMPLE.read_text())
    (site / "own_data.py").write_text(OWN_DATA)
    (site / "broken_objective.py").write_text("import nothing_of_this_name\n")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    for name in ("my_objective", "own_data"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return site


def _trainer(
    folder: Path, pipeline: Path, objective: dict[str, Any], **train: Any
) -> tuple[ExpertTrainer, ExpertTask]:
    train = {"epochs": 1, **train}
    config = load_config(tiny_recipe(folder, pipeline, rounds=1, objective=objective, train=train))
    check_objective(config)
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    trainer = open_trainer(config, task, folder, mixture_of(config, task), None, "cpu")
    assert isinstance(trainer, ExpertTrainer)
    return trainer, task


def test_an_objective_of_another_package_trains_two_updates(
    package: Path, tiny_sd3: Path, tmp_path: Path
) -> None:
    objective = {"name": "weighted", "kl": 0.1, "options": {"temperature": 0.5, "times": 1}}
    trainer, _ = _trainer(tmp_path / "run", tiny_sd3, objective)
    deltas = trainer.run(lambda event: None, lambda: False)
    assert trainer.state.updates == 2
    assert max(float(d.B.abs().max()) for d in deltas.values()) > 0
    assert all(torch.isfinite(d.B).all() for d in deltas.values())


def test_the_first_update_follows_the_weighted_error(package: Path, tiny_sd3: Path, tmp_path: Path) -> None:
    """With one micro-batch and one noise level the loss is the mean of exp(A / t) times the errors."""
    trainer, _ = _trainer(
        tmp_path / "run", tiny_sd3, {"name": "weighted", "options": {"times": 1}}, updates_per_epoch=1
    )
    objective: Any = trainer.objective
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    fit = objective.fit

    def watched(at: Any, velocity: torch.Tensor) -> Any:
        error = ((velocity - (at.noise - at.clean)) ** 2).flatten(1).mean(1)
        seen.append((at.advantages, error.detach()))
        return fit(at, velocity)

    objective.fit = watched
    row = trainer.epoch()
    advantages, errors = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert row["loss"] == pytest.approx(float((advantages.exp() * errors).mean()), rel=1e-4)
    assert row["kept_groups"] == 2


def test_its_options_are_checked_like_any_others(package: Path, tiny_sd3: Path, tmp_path: Path) -> None:
    assert {"weighted", "given"} <= set(objective_names())
    path = tiny_recipe(tmp_path, tiny_sd3, objective={"name": "weighted"})
    assert load_config(path).objective.options == {"times": 2, "time_shift": 1.0, "temperature": 1.0}
    with pytest.raises(ParetuneError, match=r"objective\.options\.temprature; did you mean temperature\?"):
        load_config(path, ["objective.options.temprature=2"])
    with pytest.raises(ParetuneError, match=r"there is no objective weigthed; did you mean weighted\?"):
        load_config(path, ["objective.name=weigthed"])


def test_a_broken_objective_is_one_line(package: Path) -> None:
    with pytest.raises(ParetuneError, match=r"^objective broken \(broken_objective:Missing\) cannot be"):
        find_objective("broken")
    with pytest.raises(ParetuneError, match=r"^objective plain \(my_objective:torch\) is no class made from"):
        find_objective("plain")
    names = objective_names("pictures")
    assert (names[:4], names[-2:]) == (["nft", "awm", "sft", "flow_grpo"], ["weighted", "given"])


def test_an_objective_brings_its_own_samples_in_place_of_rollouts(
    package: Path, tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = _trainer(
        tmp_path / "run", tiny_sd3, {"name": "given"}, epochs=16, learning_rate=0.1, updates_per_epoch=1
    )

    def none_is_drawn(*_: object) -> None:
        raise AssertionError("a rollout was drawn")

    monkeypatch.setattr(trainer, "rollout", none_is_drawn)
    assert len(trainer.conditions.embeds) == 2
    losses = [trainer.epoch()["loss"] for _ in range(16)]
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3])


def test_the_page_shows_the_example() -> None:
    page = (EXAMPLE.parent.parent / "docs" / "add-an-objective.md").read_text()
    assert '--8<-- "examples/my_objective.py"' in page
    assert len(page.splitlines()) < 60
