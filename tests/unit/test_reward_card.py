"""The reward card: its figures on literal scores, the lines about what is bad, and its tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paretune.cli.app import main
from paretune.commands.check_rewards import check_rewards
from paretune.ops.reward_card import Scored, card, figures, ranks, reliability, spearman, unreliable
from paretune.recipes import load_config
from paretune.records.labels import prompt_key
from paretune.report import write_report
from paretune.report.card import reward_card
from paretune.report.read import read_run
from paretune.stages.reliability import compressed, variants
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe

from .test_report import write_run

GROUPS = np.array([0, 0, 1, 1, 2, 2])
NONE = float("nan")


def scored(name: str, *values: float, **own: Any) -> Scored:
    return Scored(name, np.array(values), **{"low": 0.0, "high": 1.0, **own})


def test_ranks_and_spearman_with_ties_and_gaps() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 8, 27, 64])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 3, NONE]), np.array([6.0, 5, 4, 9])) == pytest.approx(-1)
    assert spearman(np.array([1.0, 2]), np.array([1.0, 2])) is None
    assert spearman(np.array([1.0, 1, 1]), np.array([1.0, 2, 3])) is None


def test_figures_of_one_scorer() -> None:
    found = figures(scored("a", 1, 1, 1, 0, 0.5, 0.5), GROUPS)
    assert (found["samples"], found["at_low"], found["at_high"]) == (6, pytest.approx(1 / 6), 0.5)
    assert found["same_groups"] == pytest.approx(2 / 3)
    within = 0.25 / 3  # the variance of (1, 0) is 1/4, of the others 0; the means are 1, .5, .5
    assert found["within"] == pytest.approx(within / (within + np.var([1, 0.5, 0.5])))
    one = figures(scored("a", 1, NONE, 0, NONE, NONE, NONE, high=float("inf")), GROUPS)
    assert (one["samples"], one["at_high"], one["same_groups"], one["within"]) == (2, None, None, None)


def test_each_thing_that_is_bad_is_one_line() -> None:
    rising, falling = (0, 0.9, 0.1, 0.8, 0.2, 0.7), (1, 0.1, 0.9, 0.2, 0.8, 0.3)
    made = card(
        [
            scored("ocr", 1, 1, 1, 1, 1, 0.5), scored("flat", *[0.25] * 6), scored("nobody", *[NONE] * 6),
            scored("up", *rising), scored("down", *falling), scored("twin", *(v / 2 for v in rising)),
            scored("cost", *rising, higher_is_better=False, low=0.1),
            scored("deaf", *falling, kind="judge", of="up"),
            scored("easy", 0.1, 0.101, 0.5, 0.501, 0.9, 0.901),
        ],
        GROUPS,
    )  # fmt: skip
    told = made["notes"]
    assert told[:4] == [
        "ocr: 83% of base samples score 1: little to learn",
        "ocr: in 67% of prompts all samples score the same: they teach nothing",
        "flat: all samples of the base score 0.25: nothing to learn",
        "nobody: it applies to none of the samples",
    ]
    assert "easy: only 0% of its variance is within prompts, where an expert learns" in told
    assert "up and down conflict within prompts (-1.00)" in told
    assert "up and twin order samples alike (+1.00): one of them adds nothing" in told
    assert "up and cost conflict within prompts (-1.00)" in told
    assert "deaf: it hardly follows up, which it judges (-1.00)" in told
    assert made["correlation"][3][4] == pytest.approx(-1)


def test_what_should_agree_and_does_not_is_reported() -> None:
    first, other = np.array([0.0, 0.5, 1.0, 0.2]), np.array([1.0, 0.5, 0.0, 0.8])
    found = {"again": reliability(first, first), "jpeg": reliability(first, other)}
    assert found["jpeg"] == {"correlation": pytest.approx(-1), "change": pytest.approx(0.65)}
    told = unreliable("ocr", found)
    assert told == ["ocr: JPEG at quality 75 changes its score by 0.65 on average (correlation -1.00)"]
    assert unreliable("r", {"again": reliability(first, first + 1e-7)}) == []  # rounding
    assert unreliable("r", {"again": reliability(first, first + 0.1), "flip": found["jpeg"]}) == [
        "r: scoring the same sample again changes its score by 0.1 on average (correlation 1.00)"
    ]


def test_variants_of_pictures_clips_and_answers() -> None:
    pictures = torch.rand(2, 3, 16, 16)
    kinds = dict(variants(pictures))
    assert list(kinds) == ["again", "jpeg", "flip"]
    assert torch.equal(kinds["flip"][..., 0], pictures[..., -1])
    clips = torch.full((2, 4, 3, 16, 16), 0.5)
    assert compressed(clips).shape == clips.shape
    assert torch.allclose(compressed(clips), clips, atol=0.02)
    assert not torch.equal(compressed(pictures), pictures)
    assert dict(variants(["a", "b"])) == {"again": ["a", "b"], "space": ["a ", "b "]}


def test_the_card_of_a_recipe_and_its_tables(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_recipe(tmp_path, tiny_sd3)
    made = check_rewards(load_config(path), lambda _: None, prompts=2, samples=3, out=tmp_path / "card.json")
    assert made["names"] == ["red", "dark"]
    assert (made["prompts"], made["samples"], made["scorers"]["red"]["samples"]) == (4, 3, 12)
    assert made["scorers"]["red"]["seconds"] > 0
    steady = made["scorers"]["red"]["reliability"]
    assert (steady["again"]["change"], steady["flip"]["change"]) == (0, pytest.approx(0, abs=1e-5))
    assert steady["jpeg"]["change"] > 0
    assert json.loads((tmp_path / "card.json").read_text()) == made
    monkeypatch.setattr("paretune.commands.check_rewards.check_rewards", lambda *_: made)
    monkeypatch.setattr("sys.argv", ["paretune", "check-rewards", str(path), "--quiet"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert "Scored again: correlation (mean change)" in out
    assert all(line in out for line in made["notes"] or ["nothing stands out"])


def test_a_wrong_recipe_is_refused_before_anything_is_drawn(tiny_sd3: Path, tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path, tiny_sd3)
    config = load_config(path, [f"rewards.red.reward={tmp_path / 'rewards.py'}:blue"])
    with pytest.raises(ParetuneError, match="blue"):
        check_rewards(config, lambda _: pytest.fail("drawn"))


@pytest.mark.usefixtures("blank_figures")
def test_the_page_has_the_card_of_the_bases_samples(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path / "run")).read_text()
    assert '<section id="rewards"><h2>Reward card</h2>' in page
    assert "judge of geneval" in page
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.yaml").write_text("rounds: 1\n")
    assert "Reward card" not in write_report(empty).read_text()


def test_the_card_shows_no_column_that_nothing_fills(tmp_path: Path) -> None:
    """With one sample a prompt nothing is known of differences within prompts."""
    run = read_run(write_run(tmp_path / "run"))
    own = [row for row in run.evaluation if row["method"] == "base"]
    first = {(row["reward"], prompt_key(row)): row for row in reversed(own)}
    made = reward_card(replace(run, evaluation=list(first.values())))
    assert made is not None
    assert made["alone"]
    assert not {"same_groups", "within"} & {key for key, *_ in made["columns"]}
    assert all(len(line["cells"]) == len(made["columns"]) for line in made["lines"])
    assert "" not in [cell for line in made["lines"] for cell in line["cells"]]
