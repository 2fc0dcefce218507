"""The words of `paretune pairs`: numbers that can be used, what it writes of a guide, and how to go on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from paretune.commands.answer_pairs.numbers import turned_share
from paretune.commands.answer_pairs.options import AnswerOptions, check_words, objective_for
from paretune.commands.guest_adapters import guest_changes
from paretune.commands.make_pairs import Drawing
from paretune.files import write_rows
from paretune.recipes import load_config
from paretune.sampling.choices import ordered, read_choices
from paretune.types import ParetuneError
from tests.language import language_recipe


@pytest.mark.parametrize("beta", [float("nan"), float("inf"), 1e300, -1.0, 0.0])
def test_the_beta_of_a_guide_is_an_ordinary_number(tmp_path: Path, beta: float) -> None:
    config = load_config(language_recipe(tmp_path, tmp_path))
    with pytest.raises(ParetuneError, match="--guide-beta: a number above 0 and at most 1000, not "):
        check_words(config, Drawing("yes", 4), AnswerOptions(guide_beta=beta), tmp_path / "a.jsonl")
    check_words(config, Drawing("yes", 4), AnswerOptions(guide="g", guide_beta=1000.0), tmp_path / "a.jsonl")
    with pytest.raises(ParetuneError, match="--threshold: a finite number, not nan"):
        check_words(config, Drawing("yes", 4), AnswerOptions(threshold=float("nan")), tmp_path / "a.jsonl")


def test_rows_for_other_programs_hold_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ParetuneError, match=r"a\.jsonl was not written: a record holds NaN or an infinite"):
        write_rows(tmp_path / "a.jsonl", [{"x": 1.0}, {"x": float("nan")}], finite=True)
    assert not (tmp_path / "a.jsonl").exists()


def test_tokens_turn_at_one_end_on_each_side() -> None:
    """1 + g / 2 on the better answer, 1 - g / 2 on the worse one."""
    better, worse = torch.tensor([3.0, -3.0, 0.0]), torch.tensor([3.0, -3.0, 2.0, 0.0, 2.5])
    assert turned_share([(better, worse)]) == pytest.approx(3 / 8)
    assert turned_share([(better[:1], worse[1:2])]) == 0.0


@pytest.mark.parametrize(
    ("form", "options", "objective"),
    [
        ("extremes", {}, "list_dpo"), ("list", {}, "adpo_text"),
        ("wins", {}, "adpo_text with objective.options.score: wins"),  # else it would train on one reward
        ("steps", {}, "list_dpo"), ("triple", {}, "triple_tpo"), ("extremes", {"guide": "g"}, "tgdpo"),
        ("extremes", {"contrast": ("p", "n")}, "cdpo"), ("list", {"steps_like_best": True}, "tree_tpo"),
        ("given", {"embed": "e"}, "sem_dpo_text"),
    ],
)  # fmt: skip
def test_the_advice_names_an_objective_that_takes_the_form(
    form: str, options: dict[str, Any], objective: str
) -> None:
    assert objective_for(form, AnswerOptions(**options)) == objective


@pytest.mark.parametrize("option", ["--guide", "--adapter", "--contrast"])
def test_an_adapter_that_is_not_there_names_its_option(tmp_path: Path, option: str) -> None:
    with pytest.raises(ParetuneError) as caught:
        guest_changes(option, str(tmp_path / "nothing"), "model", torch.nn.Linear(1, 1), tmp_path)
    assert str(caught.value).startswith(f"{option}: ")
    assert "nothing" in str(caught.value)


def test_choices_with_ranks_keep_each_score_with_its_answer(tmp_path: Path) -> None:
    answers = [{"text": "worse", "rank": 2, "score": 0.1}, {"text": "better", "rank": 1, "score": 0.9}]
    path = tmp_path / "choices.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"p{i}", "answers": answers}) + "\n" for i in range(4)))
    source: Any = SimpleNamespace(rewards=("q",), medium=SimpleNamespace(lines=True), name="run")
    (first, *_) = read_choices(path, source)
    assert (first.samples, first.scores) == ((b"better", b"worse"), (0.9, 0.1))
    assert ordered(first) == [(0, 1)]


def _read(tmp_path: Path, record: dict[str, Any]) -> list[tuple[bytes, ...]]:
    """The choices that a file shows of which every line has this record."""
    path = tmp_path / "choices.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"p{i}", **record}) + "\n" for i in range(4)))
    source: Any = SimpleNamespace(rewards=("q",), medium=SimpleNamespace(lines=True), name="run")
    (first, *_) = read_choices(path, source)
    return [(first.samples[i], first.samples[j]) for i, j in ordered(first)]  # type: ignore[misc]


def _scored(*answers: tuple[str, float], **more: Any) -> dict[str, Any]:
    return {"answers": [{"text": text, "score": score} for text, score in answers], **more}


@pytest.mark.parametrize("score", [0.9, 0.2])
def test_a_rewards_score_does_not_turn_a_persons_choice_round(tmp_path: Path, score: float) -> None:
    """As `pairs --form given` writes it: the reward scores people's answer lower, or as high as the other."""
    labels = {"chosen": "human", "rejected": "model"}
    record = _scored(("human", 0.2), ("model", score), **labels)
    assert _read(tmp_path, record) == [(b"human", b"model")]
    turns = [{"role": "user", "content": "fix"}]
    assert _read(tmp_path, {**record, "prompt": turns}) == [(b"human", b"model")]
    triple = _scored(("best", 0.1), ("human", 0.5), ("model", 0.2), **labels, reference="best")
    assert _read(tmp_path, triple) == [(b"best", b"human"), (b"best", b"model"), (b"human", b"model")]


def test_ranks_come_before_scores(tmp_path: Path) -> None:
    answers = [{"text": "worse", "rank": 2, "score": 0.9}, {"text": "better", "rank": 1, "score": 0.9}]
    assert _read(tmp_path, {"answers": answers}) == [(b"better", b"worse")]
    answers[1]["score"] = 0.1
    assert _read(tmp_path, {"answers": answers}) == [(b"better", b"worse")]


def test_scores_order_a_list_of_which_the_record_says_no_more(tmp_path: Path) -> None:
    assert _read(tmp_path, _scored(("a", 0.2), ("b", 0.8))) == [(b"b", b"a")]
    # Answers of one score have no order, though the triple's pair has one.
    triple = _scored(("a", 0.9), ("b", 0.9), ("c", 0.1), reference="a", chosen="b", rejected="c")
    assert _read(tmp_path, triple) == [(b"a", b"c"), (b"b", b"c")]
    # The labels are those of two other places of the list.
    assert _read(tmp_path, _scored(("a", 0.2), ("b", 0.8), chosen="b", rejected="a")) == [(b"b", b"a")]
