"""The figures of `paretune compare --json` as the tables of a page.

    paretune compare runs/a-0 runs/a-1 runs/a-2 --against morl_dr --json > compared.json
    python benchmarks/compare_tables.py compared.json

The first table has means ± standard errors over seeds, the hypervolume, and its distance to that of the
method named by --against. The second one has gains over the base, with the standard error of a bootstrap over
seeds and prompts: bold from two standard errors on, and with an arrow where two or more are lost. Of a cost,
such as perplexity, a fall is the gain.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COSTS = ("perplexity",)


def number(value: float, sign: str = "", digits: int = 3) -> str:
    """.446; with the sign "+" +.150, −.084."""
    text = f"{value:{sign}.{digits}f}"
    lead = text[:1] if text[:1] in "+-" else ""
    bare = text.removeprefix(lead)
    return (lead + (bare.removeprefix("0") if bare.startswith("0.") else bare)).replace("-", "−")


def with_error(value: float, error: float, sign: str = "") -> str:
    """.446 ± .083; 62.1 ± 3.0 where one of both is above 1."""
    digits = 1 if max(abs(value), error) > 1 else 3
    return f"{number(value, sign, digits)} ± {number(error, digits=digits)}"


def columns(compared: dict[str, Any]) -> list[str]:
    """The rewards, each with the judge of its prompts after it; a judge of several stands once."""
    judges = compared["judges"]
    return list(dict.fromkeys(n for r in compared["rewards"] for n in (r, judges.get(r)) if n))


def title(name: str, compared: dict[str, Any]) -> str:
    """A reward by its name, a judge marked as one."""
    return name if name in compared["rewards"] or "judge" in name else f"judge: {name}"


def means(compared: dict[str, Any], names: Sequence[str]) -> list[str]:
    """A row a method."""
    against = compared["against"]
    heads = ["model", *(title(c, compared) for c in columns(compared)), "hypervolume"]
    heads += [f"less {against}'s"] if against else []
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, method in _methods(compared, names):
        cells = [name]
        for score in columns(compared):
            found = method["means"].get(score)
            cells.append("" if found is None else with_error(found, method["stderr"][score]))
        cells.append(number(method["hypervolume"]))
        if against:
            margin = method["margin"]
            told = "" if margin is None else with_error(margin, method["margin_stderr"], "+")
            cells.append("" if name == against else told)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def gains(compared: dict[str, Any], names: Sequence[str]) -> list[str]:
    """A row a method but the base."""
    heads = ["gain over base", *(title(c, compared) for c in columns(compared))]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, method in _methods(compared, names):
        if name == "base":
            continue
        cells = [name]
        for score in columns(compared):
            found = method["gains"].get(score)
            cells.append("" if found is None else _gain(found, score in COSTS))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _gain(found: dict[str, Any], cost: bool) -> str:
    told = with_error(found["mean"], found["stderr"], "+")
    errors = (-found["mean"] if cost else found["mean"]) / max(found["stderr"], 1e-12)
    return f"**{told}**" if errors >= 2 else f"{told} ↓" if errors <= -2 else told


def _methods(compared: dict[str, Any], names: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    return [(n, m) for n, m in compared["methods"].items() if not names or n in names]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--method", action="append", default=[], help="only these; may be repeated")
    given = parser.parse_args()
    compared = json.loads(given.file.read_text())
    print("\n".join([*means(compared, given.method), "", *gains(compared, given.method)]))


if __name__ == "__main__":
    main()
