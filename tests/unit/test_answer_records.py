"""Faulty records of language preferences, and what losses make of good ones: told before training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.data.answer_lists import read_answers
from paretune.ops.rankings import pair_targets
from paretune.ops.token_weights import step_tokens
from paretune.recipes import load_config
from paretune.training.objectives.preferences import pair_of
from paretune.training.objectives.table import find_objective
from paretune.training.trainers import check_objective
from paretune.types import ParetuneError, Prompt
from tests.language import language_recipe

PAIR = {"chosen": "yes", "rejected": "no"}


def _scored(*scores: dict[str, float], **more: Any) -> dict[str, Any]:
    texts = ("yes", "no", "maybe")
    answers = [{"text": text, "scores": given} for text, given in zip(texts, scores, strict=False)]
    return {"answers": answers, **more}


def _rows(name: str, *records: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    kind = find_objective(name)
    prompts = [Prompt("fix", record) for record in records]
    read = kind.options_kind.model_validate(options)
    kind.check_records(name, prompts, read)
    return kind.records(name, prompts, range(len(prompts)), read)  # type: ignore[attr-defined]


def _fault(name: str, record: dict[str, Any], **options: Any) -> str:
    with pytest.raises(ParetuneError) as caught:
        _rows(name, record, **options)
    assert "\n" not in str(caught.value)
    assert "'fix'" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({**PAIR, "share": 1.2}, '"share" is a number from 0 to 1, not 1.2'),
        ({**PAIR, "share": -0.1}, '"share" is a number from 0 to 1, not -0.1'),
        ({**PAIR, "weight": -1}, '"weight" is a number of 0 or more, not -1'),
        ({**PAIR, "drift": 2.5}, '"drift" is a number from 0 to 2, not 2.5'),
        ({**PAIR, "margin": 10**400}, '"margin" is a number that is too large: 100000'),
        ({**PAIR, "margin": "3"}, "\"margin\" is a number, not '3'"),
        ({"chosen": 3, "rejected": "no"}, '"chosen" is the text of an answer, not 3'),
        ({"chosen": "yes", "rejected": " "}, '"rejected" is the text of an answer, not \' \''),
        ({"answers": [{"text": "yes", "rank": "1"}, {"text": "no", "rank": "2"}]},
         "the ranks of its 2 answers are '1', '2': say whole numbers, 1 to 2"),
        ({"answers": [{"steps": ["yes"], "step_weights": [-0.5]}, {"text": "no"}]},
         '"step_weights" are 0 or more, not -0.5'),
    ],
)  # fmt: skip
def test_a_faulty_number_is_one_line(record: dict[str, Any], told: str) -> None:
    assert told in _fault("list_dpo", record)


def test_rounding_is_no_fault() -> None:
    read = read_answers(Prompt("fix", {**PAIR, "drift": -1.2e-7, "share": 1.0000001}))
    assert (read.drift, read.share) == (0.0, 1.0)


def test_equal_answers_are_refused() -> None:
    same = {"chosen": "yes", "rejected": "yes"}
    assert "has the same text as the better and the worse one" in _fault("list_dpo", same)
    assert "has the same text as the better" in _fault("adpo_text", _scored({"q": 1}, {"q": 0}) | {
        "answers": [{"text": "yes", "scores": {"q": 1}}, {"text": "yes", "scores": {"q": 0}}]
    })  # fmt: skip
    assert "the same text" in _fault("triple_tpo", {**same, "reference": "maybe"})
    cut = {"answers": [{"text": "yes"}, {"text": "yes", "ends": False}]}
    assert len(_rows("list_dpo", cut)) == 1  # one ends and the other goes on
    with pytest.raises(ParetuneError, match="'fix' has the same text as \"chosen\" and as \"rejected\""):
        find_objective("dpo").check_prompts("dpo", [Prompt("fix", same)])
    assert pair_of("dpo", Prompt("fix", same)) == ("yes", "yes")  # a data set of the hub may have a few


@pytest.mark.parametrize("name", ["madpo_text", "adpo_text", "tree_tpo"])
def test_one_of_several_scores_is_named(name: str) -> None:
    both = _scored({"a": 1.0, "b": 5.0}, {"a": 0.0, "b": 3.0})
    assert "several scores; objective.options.score names" in _fault(name, both)
    assert "no score c; objective.options.score names" in _fault(name, both, score="c")
    assert _rows(name, both, score="b")[0]["margin"] == 2.0
    if name == "madpo_text":  # the record itself says the margin
        assert _rows(name, {**both, "margin": 0.5})[0]["margin"] == 0.5


@pytest.mark.parametrize(("name", "options"), [("madpo_text", {}), ("adpo_text", {"target": "pair"})])
def test_a_named_score_comes_before_what_the_record_says(name: str, options: dict[str, Any]) -> None:
    """As `paretune pairs` writes it: a margin, the scores of all rewards, and which of them are costs."""
    both = _scored({"good": 3.0, "cost": 5.0}, {"good": 1.0, "cost": 1.0}, margin=2.0, costs=["cost"])

    def margin(record: dict[str, Any], score: str = "") -> float:
        return _rows(name, record, **options, score=score)[0]["margin"]

    assert (margin(both), margin(both, "good"), margin(both, "cost")) == (2.0, 2.0, -4.0)
    assert margin({**both, "margin": 7.0}) == 7.0
    assert margin({**both, "margin": 7.0}, "good") == 2.0
    assert margin({**both, "share": 0.5}, "cost") == -4.0
    # A triple's pair is its last two answers.
    triple = _scored({"good": 9.0}, {"good": 3.0}, {"good": 1.0}, margin=0.5, reference="yes", chosen="no",
                     rejected="maybe")  # fmt: skip
    assert margin(triple, "good") == 2.0


@pytest.mark.parametrize(
    ("name", "options"),
    [("madpo_text", {}), ("adpo_text", {"target": "pair"}), ("adpo_text", {"target": "hard"}),
     ("adpo_text", {}), ("tree_tpo", {})],
)  # fmt: skip
def test_a_score_that_no_record_holds_is_one_line_that_names_what_they_hold(
    name: str, options: dict[str, Any]
) -> None:
    both = _scored({"b": 1.0, "a": 2.0}, {"a": 0.0, "b": 0.0, "c": 1.0}, margin=2.0, share=0.5)
    told = _fault(name, both, **options, score="c")
    assert "its answers have no score c; objective.options.score names the one to train on" in told
    assert told.endswith(": all of them have a, b")
    assert "there is none that all of them have" in _fault(
        name, _scored({"a": 1.0}, {"b": 0.0}, margin=2.0), **options, score="c"
    )


@pytest.mark.parametrize(("name", "options"), [("madpo_text", {}), ("adpo_text", {"target": "pair"})])
def test_a_named_score_of_a_squashed_reward_is_refused(
    tiny_llama: Path, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    """Its gap is none of log-odds, though the records' margin is."""
    record = _scored({"yes": 0.9, "no": 0.2}, {"yes": 0.1, "no": 0.3}, prompt="fix", margin=4.4)
    (tmp_path / "records.jsonl").write_text(json.dumps(record) + "\n")
    words = [f"rewards.{reward}.prompts={tmp_path / 'records.jsonl'}" for reward in ("yes", "no")]
    words.append("rewards.yes.options.squash=true")

    def check(score: str) -> None:
        objective = {"name": name, "options": {**options, "score": score}}
        check_objective(load_config(language_recipe(tmp_path, tiny_llama, objective=objective), words))

    check("")
    check("no")
    with pytest.raises(ParetuneError, match=r"rewards\.yes\.options\.squash: .*or leave out objective\.opt"):
        check("yes")


@pytest.mark.parametrize(("name", "options"), [("madpo_text", {}), ("adpo_text", {"target": "pair"})])
def test_the_share_of_rivals_beaten_is_no_margin(
    tiny_llama: Path, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    """`pairs --form wins` writes both: the record's margin is the one in log-odds."""
    both = _scored({"yes": 3.0, "wins": 0.95}, {"yes": 1.0, "wins": 0.05}, prompt="fix", margin=5.03)
    assert _rows(name, both, **options, score="wins")[0]["margin"] == 5.03
    place = tmp_path / "records.jsonl"
    words = [f"rewards.{reward}.prompts={place}" for reward in ("yes", "no")]
    objective = {"name": name, "options": {**options, "score": "wins"}}
    place.write_text(json.dumps(both) + "\n")
    config = load_config(language_recipe(tmp_path, tiny_llama, objective=objective), words)
    check_objective(config)
    place.write_text(json.dumps({key: value for key, value in both.items() if key != "margin"}) + "\n")
    with pytest.raises(ParetuneError, match=r"^objective\.options\.score: wins is the share of rivals"):
        check_objective(config)


@pytest.mark.parametrize("name", ["list_dpo", "ln_dpo", "madpo_text", "srpo", "dpo", "kto"])
def test_the_pair_of_a_triple_is_its_chosen_and_its_rejected(name: str) -> None:
    """Whatever the loss: the best answer of a triple is what `triple_tpo` imitates."""
    texts, scores = ("best", "second", "worst"), ({"q": 4.0}, {"q": 3.0}, {"q": 1.0})
    record = dict(zip(("reference", "chosen", "rejected"), texts, strict=True)) | {
        "answers": [{"text": t, "scores": s} for t, s in zip(texts, scores, strict=True)]
    }
    assert read_answers(Prompt("fix", record)).pair == read_answers(Prompt("fix", record)).answers[1:]
    if name in ("dpo", "kto"):  # TRL's
        assert pair_of(name, Prompt("fix", record)) == texts[1:]
        return
    (row,) = _rows(name, record)
    assert row["margin"] == 2.0
    assert [answer.text for _, answer in row["streams"]][-2:] == ["second", "worst"]
    del record["answers"]
    record["margin"] = 0.7
    (row,) = _rows(name, record)
    assert [answer.text for _, answer in row["streams"]][-2:] == ["second", "worst"]


@pytest.mark.parametrize("name", ["madpo_text", "adpo_text", "tree_tpo"])
def test_an_expert_reads_the_scores_of_its_own_reward(name: str) -> None:
    kind: Any = find_objective(name)
    prompts = [Prompt("fix", _scored({"a": 1.0, "b": 5.0}, {"a": 0.0, "b": 3.0}))]
    for reward, wanted in (("a", 1.0), ("b", 2.0)):
        options = kind.options_kind().of_reward(reward)
        kind.check_records(name, prompts, options)
        (row,) = kind.records(name, prompts, [0], options)
        assert row["margin"] == wanted
    named = kind.options_kind(score="a").of_reward("b")  # the recipe's word comes first
    assert kind.records(name, prompts, [0], named)[0]["margin"] == 1.0
    with pytest.raises(ParetuneError, match="several scores"):
        kind.check_records(name, prompts, kind.options_kind().of_reward("c"))


def test_token_weights_of_a_contrast_are_no_guide() -> None:
    answers = [{"text": text, "token_weights": [0.1]} for text in ("yes", "no")]
    record = {"answers": answers, "tokenizer": "x", "weights": "contrast"}
    assert len(_rows("cdpo", record)) == 1
    assert "reads token_weights of a guide" in _fault("tgdpo", record)
    assert "reads token_weights of a contrast" in _fault("cdpo", {**record, "weights": "guide"})
    del record["weights"]  # of another program: nobody knows
    assert len(_rows("tgdpo", record)) == 1


@pytest.mark.parametrize("name", ["dpo", "orpo", "kto"])
def test_an_end_token_after_an_answer_that_was_cut_is_told(name: str) -> None:
    cut = {**PAIR, "answers": [{"text": "yes", "ends": False}, {"text": "no"}]}
    kind = find_objective(name)
    told = kind.told_of(name, [Prompt("fix", PAIR), Prompt("tell", cut)], kind.options_kind())
    assert told.startswith("1 of 2 records have an answer that was cut off")
    others = [Prompt("fix", {**PAIR, "answers": column}) for column in (["x", "y"], {"text": ["x"]}, 3, None)]
    assert kind.told_of(name, [Prompt("fix", PAIR), *others], kind.options_kind()) == ""


def test_a_target_needs_what_it_reads() -> None:
    plain = {"answers": [{"text": "yes"}, {"text": "no"}]}
    assert "needs a score of every answer" in _fault("adpo_text", plain)
    assert 'needs a "share" of voters' in _fault("adpo_text", plain, target="pair")
    assert len(_rows("adpo_text", plain, target="hard")) == 1
    assert _rows("adpo_text", {**plain, "margin": 0.7}, target="pair")[0]["margin"] == 0.7
    both = _scored({"a": 1.0, "b": 5.0}, {"a": 0.0, "b": 3.0})
    assert "several scores" in _fault("adpo_text", both, target="pair")


@pytest.mark.parametrize("share", [0.0, 0.25, 0.8, 1.0])
def test_the_target_of_a_pair_is_its_share(share: float) -> None:
    row = _rows("adpo_text", {**PAIR, "margin": 3.0, "share": share}, target="pair")[0]
    target = pair_targets(torch.tensor([row["margin"]]))
    assert target.tolist() == [pytest.approx([share, 1 - share], abs=1e-6)]


def test_token_weights_are_of_their_loss() -> None:
    def record(weight: float) -> dict[str, Any]:
        answers = [{"text": text, "token_weights": [weight, 0.5]} for text in ("yes", "no")]
        return {"answers": answers, "tokenizer": "0123"}

    assert "contrasts from 0 to 1: the prompt 'fix' has 1.5" in _fault("cdpo", record(1.5))
    assert "has -0.2" in _fault("cdpo", record(-0.2))
    assert "numbers from -100 to 100: the prompt 'fix' has -1000" in _fault("tgdpo", record(-1000.0))
    assert "is a number" in _fault("tgdpo", record(math.inf))
    assert len(_rows("cdpo", record(1.0))) == len(_rows("tgdpo", record(-3.0))) == 1


def test_scores_of_any_range_are_scaled_by_the_whole_file() -> None:
    first, second = _scored({"q": 85}, {"q": 40}, {"q": 10}), _scored({"q": 110}, {"q": 10})
    rows = _rows("tree_tpo", first, second)
    assert [row["values"] for row in rows] == [[0.75, 0.3, 0.0], [1.0, 0.0]]
    inside = _rows("tree_tpo", _scored({"q": 0.9}, {"q": 0.2}))
    assert inside[0]["values"] == [0.9, 0.2]
    kind = find_objective("tree_tpo")
    read = kind.options_kind()
    told = kind.told_of("tree_tpo", [Prompt("fix", first), Prompt("fix", second)], read)
    assert told == "objective tree_tpo scales the scores, which reach from 10 to 110, to [0, 1]"
    assert kind.told_of("tree_tpo", [Prompt("fix", _scored({"q": 0.9}, {"q": 0.2}))], read) == ""


def test_steps_and_stages_are_checked_with_all_records() -> None:
    scored = _scored({"q": 1.0}, {"q": 0.0})
    assert "has no \"steps\" with \"step_weights\"" in _fault("tree_tpo", scored, steps=True)
    assert 'has no "stage"' in _fault("list_dpo", PAIR, curriculum="rounds")


def test_a_shorter_list_beside_a_longer_one_keeps_its_weights() -> None:
    """Its third answer is absent, not an answer without steps."""
    step = torch.tensor([[[0, 0, 1], [0, 1, -1]]])
    alone = step_tokens(step, torch.ones(1, 2, 3))
    padded = step_tokens(
        torch.cat([step, torch.full((1, 1, 3), -1)], 1), torch.ones(1, 3, 3)
    )
    assert alone.tolist() == [[[0.25, 0.25, 0.5], [0.5, 0.5, 0.0]]]
    assert torch.equal(padded[:, :2], alone)
    assert padded[:, 2].tolist() == [[0.0, 0.0, 0.0]]


def test_a_form_and_its_opposite_are_no_loss_where_they_are_equal() -> None:
    kind = find_objective("symbolic").options_kind
    with pytest.raises(ValueError, match="true in the same worlds"):
        kind.model_validate({"good": "w and l", "bad": "l and w"})


def test_less_of_a_cost_is_better() -> None:
    record = _scored({"length": 3.0, "q": 0.5}, {"length": 9.0, "q": 0.1}, costs=["length"])
    best, worst = read_answers(Prompt("fix", record)).answers
    assert (best.score("length"), worst.score("", "length"), worst.score("q")) == (-3.0, -9.0, 0.1)
    assert best.scores == {"length": 3.0, "q": 0.5}  # as they are
    one = _scored({"length": 3.0}, {"length": 9.0}, costs=["length"])
    (row,) = _rows("adpo_text", one)
    assert row["values"] == [-3.0, -9.0]  # the loss prefers what stands first
    for costs in (3.5, "length", [3], {"length": 1}):  # a data set may have such a column of its own
        assert read_answers(Prompt("fix", {**one, "costs": costs})).answers[0].score("length") == 3.0
