"""What is told of preference learning: counts of an epoch, agreement matrices, plots in the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from paretune.ops.orders import order_matrix
from paretune.report import write_report
from paretune.report.preferences import base_lists
from paretune.training.preferences.sets import PreferenceSet
from paretune.training.preferences.watch import EDGES, Watch, still_winners
from paretune.types import ParetuneError
from tests.unit.test_report import write_run

ROW = {"accuracy": 0.75, "tau": 0.5, "w_diff": 0.01, "l_diff": -0.02, "margin": 0.03,
       "tau_levels": [0.1, None, 0.5, 0.9], "margins": [0, 0, 0, 0, 4, 3, 2, 1, 0, 0]}  # fmt: skip


def test_tau_is_reported_by_noise_level_and_margins_in_bins() -> None:
    watch = Watch()
    score = torch.tensor([[1.0, 0.0]]).repeat(3, 1)
    r = torch.tensor([[0.02, 0.0], [0.0, 0.01], [0.0, 0.0]])
    watch.add(r, score, torch.tensor([0.1, 0.9, 1.0]), 100.0)
    row = watch.row()
    assert row["tau_levels"] == [1.0, None, None, -0.5]  # at the noisy end one wrong pair, and a tie
    margins = dict(zip(("below -4", *EDGES), row["margins"], strict=True))
    assert margins == {**dict.fromkeys(margins, 0), -2.0: 1, -0.5: 1, 1.0: 1}  # of -1, 0 and 2
    watch.begin()
    watch.add(r[:1], torch.ones(1, 2), torch.tensor([0.5]), 1.0)  # a tie has no pair
    assert watch.row() == {}


def test_winners_that_stand_still_are_reported() -> None:
    clean = torch.zeros(4, 1, 3, 2, 2)
    clean[1, :, 1] = 1.0  # the loser of the first pair moves
    lists = PreferenceSet(2, clean, torch.zeros(4).long(), torch.tensor([[1.0], [0.0]]).repeat(2, 1))
    assert still_winners(lists) == 0.75
    assert still_winners(PreferenceSet(2, clean[:, :, 0], lists.caption, lists.score)) is None


def test_scorers_are_compared_on_the_same_pairs() -> None:
    lists = [{"a": [3.0, 2.0, 1.0], "b": [3.0, 1.0, 2.0]}, {"a": [1.0, 2.0, 2.0], "b": [5.0, 5.0, 6.0]},
             {"a": [1.0, 0.0]}, {}]  # fmt: skip
    found = order_matrix(lists, ["a", "b", "c"])
    assert found.alike == ((1.0, 0.75, None), (0.75, 1.0, None), (None, None, None))
    assert found.pairs == ((6, 4, 0), (4, 5, 0), (0, 0, 0))


def test_the_bases_samples_of_a_prompt_are_pairs() -> None:
    row = {"method": "base", "prompt_set": "a", "prompt": "x", "kind": "reward"}
    rows = [{**row, "reward": r, "seed": s, "value": v} for r, s, v in
            (("a", 0, 1.0), ("a", 1, 2.0), ("b", 1, 5.0), ("b", 0, 4.0))]  # fmt: skip
    other = {**row, "method": "mapreduce", "reward": "a", "seed": 0, "value": 9.0}
    assert base_lists([*rows, other], {"a": True, "b": False}) == [{"a": [1.0, 2.0], "b": [-4.0, -5.0]}]


def _learned(folder: Path, **changes: object) -> Path:
    """A run whose expert of `ocr` learned from preferences in a file with scores of rewards."""
    write_run(folder)
    for number in (1, 2):
        file = folder / f"round-{number}" / "experts" / "ocr" / "metrics.jsonl"
        rows = [{**json.loads(line), **ROW, **changes} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = json.loads((folder / "summary.json").read_text())
    summary["pairs"] = {"ocr": {"names": ["file", "ocr"], "alike": [[1.0, 0.8], [0.8, None]],
                                "pairs": [[5, 5], [5, 0]]}}  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_the_page_shows_what_was_learned_and_how_rewards_agree(tmp_path: Path) -> None:
    page = write_report(_learned(tmp_path / "run")).read_text()
    assert '<section id="preferences">' in page
    assert 'id="plot-preferences-ocr"' in page
    assert 'id="plot-preferences-geneval"' not in page
    part = page.partition('id="plot-agreement-ocr"')[2].partition("</figure>")[0]
    assert "80%" in part
    assert "5" in part
    for word in ("winners", "losers", "tau by noise level", "last epoch", "0.75 to 1 (noise)"):
        assert word in page


@pytest.mark.parametrize("changes", [{"margins": [1]}, {"tau_levels": "x"}, {"w_diff": "x"}])
def test_damaged_figures_are_one_line(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ParetuneError, match=r"metrics\.jsonl"):
        write_report(_learned(tmp_path / "run", **changes))
