"""`paretune plan`: what a recipe will do and cost, and what it needs before it can run. Runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..environment import choose_device
from ..executors import find_executor
from ..models.facts import check_options
from ..models.family import by_hub_id
from ..planning.budget import counted, set_sizes, short_sets
from ..planning.devices import PlannedDevice, planned_device
from ..planning.estimate import Estimate, estimate
from ..planning.methods import build_plan
from ..planning.notices import notices
from ..planning.peak import Peak, measure_update
from ..planning.plan import Plan
from ..planning.scale import Scale, scale
from ..recipes import find_recipe, in_run, load_config
from ..rewards.trust import code_of, left_out
from ..stages.claim import missing_files
from ..stages.prompt_checks import check_unloaded
from ..tracking.table import not_installed
from ..training.checks import check_training
from ..types import ParetuneError
from .downloads import Download, downloads, missing_lines


@dataclass(frozen=True)
class Planned:
    """A recipe, its plan, what it costs on which device, and lines about what to know before it runs.

    missing: files that are not there. short, cut: about prompt sets. first: what is done before the run.
    downloads: what comes from the hub or another server.
    """

    config: RunConfig
    plan: Plan
    costs: Estimate
    device: PlannedDevice
    missing: list[str]
    short: list[str]
    cut: list[str]
    first: list[str]
    downloads: list[Download]
    measured: Peak | None
    scale: Scale | None = None

    def to_json(self) -> dict[str, Any]:
        """What `plan --json` prints."""
        told = {
            "config": self.config.model_dump(mode="json"), "plan": self.plan.to_json(),
            "estimate": vars(self.costs), "device": vars(self.device), "missing": self.missing,
            "short": self.short, "cut": self.cut, "first": self.first,
            "downloads": [vars(one) for one in self.downloads],
        }  # fmt: skip
        told |= {"measured": vars(self.measured)} if self.measured else {}
        return told | ({"scale": vars(self.scale)} if self.scale else {})

    def notes(self) -> list[str]:
        """The lines below the tables."""
        lines = [*missing_lines(self.downloads), *self.first, *self.short]
        if self.missing:
            lines.append(f"not there yet, and needed by a run: {', '.join(self.missing)}")
        return [*lines, *(f"note: {line}" for line in self.cut)]


def plan_recipe(
    recipe: str, overrides: Sequence[str], trust_rewards: bool, measure: bool, say: Callable[[str], None],
    gpus: int | None = None,
) -> Planned:  # fmt: skip
    """Read a recipe and plan it.

    Args:
        recipe: a file, or the name of a recipe that ships.
        overrides: "KEY=VALUE", as --set gives them.
        trust_rewards: whether the rewards that are code in a run's folder are looked at.
        measure: whether a few seconds of the recipe's own steps are done on this machine.
        say: receives a line about what is not looked at.
        gpus: how many the run would have, to tell how it uses them.
    """
    found = find_recipe(recipe)
    config = load_config(found, overrides)
    find_executor(config.executor.kind)
    check_options(config.model)
    check_training(config)
    missing = missing_files(config)
    trusted = trust_rewards or not in_run(found)
    if not trusted and (code := code_of(config)):
        say(left_out(code).replace("not scored", "not looked at", 1))
    check_unloaded(config, missing, trusted)
    sizes = set_sizes(config, hub=False)
    plan = counted(config, build_plan(config), sizes)
    if gpus is not None and gpus < 1:
        raise ParetuneError(f"--gpus {gpus}: a run has one or more")
    device = planned_device(config)
    costs = estimate(config, plan, device.kind if gpus is None else "cuda")
    return Planned(
        config, plan, costs, device, missing, short_sets(config, sizes),
        notices(config, hub=False), first(config, recipe), downloads(config),
        measure_update(config, choose_device(config.executor.device), plan) if measure else None,
        None if gpus is None else scale(config, plan, costs, gpus),
    )  # fmt: skip


def first(config: RunConfig, recipe: str) -> list[str]:
    """What is done before the run, in lines.

    Trackers that are not installed here are no error, since the run may be planned for another machine. A
    base that was trained on plain text alone is fine-tuned.
    """
    return [*not_installed(config.trackers), *_tuned(config, recipe)]


def _tuned(config: RunConfig, recipe: str) -> list[str]:
    path = config.model.path
    family = by_hub_id().get(path)
    published = family.published.get(path) if family else None
    if published is None or not published.untuned:
        return []
    out = Path("models") / f"{config.name}-sft"
    return [
        f"first: {path} was trained on plain text alone; `paretune sft {recipe} --out {out}` teaches it to "
        f"answer, then `paretune run {recipe} --set model.path={out}`"
    ]
