"""`paretune advise`: a pilot of some minutes that says how a recipe's rewards should be joined, and why.

    agreement   all rewards score the base model's samples: their correlations within a prompt
    pilot       one round of short experts, one for each reward: the cosines of their changes, and what each
                of them does to the other rewards

The choice follows from these by the rule of `choices`. Prompts are put aside of the training sets, as for
`paretune tune`; the held-out prompts stay unseen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..environment import describe
from ..executors import open_executor
from ..executors.base import Report
from ..files import write_json
from ..models.detect import resolve_path
from ..recipes import parse_config
from ..records.read import read_diagnostics
from ..report.gains import paired_changes
from ..rewards.process import reward_process
from ..stages.agreement import AgreementJob, measure_agreement
from ..stages.claim import check
from ..stages.reduce import DIAGNOSTICS
from ..stages.summarise import tables
from ..stages.volumes import Space, space_of
from ..types import ParetuneError
from .choices import Evidence, choose
from .held_out import hold_out
from .trials import Means, begin, train_and_measure

ADVICE = "advice.json"
SAMPLES = 8  # of each prompt, for the agreement


def advise(
    config: RunConfig, out: Path, report: Report, epochs: int = 4, prompts: int = 16
) -> dict[str, Any]:
    """Run the pilot, or go on with it, and return its evidence and the choice. advice.json holds the same.

    Args:
        config: the recipe.
        out: the folder of the pilot.
        report: called with events.
        epochs: of the pilot's experts.
        prompts: validation prompts of each reward.

    Raises:
        ParetuneError: for a mistake of the user, such as a recipe of one reward.
    """
    if len(config.rewards) == 1:
        raise ParetuneError(f"{config.name} has one reward, so there is nothing to join: use paretune run")
    raw = config.model_dump(mode="json")
    raw |= {"methods": ["mapreduce"], "rounds": 1, "tokens": None, "map": {"lean": 0.0}, "reduce": {}}
    raw["train"]["epochs"] = epochs
    own = {"epochs": None, "lean": None, "weight": 1.0}
    raw["rewards"] = {name: reward | own for name, reward in raw["rewards"].items()}
    pilot = parse_config(raw, "the pilot")
    begin(pilot, out)
    pilot = hold_out(pilot, prompts, out / "prompts")
    check(pilot)
    reward_process().kill()  # it checked the rewards; each worker starts one for itself
    agreement = _agreement(pilot, out, report)  # first, as a reward may fail on prompts of another one
    rows = train_and_measure(pilot, out / "pilot", report, others=True)
    means, errors = tables(rows)
    cosines = read_diagnostics(out / "pilot" / "round-1" / "merged" / DIAGNOSTICS)["cosines"]
    evidence = Evidence(
        _pairs(agreement["agreement"]), _pairs(cosines), _taxes(pilot, rows),
        _reached(space_of(pilot), means),
    )  # fmt: skip
    advice = {
        **agreement, "cosines": cosines, "means": means, "stderr": errors, "evidence": asdict(evidence),
        "choice": asdict(choose(config, evidence)),
    }  # fmt: skip
    write_json(out / ADVICE, advice)
    return advice


def _agreement(config: RunConfig, out: Path, report: Report) -> dict[str, Any]:
    asked = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"samples": SAMPLES})})
    executor = open_executor(config, usual=1)
    with executor:
        environment = describe(config, resolve_path(config.model.path), executor.device)
        job = AgreementJob(asked, out, environment["model_fingerprint"])
        return executor.map(measure_agreement, [job], report)[0]


def _pairs(rows: Sequence[Sequence[float | None]]) -> list[float]:
    """The entries above the diagonal that were measured."""
    return [x for i, row in enumerate(rows) for x in row[i + 1 :] if x is not None]


def _taxes(config: RunConfig, rows: Sequence[dict[str, Any]]) -> list[str]:
    """The other rewards that an expert makes worse by more than two standard errors of the difference.

    Base and experts are measured on the same prompts with the same noise, so differences are paired. One
    prompt alone shows nothing.
    """
    rising = space_of(config).rising
    told = []
    for own in config.rewards:
        for change in paired_changes(rows, "base", f"expert:{own}"):
            worse = change.absolute * (-1 if rising[change.name] else 1)
            if change.name != own and worse > 2 * change.stderr:
                told.append(f"the expert of {own} worsens {change.name} by {worse:.3f}")
    return told


def _reached(space: Space, means: Means) -> dict[str, float]:
    reached = {}
    for name, (low, high) in space.ranges.items():
        best, start = (high if space.rising[name] else low), means["base"][name]
        if math.isfinite(best) and best != start:
            reached[name] = (means[f"expert:{name}"][name] - start) / (best - start)
    return reached


def table_of(advice: Mapping[str, Any], key: str) -> list[list[str]]:
    """A matrix of the advice as texts, a dash where a pair was not measured."""
    return [["–" if x is None else f"{x:+.2f}" for x in row] for row in advice[key]]
