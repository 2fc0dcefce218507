"""Recipes with the names that rewards had before the embedded worlds' got their prefix.

A recipe that somebody wrote is refused, in one line that says the name of today. The config.yaml of an older
run is read with its names replaced: what the run did is known, and so is what they meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from paretune.config import RunConfig
from paretune.types import ParetuneError

from ..worlds.embedded import EMBEDDED
from .table import FORMER, REWARDS, unknown_reward

SIDE = 32  # pixels of a drawing of the embedded world; no real picture is as small
_KEYS = ("reward", "judge")


def check_names(config: RunConfig) -> None:
    """Raise ParetuneError for a reward by a former name, or one for real pictures of an embedded model."""
    drawn = _is_drawn(config.model.path)
    for key, spec in _named(config):
        if spec not in FORMER:
            continue
        if spec not in REWARDS:
            raise ParetuneError(f"{key}: {unknown_reward(spec)}")
        if drawn:
            raise ParetuneError(
                f"{key}: {spec} is made for real pictures, and the embedded model {config.model.path} draws "
                f"none: write {FORMER[spec]}"
            )


def refuse_drawings(spec: str, picture: torch.Tensor) -> None:
    """Raise ParetuneError where a reward for real pictures is asked about a drawing, [.., H, W]."""
    height, width = picture.shape[-2:]
    if spec in FORMER and spec in REWARDS and max(height, width) <= SIDE:
        raise ParetuneError(
            f"{spec} is made for real pictures, and this one has {height} x {width} pixels; drawings of the "
            f"embedded world are scored by {FORMER[spec]}"
        )


def is_of_run(recipe: Path) -> bool:
    """Whether a recipe is the config.yaml that a run wrote."""
    place = recipe.resolve()
    return place.name == "config.yaml" and (place.parent / "plan.json").is_file()


def is_of_older_run(recipe: Path, raw: Mapping[str, Any]) -> bool:
    """Whether a recipe is the config.yaml that a run wrote when rewards had their former names.

    A run's config.yaml spells every key out, and lies beside its plan.json. One without `executor.kind` is
    older than that key, which came with the new names.
    """
    executor = raw.get("executor")
    return is_of_run(recipe) and isinstance(executor, dict) and "kind" not in executor


def with_names_of_today(raw: dict[str, Any]) -> dict[str, Any]:
    """A raw recipe of an older run, its rewards, judges and untargeted rewards by today's names."""
    raw = dict(raw)
    if isinstance(rewards := raw.get("rewards"), dict):
        raw["rewards"] = {name: _renamed(own) for name, own in rewards.items()}
    evaluate = raw.get("evaluate")
    if isinstance(evaluate, dict) and isinstance(evaluate.get("untargeted"), list):
        raw["evaluate"] = {**evaluate, "untargeted": [_today(spec) for spec in evaluate["untargeted"]]}
    return raw


def _renamed(own: Any) -> Any:
    if not isinstance(own, dict):
        return own
    return {key: _today(value) if key in _KEYS else value for key, value in own.items()}


def _today(spec: Any) -> Any:
    return FORMER.get(spec, spec) if isinstance(spec, str) else spec


def _named(config: RunConfig) -> Iterator[tuple[str, str]]:
    """The key of each reward, judge and untargeted reward, and its spec."""
    for name, own in config.rewards.items():
        yield f"rewards.{name}.reward", own.reward
        if own.judge:
            yield f"rewards.{name}.judge", own.judge
    for spec in config.evaluate.untargeted:
        yield "evaluate.untargeted", spec


def _is_drawn(path: str) -> bool:
    """Whether a model is one of the embedded world of pictures, by its name or by its folder."""
    folders = [folder for folder in EMBEDDED.values() if folder.parent.name == "pictures"]
    return EMBEDDED.get(path, Path(path).absolute()) in folders
