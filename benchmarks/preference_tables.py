"""The figures of benchmarks/preferences_language.py as the tables of a page.

    python benchmarks/preference_tables.py runs/table-0.json runs/table-1.json runs/table-2.json
    python benchmarks/preference_tables.py runs/grid.json
    python benchmarks/preference_tables.py runs/sizes.json

Files of one protocol with different seeds are pooled: means over seeds, ± one standard error over them where
there are two or more. Of a grid the best, the median and the worst setting are told, not the best alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
MOVED = "change of a token's log-probability, "
PLACES = ("feedback", "level", "constraint")


def signed(value: float, digits: int = 3) -> str:
    """A change as the pages write it: +.150, −.084."""
    return f"{value:+.{digits}f}".replace("0.", ".", int(abs(value) < 1)).replace("-", "−")


def figure(values: Sequence[float]) -> str:
    """The mean of the seeds, ± one standard error over them."""
    mean = signed(statistics.mean(values))
    if len(values) < 2:
        return mean
    error = f"{statistics.stdev(values) / len(values) ** 0.5:.3f}"
    return f"{mean} ± {error.removeprefix('0') if error.startswith('0.') else error}"


def survey(rows: Iterable[Row]) -> list[str]:
    """A row a loss, the highest gain first: its place in the survey, then what was measured."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["loss"], []).append(row)
    lines = ["| loss | feedback | level | constraint | gain | gain elsewhere | KL | tokens "
             "| better answer's token | worse answer's |", "|---" * 10 + "|"]  # fmt: skip
    order = sorted(found, key=lambda loss: -statistics.mean(_gain(row, "in") for row in found[loss]))
    for loss in order:
        seeds = found[loss]
        kl = statistics.mean(row["in"]["kl"]["value"] for row in seeds)
        longer = [row["in"]["tokens"]["value"] - row["in"]["start tokens"]["value"] for row in seeds]
        moved = (figure([row["data"][MOVED + side]["value"] for row in seeds])
                 for side in ("chosen", "rejected"))  # fmt: skip
        cells = [loss, *(seeds[0][key] for key in PLACES), figure([_gain(row, "in") for row in seeds]),
                 figure([_gain(row, "out") for row in seeds]), f"{kl:.2f}",
                 signed(statistics.mean(longer), 1), *moved]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def grid(rows: Sequence[Row]) -> list[str]:
    """A row a loss over its settings, and the medians by feedback and by constraint."""
    lines = ["| loss | feedback | constraint | best | median | worst | above the start | median elsewhere |",
             "|---" * 8 + "|"]  # fmt: skip
    for loss in dict.fromkeys(row["loss"] for row in rows):
        own = [row for row in rows if row["loss"] == loss]
        gains = sorted(_gain(row, "in") for row in own)
        cells = [loss, own[0]["feedback"], own[0]["constraint"], signed(gains[-1]),
                 signed(statistics.median(gains)), signed(gains[0]),
                 f"{sum(g > 0 for g in gains)} of {len(gains)}",
                 signed(statistics.median(_gain(row, "out") for row in own))]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    for key in ("feedback", "constraint"):
        for label in dict.fromkeys(row[key] for row in rows):
            gains = [_gain(row, "in") for row in rows if row[key] == label]
            lines.append(f"{key} {label}: median {signed(statistics.median(gains))} of {len(gains)}")
    return lines


def sizes(rows: Sequence[Row]) -> list[str]:
    """A row a start and loss, a column a share of the pairs; gains on its own prompts and elsewhere."""
    shares = list(dict.fromkeys(row["share"] for row in rows))
    lines = ["| start | loss | " + " | ".join(f"{share:g} of the pairs" for share in shares) + " |",
             "|---" * (2 + len(shares)) + "|"]  # fmt: skip
    for start, loss in dict.fromkeys((row["start"], row["loss"]) for row in rows):
        cells = [Path(start).name, loss]
        for share in shares:
            own = [r for r in rows if (r["start"], r["loss"], r["share"]) == (start, loss, share)]
            inside, outside = (figure([_gain(row, where) for row in own]) for where in ("in", "out"))
            cells.append(f"{inside}; {outside}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _gain(row: Row, where: str) -> float:
    return row[where]["gain"]["value"]


def main() -> None:
    """Read, pool and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    files = [json.loads(file.read_text()) for file in parser.parse_args().files]
    (protocol,) = {file["protocol"] for file in files}
    rows = [row for file in files for row in file["rows"]]
    done = [row for row in rows if "skipped" not in row]
    print("\n".join({"table": survey, "grid": grid, "sizes": sizes}[protocol](done)))
    for row in rows:
        if "skipped" in row:
            print(f"{row['loss']} left out: {row['skipped']}")


if __name__ == "__main__":
    main()
