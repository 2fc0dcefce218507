"""A preference from choices between samples: `paretune sample --prefer-from`, and the page's question.

Choices are scored with the run's rewards, and weights of the rewards are fitted (`ops.bradley_terry`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.answer_lists import AnswerList, read_answers
from ..data.preferences import Preference, load_preferences
from ..data.prompts import load_prompts
from ..models.facts import read_shape
from ..ops.bradley_terry import Fit, fit_choices
from ..records.read import read_summary
from ..training.preferences.file_lists import check_media, read_media
from ..types import ParetuneError
from .request import Request, read_prompt
from .sampler import Sampler
from .source import ModelSource

FEWEST = 4  # choices
Scores = dict[str, float]  # by reward, as they are; one that gives none is left out


def read_choices(path: Path, source: ModelSource) -> tuple[Preference, ...]:
    """The records of a file of choices, checked for a run's model. Raises ParetuneError, with the line."""
    if not source.rewards:
        raise ParetuneError(f"{source.name} is a model, not a run: it has no rewards to prefer")
    texts = bool(source.medium.lines)
    records = _of_answers(path) if texts else load_preferences(str(path))
    count = sum(len(ordered(record)) for record in records)
    if count < FEWEST:
        raise ParetuneError(f"--prefer-from {path}: {count} choices; give at least {FEWEST}")
    shape = None if texts else read_shape(source.model)
    for record in records if shape is not None else ():
        if not known(record, source):
            for media in record.samples:
                check_media(media, record.where, shape, source.medium.name == "clips")
    return records


def _of_answers(path: Path) -> tuple[Preference, ...]:
    """Choices between answers: pairs, or lists with scores, or best first. Samples are texts in UTF-8."""
    found: list[Preference] = []
    for prompt in load_prompts(path):
        read = read_answers(prompt)
        shared = set.intersection(*(set(answer.scores) for answer in read.answers))
        found.append(Preference(
            str(prompt.text), tuple(a.text.encode() for a in read.answers), _preferred(read), None,
            f"{path}, the prompt {prompt.text[:60]!r}",
            {name: tuple(a.scores[name] for a in read.answers) for name in shared},
        ))  # fmt: skip
    return tuple(found)


def _preferred(read: AnswerList) -> tuple[float, ...]:
    """A number of each answer, greater is better: its score, or its place where the record says the order.

    A record says it by ranks, or by "chosen" and "rejected", which may be people's: a reward's scores do not
    turn that round.
    """
    record = read.prompt.metadata
    places = tuple(float(place) for place in range(len(read.answers), 0, -1))
    entries = record.get("answers") or [{}]
    ranked = entries[0].get("rank") is not None
    if ranked:  # the answers were put in this order, and all have ranks
        entries = sorted(entries, key=lambda entry: entry["rank"])
    scores: Sequence[Any] = [entry.get("score") for entry in entries]
    if not all(type(score) in {int, float} and abs(score) <= sys.float_info.max for score in scores):
        return places
    values = tuple(map(float, scores))
    falls = all(better >= worse for better, worse in pairwise(values))
    better, worse = read.pair
    if ranked:
        return values if falls and len(set(values)) == len(values) else places
    if (record.get("chosen"), record.get("rejected")) == (better.text, worse.text):
        return values if falls and values[read.first] > values[-1] else places
    return values


def known(record: Preference, source: ModelSource) -> bool:
    """Whether a record has the scores of all of the run's rewards, so that its samples are not needed."""
    return set(source.rewards) <= record.judged.keys()


def ordered(record: Preference) -> list[tuple[int, int]]:
    """The pairs of a record whose first sample was preferred."""
    pairs = combinations(range(len(record.samples)), 2)
    both = [(i, j) if record.scores[i] > record.scores[j] else (j, i) for i, j in pairs]
    return [(i, j) for i, j in both if record.scores[i] != record.scores[j]]


def preferred_from(records: Sequence[Preference], sampler: Sampler) -> tuple[Fit, int]:
    """The preference that choices show, and how many they are. Samples without scores are scored."""
    chosen: list[Scores] = []
    rejected: list[Scores] = []
    for record in records:
        rows = _scores(record, sampler)
        for first, second in ordered(record):
            chosen.append(rows[first])
            rejected.append(rows[second])
    return fit_scores(chosen, rejected, sampler), len(chosen)


def fit_scores(chosen: Sequence[Scores], rejected: Sequence[Scores], sampler: Sampler) -> Fit:
    """The fit of choices whose samples have the given scores.

    Raises ParetuneError if no reward of the run tells the samples of a choice apart.
    """
    names = sampler.source.rewards
    costs = _costs(sampler)
    first, second = (
        np.array([[(-1 if name in costs else 1) * row.get(name, math.nan) for name in names] for row in rows])
        for rows in (chosen, rejected)
    )
    if not np.any(np.nan_to_num(first - second) != 0):
        raise ParetuneError(
            "the choices show no preference: no reward of the run scores two samples of one differently"
        )
    return fit_choices(first, second)


def _costs(sampler: Sampler) -> set[str]:
    """The run's rewards of which less is better; of those whose code is not run, as its summary says."""
    found = {reward.name for reward in sampler.rewards() if not reward.higher_is_better}
    source = sampler.source
    if source.run_folder is not None and source.unscored:
        rising = read_summary(source.run_folder / "summary.json").get("higher_is_better", {})
        found |= {name for name in source.unscored if not rising.get(name, True)}
    return found


def shown_fit(fit: Fit, choices: int, names: Sequence[str]) -> dict[str, Any]:
    """A fit as plain data, as sample.json holds it."""
    return {
        "choices": choices, "explained": fit.explained,
        "preference": dict(zip(names, fit.preference, strict=True)),
        "error": dict(zip(names, fit.error, strict=True)),
    }  # fmt: skip


def _scores(record: Preference, sampler: Sampler) -> list[Scores]:
    """The scores of the samples of a record: its own, or those that the run's rewards give now."""
    source = sampler.source
    if known(record, source):
        return [{name: record.judged[name][i] for name in source.rewards} for i in range(len(record.samples))]
    request = Request(read_prompt(record.prompt, source.medium.longest), "base")
    if source.medium.lines:
        return list(sampler.scored(request, [m.decode() for m in record.samples if isinstance(m, bytes)]))
    shape = read_shape(source.model)
    pixels = torch.stack([read_media(media, shape) for media in record.samples])
    return list(sampler.scored(request, pixels))
