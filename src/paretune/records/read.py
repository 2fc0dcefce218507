"""Checked readers of a run's records: the only module that defines the types of those files.

A file that was cut off, edited or replaced raises ParetuneError. Its line names the file, the position in it
and what to do. Tables and plots can use the values that a reader returns as they are. Additional keys, which
other versions may write, are accepted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from ..files import parse_json, read_rows
from ..types import ParetuneError

Row = dict[str, Any]
T = TypeVar("T")
REMAKE = "`paretune run ... --resume` makes it again"
LARGEST = 1e30  # largest recorded number: its square and long sums of such numbers are still finite


def _check_logged(value: float) -> float:
    """Accept NaN and infinity, which training may produce and reports show, but no number above LARGEST."""
    if math.isfinite(value) and abs(value) > LARGEST:
        raise ValueError(f"should be below {LARGEST:g}")
    return value


Text = Annotated[str, Strict()]
Whole = Annotated[int, Strict(), Field(ge=0, le=2**63)]
Flag = Annotated[bool, Strict()]
Number = Annotated[float, Strict(), Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
Logged = Annotated[float, Strict(), AfterValidator(_check_logged)]
Means = dict[Text, Number]


@with_config(ConfigDict(extra="allow"))
class Measured(TypedDict):
    """A row of evaluation.jsonl, or of rows.jsonl of one measured model."""

    method: Text
    reward: Text
    prompt: Text
    value: Number
    round: NotRequired[Whole | None]
    preference: NotRequired[list[Number]]
    prompt_set: NotRequired[Text]
    seed: NotRequired[Whole]
    kind: NotRequired[Text]
    lattice: NotRequired[Flag]
    image: NotRequired[Text]


@with_config(ConfigDict(extra="allow"))
class Epoch(TypedDict):
    """A row of metrics.jsonl."""

    update: Whole
    reward: NotRequired[Logged | None]
    reward_std: NotRequired[Logged | None]
    kl: NotRequired[Logged | None]
    loss: NotRequired[Logged | None]
    accuracy: NotRequired[Logged | None]
    judge: NotRequired[Logged | None]
    judged: NotRequired[Logged | None]
    w_diff: NotRequired[Logged | None]
    l_diff: NotRequired[Logged | None]
    tau_levels: NotRequired[Annotated[list[Logged | None], Field(min_length=4, max_length=4)]]
    margins: NotRequired[Annotated[list[Whole], Field(min_length=10, max_length=10)]]


@with_config(ConfigDict(extra="allow"))
class Candidate(TypedDict):
    """A row of a search's candidates.jsonl."""

    weights: list[Number]
    value: Number


@with_config(ConfigDict(extra="allow"))
class Phase(TypedDict):
    """A row of timing.jsonl."""

    phase: Text
    seconds: Annotated[Number, Field(ge=0)]


@with_config(ConfigDict(extra="allow"))
class RoundFacts(TypedDict):
    """An entry of summary.json's `rounds`."""

    round: NotRequired[Whole]
    means: NotRequired[Means]
    stderr: NotRequired[Means]
    contraction: NotRequired[Number | None]
    spread: NotRequired[Number | None]
    hypervolume: NotRequired[Number | None]
    expert_means: NotRequired[dict[Text, Means]]


class NormalisedMeans(TypedDict):
    """summary.json's `normalised`: reward -> how, and method -> reward -> mean."""

    ways: dict[Text, Text]
    methods: dict[Text, Means]


@with_config(ConfigDict(extra="allow"))
class PairOrders(TypedDict):
    """How often the scorers of a file of pairs order alike; see `ops.orders.Orders`."""

    names: list[Text]
    alike: list[list[Number | None]]
    pairs: list[list[Whole]]


@with_config(ConfigDict(extra="allow"))
class Summary(TypedDict):
    """summary.json. `read_summary` takes the keys that its caller needs."""

    rewards: NotRequired[Annotated[list[Text], Field(min_length=1)]]
    untargeted: NotRequired[list[Text]]
    judges: NotRequired[dict[Text, Text]]
    higher_is_better: NotRequired[dict[Text, Flag]]
    ranges: NotRequired[dict[Text, Annotated[list[Number | None], Field(min_length=2, max_length=2)]]]
    methods: NotRequired[dict[Text, Means]]
    stderr: NotRequired[dict[Text, Means]]
    hypervolume: NotRequired[dict[Text, Number | None]]
    reference_point: NotRequired[Means]
    rounds: NotRequired[list[RoundFacts]]
    described: NotRequired[list[Text]]
    normalised: NotRequired[NormalisedMeans]
    timing: NotRequired[dict[Text, Annotated[Number, Field(ge=0)]]]
    budget: NotRequired[dict[Text, Whole]]
    pairs: NotRequired[dict[Text, PairOrders]]


@with_config(ConfigDict(extra="allow"))
class Agreement(TypedDict):
    """A round's diagnostics.json."""

    spread: Number
    contraction: NotRequired[Number | None]
    cosines: NotRequired[list[list[Logged]]]
    rewards: NotRequired[list[Text]]


@with_config(ConfigDict(extra="allow"))
class Shown(TypedDict):
    """A prompt of samples/index.json."""

    set: Text
    index: Whole
    text: Text
    image: NotRequired[Text]


@with_config(ConfigDict(extra="allow"))
class Index(TypedDict):
    """samples/index.json."""

    methods: list[Text]
    prompts: list[Shown]


class Change(TypedDict):
    """How the scores of changed samples follow those of the samples; see `ops.reward_card.reliability`."""

    correlation: Number | None
    change: Number | None


@with_config(ConfigDict(extra="allow"))
class Steadiness(TypedDict):
    """A scorer of evaluation/base/reliability.json."""

    prompt_set: Text
    kind: Text
    reward: Text
    seconds: Annotated[Number, Field(ge=0)] | None
    reliability: dict[Text, Change]


class Reliability(TypedDict):
    """evaluation/base/reliability.json."""

    scorers: list[Steadiness]


_MEASURED = TypeAdapter(list[Measured])
_EPOCHS = TypeAdapter(list[Epoch])
_CANDIDATES = TypeAdapter(list[Candidate])
_PHASES = TypeAdapter(list[Phase])
_SUMMARY = TypeAdapter(Summary)
_AGREEMENT = TypeAdapter(Agreement)
_INDEX = TypeAdapter(Index)
_RELIABILITY = TypeAdapter(Reliability)


def read_evaluation(path: Path, torn: Callable[[], None] | None = None) -> list[Row]:
    """The rows of measured values. A last line that is cut off calls `torn` if it is given, else raises."""
    return _rows(_MEASURED, path, REMAKE, torn)


def read_metrics(path: Path, torn: Callable[[], None] = lambda: None) -> list[Row]:
    """The rows of an expert's or a token's training, without an unfinished last row of a killed process."""
    return _rows(_EPOCHS, path, f"delete {path.parent} and resume to make it again", torn)


def read_candidates(path: Path) -> list[Row]:
    """The rows of a search for weights."""
    return _rows(_CANDIDATES, path, f"delete {path.parent} and resume to make it again", None)


def read_timing(path: Path) -> list[Row]:
    """The phases of a run; none when the file does not exist."""
    return _rows(_PHASES, path, "delete it and resume: only the recorded times are lost", lambda: None)


def read_summary(path: Path, needed: Sequence[str] = ("rewards", "methods")) -> Row:
    """summary.json. Raises ParetuneError when a key of `needed` is missing or has no entries."""
    summary = read_value(path)
    summary = summary if isinstance(summary, dict) else {}
    checked(_SUMMARY, summary, path, REMAKE)
    lacking = [key for key in needed if key not in summary]
    if lacking:
        raise ParetuneError(f"{path} has no {', '.join(map(repr, lacking))}: {REMAKE}")
    reference = summary.get("reference_point")
    lost = [] if reference is None else [r for r in summary.get("rewards", ()) if r not in reference]
    if lost:
        raise ParetuneError(f"{path} is damaged: its reference_point lacks {', '.join(lost)}; {REMAKE}")
    for key in {"rewards", "methods"} & set(needed):
        if not summary[key]:
            raise ParetuneError(f"{path} has no {key!r}: {REMAKE}")
    return summary


def read_diagnostics(path: Path) -> Row:
    """diagnostics.json of a round: how its experts agree."""
    return _read(_AGREEMENT, path, f"delete {path.parent} and resume to make it again")


def read_reliability(path: Path) -> list[Row]:
    """How reliable each scorer was on the base's samples, and what a sample cost it."""
    return _read(_RELIABILITY, path, f"delete {path.parent} and resume to make it again")["scorers"]


def read_index(path: Path) -> Row:
    """The index of the samples that the page shows. Raises ParetuneError for a name that is no file name."""
    index = _read(_INDEX, path, REMAKE)
    for name in (*index["methods"], *(entry["set"] for entry in index["prompts"])):
        if "/" in name or "\0" in name or name in {"", ".", ".."}:
            raise ParetuneError(f"{path} is damaged: {name!r} is no name of a sample; {REMAKE}")
    return index


def read_object(path: Path) -> Row:
    """A JSON object whose keys are not checked: plan.json, environment.json."""
    value = read_value(path)
    if not isinstance(value, dict):
        raise ParetuneError(f"{path} is damaged: it is not a JSON object; {REMAKE}")
    return value


def read_value(path: Path) -> Any:
    """Any JSON value. Raises ParetuneError for a file that cannot be read or is not JSON."""
    try:
        return parse_json(path.read_bytes())
    except OSError as error:
        raise ParetuneError(f"{path} cannot be read: {error.strerror}; {REMAKE}") from error
    except ValueError as error:
        reason = str(error).replace("\n", " ")
        raise ParetuneError(f"{path} is damaged, not JSON: {reason}; {REMAKE}") from error


def checked(kind: TypeAdapter[T], value: Any, path: Path, remedy: str, line: bool = False) -> T:
    """Validate a value that was read from a file.

    Args:
        kind: the type that the value must have.
        value: the value.
        path: its file, for the message.
        remedy: what the user can do, the end of the message.
        line: whether the value is a list of rows, whose positions are lines of the file.

    Returns:
        The value.
    """
    try:
        return kind.validate_python(value)
    except (ValidationError, OverflowError) as error:
        fault = _first_fault(error, line) if isinstance(error, ValidationError) else "a number is too large"
        raise ParetuneError(f"{path} is damaged: {fault}; {remedy}") from error


def _first_fault(error: ValidationError, line: bool) -> str:
    """The first fault that a validation found, in words."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = [str(part) for part in first["loc"]]
    if first["type"] == "missing" and line:
        return f"a row has no {where[-1]!r} (line {int(where[0]) + 1})"
    if line and where:
        where[0] = f"line {int(where[0]) + 1}"
    message = first["msg"].removeprefix("Value error, ").replace("\n", " ")
    return f"{'.'.join(where)}: {message[:1].lower()}{message[1:]}" if where else message


def _read(kind: TypeAdapter[Any], path: Path, remedy: str) -> Row:
    value = read_value(path)
    checked(kind, value, path, remedy)
    return value


def _rows(
    kind: TypeAdapter[Any], path: Path, remedy: str, torn: Callable[[], None] | None
) -> list[Row]:
    def cut() -> None:
        raise ParetuneError(f"{path} is damaged: its last line is cut off; {remedy}")

    rows = read_rows(path, torn or cut)
    checked(kind, rows, path, remedy, line=True)
    return rows
