"""How scored answers become records of preferences."""

from __future__ import annotations

import math

import pytest

from paretune.commands.answer_pairs.steps import Continued, split_steps, step_records
from paretune.data.answer_forms import FORMS, Judging, Scored
from paretune.data.answer_lists import read_answers
from paretune.types import Prompt

SCORES = (2.5, 4.0, 1.0, 3.0)
FOUR = [Scored(f"answer {score:g}", score, {"q": score}) for score in SCORES]


def records(form: str, answers: list[Scored], **judging: float) -> list[dict]:  # type: ignore[type-arg]
    return FORMS[form](answers, Judging(**judging))  # type: ignore[arg-type]


def test_extremes_are_the_best_and_the_worst() -> None:
    (record,) = records("extremes", FOUR)
    assert (record["chosen"], record["rejected"], record["margin"]) == ("answer 4", "answer 1", 3.0)
    assert [answer["score"] for answer in record["answers"]] == [4.0, 1.0]
    assert records("extremes", [Scored("a", 1.0), Scored("b", 1.0)]) == []
    assert records("extremes", []) == []


def test_a_ladder_has_a_stage_for_every_gap() -> None:
    ladder = records("ladder", FOUR)
    assert [(r["stage"], r["margin"]) for r in ladder] == [(1, 3.0), (2, 1.5), (3, 1.0)]
    assert {r["chosen"] for r in ladder} == {"answer 4"}
    tied = [Scored("a", 2.0), Scored("b", 2.0), Scored("c", 1.0)]
    assert [(r["chosen"], r["rejected"]) for r in records("ladder", tied)] == [("a", "c")]


def test_a_list_holds_all_and_equal_texts_once() -> None:
    (record,) = records("list", [*FOUR, FOUR[0]])
    assert [answer["score"] for answer in record["answers"]] == [4.0, 3.0, 2.5, 1.0]
    read = read_answers(Prompt("x", record))
    assert [answer.score("q") for answer in read.answers] == [4.0, 3.0, 2.5, 1.0]


def test_a_triple_is_the_best_the_second_and_the_worst() -> None:
    (record,) = records("triple", FOUR)
    assert [record[k] for k in ("reference", "chosen", "rejected")] == ["answer 4", "answer 3", "answer 1"]
    assert record["margin"] == 2.0
    assert records("triple", FOUR[:2]) == []


def test_correct_takes_the_most_frequent_of_each_side() -> None:
    drawn = [Scored(text, value) for text, value in (
        ("4", 1.0), ("5", 0.0), ("four", 1.0), ("4", 1.0), ("6", 0.0), ("6", 0.0), ("6", 0.0), ("7", 0.0),
    )]  # fmt: skip
    (record,) = records("correct", drawn)
    assert (record["chosen"], record["rejected"], record["right"]) == ("4", "6", 3 / 8)
    assert records("correct", drawn[:1]) == []


def test_safety_prefers_anybodys_safe_answer_to_the_models_own_unsafe_one() -> None:
    answers = [
        Scored("do it so", 0.1), Scored("no", 0.7), Scored("i will not", 0.9, source="safer", own=False),
        Scored("theirs", 0.0, source="safer", own=False),
    ]  # fmt: skip
    (record,) = records("safety", answers)
    assert (record["chosen"], record["rejected"]) == ("i will not", "do it so")
    assert [answer["source"] for answer in record["answers"]] == ["safer", "base"]
    assert records("safety", answers[1:]) == []


def test_given_keeps_the_files_answer_first_whatever_the_scores_say() -> None:
    human = Scored("human", 0.2, source="human", own=False)
    (record,) = records("given", [Scored("own a", 0.9), Scored("own b", 0.4), human])
    assert (record["chosen"], record["rejected"]) == ("human", "own b")
    (record,) = records("given", [human, Scored("worse", 0.1, own=False)])
    assert (record["chosen"], record["rejected"]) == ("human", "worse")


def test_given_keeps_the_order_of_the_file() -> None:
    """Its first answer is the better one and its last the worse one, and the margin is then negative."""
    fine, no = Scored("It is fine.", 0.1, own=False), Scored("No.", 0.8, own=False)
    (record,) = records("given", [fine, no])
    assert (record["chosen"], record["rejected"], record["margin"]) == ("It is fine.", "No.", 0.1 - 0.8)
    (record,) = records("given", [fine, Scored("between", 0.0, own=False), no, fine])
    assert (record["chosen"], record["rejected"]) == ("It is fine.", "No.")
    own = [Scored("own a", 0.9), Scored("own b", 0.4), Scored("own c", 0.7)]
    (record,) = records("given", [*own, fine, no])
    assert (record["chosen"], record["rejected"]) == ("It is fine.", "own b")
    assert records("given", [fine]) == records("given", own) == []


def test_an_answer_that_the_model_draws_too_is_still_the_files() -> None:
    human = Scored("human", 0.9, source="human", own=False)
    (record,) = records("given", [Scored("human", 0.9), Scored("own", 0.4), human])
    assert [(a["text"], a["source"]) for a in record["answers"]] == [("human", "human"), ("own", "base")]
    assert records("given", [Scored("human", 0.9), human]) == []
    # Also where the reward thinks the least of it.
    drawn = [Scored("human", 0.1), Scored("own a", 0.9), Scored("own b", 0.5)]
    (record,) = records("given", [*drawn, Scored("human", 0.1, own=False)])
    assert (record["chosen"], record["rejected"]) == ("human", "own b")


def test_what_the_model_answers_when_warned_is_not_the_files() -> None:
    warned = Scored("warned", 1.0, source="safety-prompt", own=False, warned=True)
    (record,) = records("given", [Scored("own", 0.4), warned, Scored("human", 0.2, own=False)])
    assert (record["chosen"], record["rejected"]) == ("human", "own")
    assert records("given", [Scored("own", 0.4), warned]) == []


def test_the_margin_of_squashed_scores_is_in_log_odds() -> None:
    pair = [Scored("a", 0.9), Scored("b", 0.5)]
    (record,) = records("extremes", pair, squashed=True)
    assert record["margin"] == pytest.approx(math.log(9), abs=1e-9)
    (record,) = records("extremes", [Scored("a", 1.0), Scored("b", 0.5)], squashed=True)
    assert record["margin"] == pytest.approx(13.8155, abs=1e-4)  # a share of 1 is taken for 1 - 1e-6


# ---------------------------------------------------------------- steps


def test_steps_joined_are_the_answer() -> None:
    assert split_steps("a\nb\n\nc", "\n") == ["a\n", "b\n\n", "c"]
    assert "".join(split_steps("1. x 2. y", ". ")) == "1. x 2. y"


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("\n \na\nb", ["\n \na\n", "b"]),
        ("a\n\n\n", ["a\n\n\n"]),
        ("a\n \n\nb\n ", ["a\n \n\n", "b\n "]),
        ("\n\n", ["\n\n"]),
        ("", []),
    ],
)
def test_a_blank_line_is_no_step(text: str, steps: list[str]) -> None:
    assert split_steps(text, "\n") == steps
    assert "".join(steps) == text


def right_after(*prefixes: str):  # type: ignore[no-untyped-def]
    """Right answers follow these prefixes alone; they begin with the step "fine"."""

    def goes_on(prompt: Prompt, prefix: str) -> list[Continued]:
        right = prefix in prefixes
        return [Continued("wrong\n", True, False), Continued("fine\nend" if right else "x", True, right)]

    return goes_on


def test_the_first_step_after_which_no_answer_is_right_is_the_wrong_one() -> None:
    wrong = Scored("one\ntwo\nthree", 0.0)
    (record,) = step_records(Prompt("x"), wrong, "\n", right_after("", "one\n"))
    assert record["prefix"] == "one\n"
    assert [(a["text"], a["ends"]) for a in record["answers"]] == [("fine\n", False), ("two\n", False)]
    (record,) = step_records(Prompt("x"), wrong, "\n", right_after("", "one\n", "one\ntwo\n"))
    assert (record["prefix"], record["answers"][1]["text"]) == ("one\ntwo\n", "three")
    assert [a["ends"] for a in record["answers"]] == [False, True]
    assert step_records(Prompt("x"), wrong, "\n", right_after("one\n")) != []
    assert step_records(Prompt("x"), wrong, "\n", right_after()) == []  # no right step to put in its place


@pytest.mark.parametrize("begin", ["", "\n"])
def test_a_record_of_steps_between_blank_lines_can_be_read(begin: str) -> None:
    """The second paragraph is wrong; right answers in its place may begin with a blank line."""

    def goes_on(prompt: Prompt, prefix: str) -> list[Continued]:
        # The first is the wrong step again, the second a step like it but for the blank line after it.
        texts = ("two\n\nand", "two\nand", f"{begin}fine\n\nend")
        return [Continued(text, True, prefix in {"", "one\n\n"}) for text in texts]

    (record,) = step_records(Prompt("x"), Scored("one\n\ntwo\n\nthree", 0.0), "\n", goes_on)
    assert record["prefix"] == "one\n\n"
    assert [a["text"] for a in record["answers"]] == [f"{begin}fine\n\n", "two\n\n"]
    read = read_answers(Prompt("x", record))
    assert [(a.text, a.ends) for a in read.answers] == [(f"{begin}fine\n\n", False), ("two\n\n", False)]


@pytest.mark.parametrize(("text", "source"), [("one\ntwo", "base"), ("two", "larger")])
def test_a_step_has_the_source_of_who_wrote_it(text: str, source: str) -> None:
    """A larger model's answer is right from the beginning; after a prefix the model goes on by itself."""

    def goes_on(prompt: Prompt, prefix: str) -> list[Continued]:
        return [Continued("fine\nend", True, True, "base" if prefix else "larger")]

    def still_right(prompt: Prompt, so_far: str) -> bool:
        return so_far == "one\n"

    wrong = Scored(text, 0.0, source="theirs", own=False)
    (record,) = step_records(Prompt("x"), wrong, "\n", goes_on, still_right)
    assert [a["source"] for a in record["answers"]] == [source, "theirs"]


def test_a_step_that_ends_the_answer_differs_from_one_that_goes_on() -> None:
    def goes_on(prompt: Prompt, prefix: str) -> list[Continued]:
        return [Continued("two\nthree", True, prefix == "one\n")]

    (record,) = step_records(Prompt("x"), Scored("one\ntwo", 0.0), "\n", goes_on)
    assert [(a["text"], a["ends"]) for a in record["answers"]] == [("two\n", False), ("two", True)]


def test_a_judge_finds_the_wrong_step_by_itself() -> None:
    def still_right(prompt: Prompt, so_far: str) -> bool:
        return so_far == "one\n"

    wrong = Scored("one\ntwo\nthree", 0.0)
    (record,) = step_records(Prompt("x"), wrong, "\n", right_after("", "one\n"), still_right)
    assert (record["prefix"], record["answers"][1]["text"]) == ("one\n", "two\n")


def test_the_margin_of_wins_is_in_log_odds() -> None:
    """Of 6 comparisons the best won 5 and the worst none, which counts as a half: log(5) - log(.5/5.5)."""
    answers = [Scored("a", 5 / 6), Scored("b", 0.5), Scored("c", 0.0)]
    (record,) = FORMS["list"](answers, Judging.of_wins(6))
    assert record["margin"] == pytest.approx(math.log(5) - math.log(0.5 / 5.5))


def test_the_margin_of_shares_is_in_log_odds_where_they_are_shares() -> None:
    two = [Scored("a", 0.8), Scored("b", 0.2)]
    (record,) = records("extremes", two, squashed=True)
    assert record["margin"] == pytest.approx(2 * math.log(4))
    turned = [Scored("a", -0.2), Scored("b", -0.8)]  # of a cost: less is better
    (record,) = records("extremes", turned, squashed=True, cost=True)
    assert record["margin"] == pytest.approx(2 * math.log(4))
    penalised = [Scored("a", -0.08), Scored("b", -0.4)]  # a penalty was taken off: no shares any more
    for form in ("extremes", "list"):
        (record,) = records(form, penalised, squashed=True)
        assert record["margin"] is None
        assert read_answers(Prompt("x", record)).margin is None
