"""Carry out the analyses and write their files: the entry of the command `paretune analyse`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...adapters.store import load_delta
from ...config import RunConfig
from ...data.answer_lists import AnswerList
from ...data.prompts import load_prompts
from ...files import check_new, write_json
from ...models.causal_lm.given_answers import Given
from ...ops.statistics import Figure, mean_figure
from ...planning.plan import derive_seed
from ...rewards.base import oriented, score_samples
from ...training.objectives.table import find_objective
from ...types import ParetuneError, Prompt, Reward
from ..export import open_final
from ..guest_adapters import guest_changes
from . import reports
from .general import general_rewards
from .judges import open_judge
from .kept import NAME, Reports, beside, earlier, write
from .losses import entailments, losses
from .measured import measure, read_lists
from .options import Asked, check_words, refuse
from .safety import PHRASES, Answered, harmful, refuses, safety
from .separability import separability
from .sides import Side, divergences, experts_of, open_sides, open_text_model, settings_for


def analyse(what: str, target: str | None, asked: Asked, out: Path | None = None) -> dict[str, Any]:
    """Carry out an analysis and write its file.

    Args:
        what: pairs, run, safety or losses.
        target: a file of preferences for pairs; a run for run and safety, or for safety a model.
        asked: more of it.
        out: the new file. By default analysis.json in the run, in which other analyses stay; for pairs of a
            model that is no run NAME-analysis.json beside the file; none for losses.

    Returns:
        The content of the file.

    Raises:
        ParetuneError: for a mistake of the user.
    """
    check_words(what, target, asked)
    if out is not None:
        check_new(out)
    if what == "losses":
        found: dict[str, Any] = {"losses": losses(), "entails": entailments()}
        if out is not None:
            write_json(out, found)
        return found | {"file": None if out is None else str(out)}
    assert target is not None  # checked above
    run = Path(asked.model or "") if what == "pairs" else Path(target)
    is_run = what == "run" or (run / "config.yaml").exists()
    elsewhere = beside(target) if what == "pairs" else Path(NAME)
    place = out or (run / NAME if is_run else elsewhere)
    if is_run and out is None:
        earlier(place)  # a damaged file is told before the work
    else:
        check_new(place)
    if what == "pairs":
        made = _pairs(target, asked)
    else:
        made = _run(run, asked) if what == "run" else _safety(target, asked)
    return write(place, what, target, asked, made)


def _pairs(file: str, asked: Asked) -> tuple[Reports, dict[str, Any]]:
    assert asked.model is not None  # checked with the words
    lists, notes = _lists(file, asked.limit)
    model, reference = open_sides(asked.model, asked.reference, asked.adapter)
    made, credits = _on_pairs(lists, model, reference, asked.beta)
    return made, {"tokens": credits, "notes": notes}


def _lists(file: str, limit: int) -> tuple[Sequence[AnswerList], list[str]]:
    """The records of a file that can be compared, and a line about those that cannot."""
    prompts = load_prompts(file)[: limit or None]
    lists = read_lists(prompts)
    alone = len(prompts) - len(lists)
    return lists, [f"{file}: {alone:,} of {len(prompts):,} records have one answer and are left out"] * bool(
        alone
    )


def _on_pairs(
    lists: Sequence[AnswerList], model: Side, reference: Side, beta: float, probe: bool = True
) -> tuple[Reports, list[dict[str, Any]]]:
    """The reports on pairs, and the tokens' credits of the first ones."""
    found = measure(lists, model, reference)
    made: Reports = {
        "rankings": reports.rankings(found, beta), "3D": reports.three_d(found),
        "length": reports.length(found), "tokens": reports.credit(found, beta),
    }  # fmt: skip
    if probe:
        made["separability"] = separability(lists, reference)
    words = model.policy.tokenizer.convert_ids_to_tokens
    credits = [
        {"tokens": words(list(given.own)), "credit": own.tolist(), "sum": float(own.sum())}
        for given, own in ((given, beta * ratio) for given, ratio in found.credits)
    ]
    return made, credits


def _run(run: Path, asked: Asked) -> tuple[Reports, dict[str, Any]]:
    """Length and KL of the answers of base, experts and merge; where pairs were learned, their reports."""
    config, final = open_final(run)
    draws = find_objective(config.objective.name).draws
    if draws and "--beta" in asked.given():
        refuse("--beta", "a run that learned no pairs")
    policy = open_text_model(config.model)
    base = Side("base", policy)
    sides = {name: Side(f"expert:{name}", policy, load_delta(places))
             for name, places in experts_of(config, run).items()}  # fmt: skip
    merge = Side("merged", policy, load_delta([final]))
    prompts = _held_out(config, asked.limit or 64)
    learned = {} if draws else {  # read before anything is drawn
        name: _lists(reward.prompts, asked.limit or 256) for name, reward in config.rewards.items()
    }  # fmt: skip
    made: Reports = {
        f"answers of {side.name}": _answers(side, base, prompts) for side in (base, *sides.values(), merge)
    }
    notes: list[str] = []
    credits: list[dict[str, Any]] = []
    for name, (lists, told) in learned.items():
        notes += told
        for side in (*([sides[name]] if name in sides else []), merge):
            found, marked = _on_pairs(lists, side, base, asked.beta, probe=side is merge)
            made |= {f"{report}: {side.name} on the pairs of {name}": f for report, f in found.items()}
            credits += marked if side is merge else []
    return made, {"tokens": credits, "notes": notes}


def _held_out(config: RunConfig, most: int) -> list[str]:
    """Held-out prompts, as many of each reward, without repetition."""
    each = max(1, most // len(config.rewards))
    texts = [p.text for r in config.rewards.values() for p in load_prompts(r.eval_prompts)[:each]]
    return list(dict.fromkeys(texts))


def _answers(side: Side, base: Side, prompts: Sequence[str]) -> dict[str, Figure]:
    """The length of a model's own answers, and its KL to the base by them, one answer a prompt."""
    with side.at_work() as policy:
        asked = policy.text_ids(policy.render(prompts))
        drawn = policy.answer_ids(prompts, derive_seed("analyse", "run"), 16)
        given = [Given(tuple(b), tuple(o)) for b, o in zip(asked, drawn, strict=True) if o]
    group = torch.arange(len(drawn))
    return {
        "tokens of an answer": mean_figure(torch.tensor([float(len(row)) for row in drawn]), group),
        "KL to the base, an answer": mean_figure(divergences(side, base, given), torch.arange(len(given))),
    }


def _safety(target: str, asked: Asked) -> tuple[Reports, dict[str, Any]]:
    """Attack success and over-refusal of a run's base and final model, or of a model and an adapter."""
    assert asked.prompts is not None  # checked with the words
    prompts = load_prompts(asked.prompts)[: asked.limit or None]
    for prompt in prompts:
        harmful(prompt)
    opened = open_final(Path(target)) if (Path(target) / "config.yaml").exists() else None
    if opened and asked.adapter is not None:
        raise ParetuneError(
            f"--adapter is over a model, and {target} is a run, which has its own: leave it out"
        )
    config = opened[0] if opened else None
    judge = None if asked.judge == PHRASES else open_judge(asked.judge, config, asked.trust_rewards)
    if opened:
        config, final = opened
        policy = open_text_model(config.model)
        sides = [Side("base", policy), Side("merged", policy, load_delta([final]))]
    else:
        sides = [_with_adapter(target, asked.adapter)]
    made: Reports = {f"safety of {side.name}": _safety_of(side, prompts, asked, judge) for side in sides}
    return made | (general_rewards(Path(target), config) if config else {}), {}


def _with_adapter(model: str, adapter: str | None) -> Side:
    """A model, with an adapter over it where one is given."""
    settings = settings_for(model)
    policy = open_text_model(settings)
    if adapter is None:
        return Side(model, policy)
    changes = guest_changes("--adapter", adapter, settings.path, policy.transformer, Path())
    return Side(f"{model} with {adapter}", policy, changes)


def _safety_of(
    side: Side, prompts: Sequence[Prompt], asked: Asked, judge: Reward | None
) -> dict[str, Figure]:
    repeated = [p for p in prompts for _ in range(asked.count)]
    with side.at_work() as policy:
        texts = policy.answer([p.text for p in repeated], derive_seed("analyse", "safety"), 16)
    if judge is None:
        unsafe = [not refuses(text) for text in texts]
    else:
        values = oriented(judge, score_samples(judge, texts, repeated))
        least = asked.threshold if judge.higher_is_better else -asked.threshold
        unsafe = [value < least for value in values.tolist()]
    answers = [Answered(p, t, u) for p, t, u in zip(repeated, texts, unsafe, strict=True)]
    return safety(answers, asked.judge)
