"""Compute the figures that the page quotes: changes, their errors, and the headline."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..records.labels import prompt_key
from .read import Row, Summary

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Change:
    """The change of one score between two methods.

    stderr: of the change. higher_is_better: the direction of the score; for a cost a fall is an improvement.
    """

    name: str
    start: float
    end: float
    stderr: float
    higher_is_better: bool = True

    @property
    def absolute(self) -> float:
        """end - start."""
        return self.end - self.start

    @property
    def relative(self) -> float | None:
        """The change as a share of the start; a score at or below zero has no such share."""
        return self.absolute / self.start if self.start > 1e-9 else None

    @property
    def gain(self) -> float:
        """The change with the sign that makes greater better."""
        return self.absolute if self.higher_is_better else -self.absolute

    @property
    def verdict(self) -> str:
        """`better` or `worse` where the change exceeds two standard errors, else `flat`."""
        margin = 2 * self.stderr if math.isfinite(self.stderr) else 0.0
        if abs(self.absolute) <= margin or math.isnan(self.absolute):
            return "flat"
        return "better" if self.gain > 0 else "worse"

    def __str__(self) -> str:
        error = f" ± {number(self.stderr)}" if math.isfinite(self.stderr) else ""
        inner = f"{signed(self.absolute)}{error}"
        if self.relative is None:
            return f"{self.name} {inner}"
        return f"{self.name} {percent(self.relative)} ({inner})"


def number(value: float | None) -> str:
    """Format a score: three decimals near one, fewer for large ones, and a dash for None."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    size = abs(value)
    text = f"{value:.{3 if size < 10 else 2 if size < 100 else 1}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def signed(value: float, digits: int | None = None) -> str:
    """Format a value like `number`, or with `digits` decimals, always with its sign."""
    text = number(value) if digits is None else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return f"+{text}" if value >= 0 else text


def percent(share: float) -> str:
    """0.361 -> +36.1%."""
    return f"{share * 100:+.1f}%".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float) -> str:
    """95 -> 1 min 35 s."""
    whole = round(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def higher_is_better(summary: Summary, name: str) -> bool:
    """The direction of a reward or judge; a summary that does not say means the usual one."""
    return summary.get("higher_is_better", {}).get(name, True)


def titled(summary: Summary, name: str) -> str:
    """The score's name, with a remark where it is a cost."""
    return name if higher_is_better(summary, name) else f"{name} (lower is better)"


def verbs(found: Sequence[Change]) -> tuple[str, str]:
    """The verbs for better and worse changes: "rose" and "fell", or others if one of the scores is a cost."""
    usual = all(change.higher_is_better for change in found)
    return ("rose", "fell") if usual else ("improved", "got worse")


def aligned_method(summary: Summary) -> str | None:
    """The method that the page is about: MapReduce, or else the first that is neither base nor an expert."""
    methods = summary.get("methods", {})
    if "mapreduce" in methods:
        return "mapreduce"
    others = [name for name in methods if name != "base" and not name.startswith("expert:")]
    return others[0] if others else None


def round_methods(summary: Summary) -> list[str]:
    """`base`, then MapReduce after each round that was measured: the path that the fronts draw."""
    methods = summary["methods"]
    steps = sorted((int(name[10:]), name) for name in methods if name.startswith("mapreduce@"))
    names = [name for _, name in steps]
    same = bool(names) and methods.get("mapreduce") == methods[names[-1]]
    if "mapreduce" in methods:
        names = [*(names[:-1] if same else names), "mapreduce"]
    return ["base", *names] if "base" in methods else names


def round_number(summary: Summary, method: str) -> int:
    """The round after which a model of `round_methods` was measured; 0 for the base."""
    if method == "base":
        return 0
    _, _, number = method.partition("@")
    return int(number) if number else last_round(summary)


def last_round(summary: Summary) -> int:
    """The number of the last round of MapReduce; 0 where there is none. Not every round may be measured."""
    methods, rounds = summary.get("methods", {}), summary.get("rounds", [])
    numbers = [name[10:] for name in methods if name.startswith("mapreduce@")]
    told = [entry.get("round", 0) for entry in rounds]
    return max([*map(int, filter(str.isdigit, numbers)), *told, len(rounds), int("mapreduce" in methods)])


def shown_methods(summary: Summary) -> list[str]:
    """Every method in reading order. The last round is in the summary twice and appears only once here."""
    path = round_methods(summary)
    methods = summary["methods"]
    others = [name for name in methods if name not in path and not name.startswith("mapreduce@")]
    others.sort(key=lambda name: not name.startswith("expert:"))
    return [*path[:1], *others, *path[1:]] if path[:1] == ["base"] else [*others, *path]


def changes(
    summary: Summary, rows: Sequence[Row], method: str, names: Sequence[str], base: str = "base"
) -> list[Change]:
    """The change of each named score from `base` to `method`.

    If evaluation.jsonl has both, the error is that of the paired difference (same prompts, same seeds).
    Otherwise it is the root of the summed squares of the two standard errors, which is usually larger.

    Args:
        summary: of the run.
        rows: of evaluation.jsonl.
        method: the end of the change.
        names: of the scores.
        base: the start of the change.
    """
    methods = summary["methods"]
    paired = {change.name: change for change in paired_changes(rows, base, method)}
    found = []
    for name in names:
        start, end = methods.get(base, {}).get(name), methods.get(method, {}).get(name)
        if start is None or end is None:
            continue
        pair = [summary.get("stderr", {}).get(m, {}).get(name) for m in (base, method)]
        error = math.nan if None in pair else math.hypot(*pair)
        # If the means differ, the rows are of another evaluation than the summary, and so is their error.
        if name in paired and math.isclose(paired[name].absolute, end - start, abs_tol=1e-6):
            error = paired[name].stderr
        found.append(Change(name, start, end, error))
    return directed(summary, found)


def directed(summary: Summary, found: Sequence[Change]) -> list[Change]:
    """The changes with the directions that the summary has for their scores."""
    return [replace(c, higher_is_better=higher_is_better(summary, c.name)) for c in found]


def paired_changes(rows: Sequence[Row], start: str, end: str) -> list[Change]:
    """The change of every score from `start` to `end`, over the prompts on which both were measured.

    The samples of one prompt count as one observation, as in the summary.
    """
    last = max(
        (row["round"] or 0 for row in rows if row["method"].startswith("mapreduce")), default=0
    )
    left, right = (_by_prompt(rows, name, last) for name in (start, end))
    found = []
    for reward in left:
        shared = sorted(left[reward].keys() & right.get(reward, {}).keys())
        if len(shared) > 1:
            before = [_mean(left[reward][key]) for key in shared]
            after = [_mean(right[reward][key]) for key in shared]
            gaps = [b - a for a, b in zip(before, after, strict=True)]
            variance = sum((gap - _mean(gaps)) ** 2 for gap in gaps) / (len(gaps) - 1)
            error = math.sqrt(variance / len(gaps))
            found.append(Change(reward, _mean(before), _mean(after), error))
    return found


def _by_prompt(rows: Sequence[Row], name: str, last: int) -> dict[str, dict[Any, list[float]]]:
    """reward -> prompt -> values of one method. The round of a row is in `method`, or only in `round`."""
    wanted = f"mapreduce@{last}" if name == "mapreduce" else name
    mine = [row for row in rows if _full_name(row) == wanted and not row.get("lattice")]
    # A method evaluated at several preferences is compared at the uniform one.
    uniform = [row for row in mine if len(set(row.get("preference") or [1])) == 1]
    table: dict[str, dict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in uniform or mine:
        if row["value"] is not None:
            table[row["reward"]][row["prompt_set"], prompt_key(row)].append(row["value"])
    return table


def _full_name(row: Row) -> str:
    return f"mapreduce@{row['round'] or 0}" if row["method"] == "mapreduce" else row["method"]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def headline(found: Sequence[Change], label: str = "") -> str:
    """One sentence that says which rewards got better, which did not, and by how much."""
    groups = {
        verdict: [c for c in found if c.verdict == verdict] for verdict in ("better", "worse", "flat")
    }
    better, total = groups["better"], len(found)
    rose, fell = verbs(found)
    if total and len(better) == total:
        many = {1: "The reward", 2: "Both rewards"}.get(total, f"All {_word(total)} rewards")
        sentence = f"{many} {rose}: {_listed(better)}."
    else:
        count = _word(len(better)).capitalize() if better else "None"
        sentence = f"{count} of {_word(total)} rewards {rose}"
        sentence += f": {_listed(better)}" if better else ""
        if groups["worse"]:
            sentence += f"; {fell}: {_listed(groups['worse'])}"
        if groups["flat"]:
            sentence += f"; within two standard errors of no change: {_listed(groups['flat'])}"
        sentence += "."
    return f"{label}: {sentence}" if label else sentence


def _word(count: int) -> str:
    return _WORDS[count] if count < len(_WORDS) else str(count)


def _listed(found: Sequence[Change]) -> str:
    return ", ".join(str(change) for change in found)
