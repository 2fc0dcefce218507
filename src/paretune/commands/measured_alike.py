"""Whether runs that `paretune compare` puts side by side were measured alike, by their recipes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..recipes import load_config
from ..report.compare import split_label
from ..rewards.table import ELSEWHERE, identity
from ..types import ParetuneError


def check_measured_alike(runs: Sequence[str]) -> None:
    """Raise ParetuneError for runs of other rewards, or of one label that were measured in another way.

    Where a reward lies or is asked does not count, nor the name that it had in an earlier version. A run
    whose recipe is not there or no longer read is compared by its prompts alone.

    Args:
        runs: folders, each perhaps with a label: "a=runs/one".
    """
    seen: list[tuple[str, str, RunConfig]] = []
    for label, folder in map(split_label, runs):
        try:
            config = load_config(Path(folder) / "config.yaml")
        except ParetuneError:
            continue
        for other, place, before in seen:
            told = _first_difference(_rewards(before), _rewards(config))
            if not told and other == label:
                told = _first_difference(_measuring(before), _measuring(config))
            if told:
                raise ParetuneError(
                    f"{folder} was measured in another way than {place} ({told}): only runs with the same "
                    "rewards compare, and seeds of one method have the same model and evaluate section"
                )
        seen.append((label, folder, config))


def _first_difference(one: dict[str, Any], two: dict[str, Any]) -> str:
    return next((key for key in one if key in two and one[key] != two[key]), "")


def _rewards(config: RunConfig) -> dict[str, Any]:
    """What scores, by key; of a file of the user's its name, wherever it lies."""
    found: dict[str, Any] = {}
    for name, own in config.rewards.items():
        file = own.reward.replace("\\", "/").rpartition("/")[2]
        elsewhere = ELSEWHERE.get(own.reward, ())
        found[f"rewards.{name}.reward"] = identity(own.reward) if file == own.reward else file
        found[f"rewards.{name}.head"] = own.head
        found[f"rewards.{name}.options"] = {k: v for k, v in own.options.items() if k not in elsewhere}
    return found


def _measuring(config: RunConfig) -> dict[str, Any]:
    """The model, wherever it lies, and how samples are drawn for the measurement, by key."""
    guidance, model = config.evaluate.guidance_scale, config.model
    return {
        "model.path": model.path.replace("\\", "/").rstrip("/").rpartition("/")[2],
        **{f"model.{key}": getattr(model, key) for key in ("dtype", "height", "width", "options")},
        **{f"evaluate.{key}": getattr(config.evaluate, key) for key in ("seed", "samples", "steps")},
        "evaluate.guidance_scale": config.model.guidance_scale if guidance is None else guidance,
    }  # fmt: skip
