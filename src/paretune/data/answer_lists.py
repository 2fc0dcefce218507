"""Read the answers of a preference record: a pair, a triple, or a list of answers, best first.

    {"prompt": .., "chosen": .., "rejected": ..}                     a pair; a triple with a best "reference"
    {"prompt": .., "answers": [{"text": .., "scores": {..}}, ..]}    a list

Of the record: `prefix`, a text that all answers begin with and that is read but not trained on; `margin`, the
better answer's reward minus the worse one's, in log-odds; `share`, from 0 to 1, of those who prefer it;
`weight` of the record, 0 or more, or `drift`, from 0 to 2; `stage`, from 1 for the easiest; `tokenizer`, the
digest of the tokenizer that token weights were made with; `weights`, "contrast" or "guide", what these are;
`costs`, the names of `scores` of which less is better.
Of an answer:
`text`; `ends`, false where it was cut off or another step follows; `scores` by reward; `rank` from 1;
`steps`, texts that make up the answer, with `step_weights`; `token_weights`, one for each of its tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from paretune.types import ParetuneError, Prompt

# The numbers of a record -> the least and the greatest that they can be.
NUMBERS = {
    "margin": (-math.inf, math.inf), "share": (0.0, 1.0), "weight": (0.0, math.inf), "drift": (0.0, 2.0),
}  # fmt: skip
WINS = "wins"  # the name of the share of rivals beaten, among an answer's scores
ROUNDING = 1e-6  # how far a number that was computed may lie outside


@dataclass(frozen=True)
class Answer:
    """One answer of a record; see the module.

    scores: as they are. source: who wrote it, "" if the record does not say. costs: the scores of which less
    is better.
    """

    text: str
    ends: bool = True
    scores: Mapping[str, float] = field(default_factory=dict[str, float])
    steps: tuple[str, ...] = ()
    step_weights: tuple[float, ...] = ()
    token_weights: tuple[float, ...] | None = None
    source: str = ""
    costs: frozenset[str] = frozenset()

    def score(self, name: str = "", own: str = "") -> float | None:
        """The score of that name, of which greater is better: a cost's is negative. None if it has none.

        Without a name it is the answer's only score, or of several that of the reward `own`.
        """
        wanted = next(iter(self.scores)) if not name and len(self.scores) == 1 else name or own
        value = self.scores.get(wanted)
        return -value if value is not None and wanted in self.costs else value


@dataclass(frozen=True)
class AnswerList:
    """The answers of a record, best first; see the module.

    first: the number of the better answer of the record's pair: 1 for a triple, whose best answer is an
    example to imitate, else 0.
    """

    prompt: Prompt
    answers: tuple[Answer, ...]
    prefix: str = ""
    margin: float | None = None
    share: float | None = None
    weight: float | None = None
    drift: float | None = None
    stage: int | None = None
    tokenizer: str | None = None
    weights: str | None = None
    first: int = 0

    @property
    def pair(self) -> tuple[Answer, Answer]:
        """The better and the worse answer: of a triple its "chosen" and "rejected", else first and last."""
        return self.answers[self.first], self.answers[-1]


def read_answers(prompt: Prompt) -> AnswerList:
    """The answers of a prompt's record. Raises ParetuneError, which names the prompt, for a faulty record."""
    record, where = prompt.metadata, f"the prompt {prompt.text[:60]!r}"
    given = record.get("answers")
    if given is None:
        names = [name for name in ("reference", "chosen", "rejected") if record.get(name) is not None]
        if "chosen" not in names or "rejected" not in names:
            raise ParetuneError(f'{where} has neither "answers" nor "chosen" and "rejected" in its record')
        for name in names:
            if not isinstance(record[name], str) or not record[name].strip():
                raise ParetuneError(f'{where}: "{name}" is the text of an answer, not {record[name]!r:.40}')
        given = [{"text": record[name]} for name in names]
    if not isinstance(given, list) or not given:
        raise ParetuneError(f'{where}: "answers" is a list of answers, best first')
    entries = cast("list[Any]", given)
    costs = _costs(record.get("costs"))
    answers = [_answer(entry, f"{where}, answer {i}", costs) for i, entry in enumerate(entries, start=1)]
    prefix = record.get("prefix", "")
    if not isinstance(prefix, str):
        raise ParetuneError(f'{where}: "prefix" is a text')
    numbers = {name: _within(_number(record, name, where), name, where) for name in NUMBERS}
    stage = record.get("stage")
    if stage is not None and (isinstance(stage, bool) or not isinstance(stage, int) or stage < 1):
        raise ParetuneError(f'{where}: "stage" is a whole number from 1, not {stage!r}')
    triple = len(answers) > 2 and all(record.get(k) is not None for k in ("reference", "chosen", "rejected"))
    return AnswerList(
        prompt, _ranked(entries, answers, where), prefix, **numbers, stage=stage,
        tokenizer=record.get("tokenizer"), weights=record.get("weights"), first=int(triple),
    )  # fmt: skip


def _answer(entry: Any, where: str, costs: frozenset[str]) -> Answer:
    if not isinstance(entry, Mapping):
        raise ParetuneError(f'{where} is no object with a "text"')
    record = cast("Mapping[str, Any]", entry)
    text, ends, scores = record.get("text"), record.get("ends", True), record.get("scores", {})
    steps = record.get("steps", [])
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in cast("list[Any]", steps)):
        raise ParetuneError(f'{where}: "steps" is a list of texts')
    if text is None and steps:
        text = "".join(cast("list[str]", steps))
    if not isinstance(text, str) or not text.strip():
        raise ParetuneError(f'{where} has no "text"')
    if steps and "".join(cast("list[str]", steps)) != text:
        raise ParetuneError(f'{where}: its "steps", joined, are not its "text"')
    if not isinstance(ends, bool):
        raise ParetuneError(f'{where}: "ends" is true or false, not {ends!r}')
    if not isinstance(scores, Mapping):
        raise ParetuneError(f'{where}: "scores" maps rewards to numbers')
    named = cast("Mapping[str, Any]", scores)
    found = {name: _number(named, name, where) for name in named}
    weights = _numbers(record, "step_weights", where) or ()
    if any(weight < -ROUNDING for weight in weights):
        raise ParetuneError(f'{where}: "step_weights" are 0 or more, not {min(weights):g}')
    if weights and len(weights) != len(steps):
        raise ParetuneError(f"{where} has {len(steps)} steps and {len(weights)} step_weights")
    return Answer(
        text, ends, {name: value for name, value in found.items() if value is not None},
        tuple(cast("list[str]", steps)), weights, _numbers(record, "token_weights", where),
        str(record.get("source", "")), costs,
    )  # fmt: skip


def _ranked(entries: list[Any], answers: list[Answer], where: str) -> tuple[Answer, ...]:
    """The answers in the order of their ranks, or as they stand where none has a rank."""
    ranks = [entry.get("rank") for entry in entries]
    if all(rank is None for rank in ranks):
        return tuple(answers)
    shown = ", ".join(f"{rank!r:.40}" for rank in ranks)
    told = f"{where}: the ranks of its {len(ranks)} answers are {shown}"
    if any(isinstance(rank, bool) or not isinstance(rank, int) for rank in ranks):
        raise ParetuneError(f"{told}: say whole numbers, 1 to {len(ranks)}")
    if sorted(ranks) != list(range(1, len(ranks) + 1)):
        raise ParetuneError(f"{told}, not 1 to {len(ranks)}")
    return tuple(answers[ranks.index(rank)] for rank in range(1, len(ranks) + 1))


def _costs(names: Any) -> frozenset[str]:
    """The names of scores; {} for anything else that a data set calls so, such as a price."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in cast("list[Any]", names)):
        return frozenset()
    return frozenset(cast("list[str]", names))


def _number(record: Mapping[str, Any], name: str, where: str) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    except OverflowError as error:  # a whole number of hundreds of digits
        raise ParetuneError(f'{where}: "{name}" is a number that is too large: {value!r:.20}..') from error
    raise ParetuneError(f'{where}: "{name}" is a number, not {value!r:.40}')


def _within(value: float | None, name: str, where: str) -> float | None:
    """A number in its range, from which rounding alone may lead."""
    least, greatest = NUMBERS[name]
    if value is None or least - ROUNDING <= value <= greatest + ROUNDING:
        return None if value is None else min(max(value, least), greatest)
    told = f"from {least:g} to {greatest:g}" if math.isfinite(greatest) else f"of {least:g} or more"
    raise ParetuneError(f'{where}: "{name}" is a number {told}, not {value:g}')


def _numbers(record: Mapping[str, Any], name: str, where: str) -> tuple[float, ...] | None:
    values = record.get(name)
    if values is None:
        return None
    if not isinstance(values, list):
        raise ParetuneError(f'{where}: "{name}" is a list of numbers')
    found = [_number({name: value}, name, where) for value in cast("list[Any]", values)]
    if any(value is None for value in found):
        raise ParetuneError(f'{where}: "{name}" is a list of numbers')
    return tuple(cast("list[float]", found))
