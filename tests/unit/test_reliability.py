"""What a run notes of its scorers while it measures the base: reliability and cost, on few samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paretune.records.read import read_reliability
from paretune.report import write_report
from paretune.stages.reliability import FILE, Reliability, evenly, scored, scored_again
from paretune.types import ParetuneError, Prompt

from .test_report import write_run


def test_few_samples_are_taken_evenly_and_of_whole_prompts_where_they_are_compared() -> None:
    groups = np.repeat(np.arange(6), 4)
    assert evenly(groups, 24) == list(range(24))
    assert evenly(groups, 8) == [0, 3, 6, 9, 12, 15, 18, 21]
    assert evenly(groups, 8, whole=True) == [0, 1, 2, 3, 12, 13, 14, 15]
    assert evenly(groups, 1, whole=True) == [0, 1, 2, 3]
    assert evenly(groups[:0], 8) == []


class Spread:
    """The distance of a prompt's samples: a score that depends on the other samples."""

    name, range, higher_is_better, groups = "spread", (0.0, 1.0), True, True

    def score(self, samples: torch.Tensor, prompts: Any) -> torch.Tensor:
        texts = np.array([prompt.text for prompt in prompts])
        return torch.stack([samples[torch.from_numpy(texts == t)].std() for t in texts])


def test_a_scorer_that_compares_samples_is_asked_about_whole_prompts() -> None:
    groups = np.repeat(np.arange(8), 4)
    prompts = [Prompt(f"p{i}") for i in groups]
    first = scored(Spread(), torch.rand(32, 3, 16, 16), prompts, groups, None)
    steady, seconds = scored_again(Spread(), first, 8)
    assert steady["again"] == {"correlation": pytest.approx(1), "change": 0.0}
    assert seconds is not None
    assert 0 < seconds <= (first.seconds or 0)


class Once:
    """A scorer that answers once, as one whose server went away."""

    range, higher_is_better = (0.0, 1.0), True

    def __init__(self, name: str, elsewhere: bool = False) -> None:
        self.name, self.elsewhere, self.asked = name, elsewhere, 0

    def score(self, samples: torch.Tensor, prompts: Any) -> torch.Tensor:
        self.asked += 1
        if self.asked > 1:
            raise OSError("gone")
        return samples.flatten(1).mean(1)


def test_a_run_notes_reliability_and_no_failure_stops_it(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    noted = Reliability(told.append)
    groups = np.repeat(np.arange(4), 2)
    prompts, pictures = [Prompt(f"p{i}") for i in groups], torch.rand(8, 3, 16, 16)

    def note(scorer: Any, kind: str = "reward", prompt_set: str = "a") -> None:
        noted.note(prompt_set, kind, scorer, scored(scorer, pictures, prompts, groups, None))

    fails, far = Once("fails"), Once("far", elsewhere=True)
    for scorer, kind in ((Spread(), "untargeted"), (fails, "reward"), (far, "judge")):
        note(scorer, kind)
    note(Spread(), "untargeted", "b")  # known already
    before = torch.random.get_rng_state()
    note(Spread(), "reward", "b")
    assert torch.equal(before, torch.random.get_rng_state())
    noted.write(tmp_path)
    found = {(e["reward"], e["kind"]): e for e in read_reliability(tmp_path / FILE)}
    assert list(found) == [
        ("spread", "untargeted"), ("fails", "reward"), ("far", "judge"), ("spread", "reward"),
    ]  # fmt: skip
    assert set(found["spread", "reward"]["reliability"]) == {"again", "jpeg", "flip"}
    assert found["spread", "reward"]["reliability"]["again"]["change"] == 0
    assert found["fails", "reward"]["reliability"] == found["far", "judge"]["reliability"] == {}
    assert found["far", "judge"]["seconds"] > 0
    assert far.asked == 1  # what is asked over the network is not asked again
    (notice,) = told
    begin = "no reliability of fails in the reward card: reward 'fails' raised OSError: gone"
    assert notice["notice"].startswith(begin)


@pytest.mark.usefixtures("blank_figures")
def test_the_page_has_reliability_and_cost_where_the_run_noted_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert "ms a sample" not in write_report(run).read_text()  # a run of an earlier version
    exact, loose = {"correlation": 1.0, "change": 0.0}, {"correlation": 0.25, "change": 0.5}
    entry = {
        "prompt_set": "geneval", "kind": "reward", "reward": "geneval", "seconds": 0.0125,
        "reliability": {"again": exact, "jpeg": loose, "flip": {"correlation": None, "change": 0.0}},
    }  # fmt: skip
    file = run / "evaluation" / "base" / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"scorers": [entry, {**entry, "reward": "gone"}]}))
    page = write_report(run).read_text()
    for title in ("change of the same sample", "correlation after it", "ms a sample"):
        assert title in page
    assert "<td>0.000</td><td>+0.25</td><td>12.50</td>" in page  # no column for a flip that tells nothing
    assert "geneval: JPEG at quality 75 changes its score by 0.5 on average (correlation 0.25)" in page
    file.write_text(json.dumps({"scorers": [{**entry, "seconds": "fast"}]}))
    with pytest.raises(ParetuneError, match=r"reliability\.json is damaged: scorers\.0\.seconds"):
        write_report(run)
