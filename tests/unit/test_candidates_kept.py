"""A search that is stopped goes on with the next candidate; what was measured of other inputs is not used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from paretune.config import RunConfig
from paretune.recipes import parse_config
from paretune.records.read import read_candidates
from paretune.stages.measure_candidates import KEPT, ROWS, measured
from paretune.types import Stopped

OWN = {"reward": "pictures.ocr", "prompts": "p", "eval_prompts": "q"}
CANDIDATES = [(0.5,), (1.0,), (2.0,)]


@dataclass
class Job:
    """Three steps of a round."""

    config: RunConfig
    run_folder: Path

    @property
    def folder(self) -> Path:
        """Where the rows are written."""
        return self.run_folder / "round-1" / "steps"


def test_a_search_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    job = Job(parse_config({"rewards": {n: dict(OWN) for n in "ab"}}, "x"), tmp_path)
    asked: list[float] = []

    def models(start: int) -> Iterator[dict[str, float]]:
        for (step,) in CANDIDATES[start:]:
            asked.append(step)
            yield {"a": step / 4, "b": 0.5}

    with pytest.raises(Stopped):
        measured(job, models, CANDIDATES, "one", lambda event: None, lambda: len(asked) == 2)
    assert asked == [0.5, 1.0]
    values = measured(job, models, CANDIDATES, "one", lambda event: None, lambda: False)
    assert asked == [0.5, 1.0, 2.0]
    assert values == sorted(values)
    assert [row["means"]["a"] for row in read_candidates(job.folder / ROWS)] == [0.125, 0.25, 0.5]
    assert not (job.folder / KEPT).exists()
    with pytest.raises(Stopped):
        measured(job, models, CANDIDATES, "one", lambda event: None, lambda: True)
    measured(job, models, CANDIDATES, "two", lambda event: None, lambda: False)  # other inputs: all anew
    assert asked[3:] == [0.5, 0.5, 1.0, 2.0]
