"""Choices between samples set a preference: `paretune sample --prefer-from`, and the page's question."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from paretune.demo import serving
from paretune.demo.answers import Answers
from paretune.demo.choosing import FEWEST, MOST, Chooser
from paretune.files import read_json
from paretune.sampling import Request, Sampler
from paretune.sampling.choices import fit_scores, read_choices
from paretune.types import ParetuneError
from tests.made_run import make_run, make_texts_run, open_trusted, sample_trusted
from tests.preference_files import make_pictures, write_records


@pytest.fixture(scope="module")
def run(tiny_sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", tiny_sd3)


@pytest.fixture(scope="module")
def answers(run: Path) -> Answers:
    return serving.open_answers(run, trust_rewards=True)


def _choices(folder: Path, count: int = 4, swap: bool = False) -> Path:
    """Choices of the redder picture; pictures p0.png, p1.png, .. are redder and redder."""
    names = make_pictures(folder, 2 * count)
    return write_records(folder / "choices.jsonl", [
        {"prompt": "a red circle", "chosen": names[2 * i + (not swap)], "rejected": names[2 * i + swap]}
        for i in range(count)
    ])  # fmt: skip


# ---------------------------------------------------------------- the command


def test_samples_are_drawn_at_the_preference_that_choices_show(run: Path, tmp_path: Path) -> None:
    told: list[str] = []
    out = tmp_path / "out"
    table = sample_trusted(str(run), ["a red circle"], out, prefer_from=_choices(tmp_path / "c"), count=1,
                           say=told.append)  # fmt: skip
    found = table["preferred"]
    assert (found["choices"], found["explained"]) == (4, 4)
    assert found["preference"]["red"] > found["preference"]["dark"]
    assert sum(found["preference"].values()) == pytest.approx(1)
    assert all(0 <= error < 0.6 for error in found["error"].values())
    assert table["requests"][0]["preference"] == pytest.approx(found["preference"])
    assert read_json(out / "sample.json")["preferred"] == found
    assert told[0].startswith("4 choices prefer red 0.")
    other = sample_trusted(str(run), ["a red circle"], tmp_path / "other", count=1,
                           prefer_from=_choices(tmp_path / "d", swap=True))["preferred"]  # fmt: skip
    assert other["preference"]["red"] < found["preference"]["red"]


def test_choices_with_scores_need_no_files(run: Path, tmp_path: Path) -> None:
    path = write_records(tmp_path / "choices.jsonl", [{"prompt": "anything", "answers": [
        {"file": "gone-a.png", "scores": {"red": 0.1 * i, "dark": 0.9}},
        {"file": "gone-b.png", "scores": {"red": 0.5, "dark": 0.2}},
    ]} for i in range(5)])  # fmt: skip
    table = sample_trusted(str(run), ["a red circle"], tmp_path / "out", count=1, prefer_from=path)
    assert table["preferred"]["preference"] == {"red": 0.0, "dark": 1.0}


def test_choices_between_answers(tiny_llama: Path, tmp_path: Path) -> None:
    """Pairs are scored by the run's rewards; lists that `paretune pairs` wrote hold their scores."""
    run = make_texts_run(tmp_path / "run", tiny_llama)
    pairs = write_records(tmp_path / "pairs.jsonl", [
        {"prompt": "fix", "chosen": "yes yes table", "rejected": "table fix the"} for _ in range(5)
    ])  # fmt: skip
    found = sample_trusted(str(run), ["fix the table"], tmp_path / "a", prefer_from=pairs, count=1)
    assert found["preferred"]["preference"] == {"yes": 1.0, "no": 0.0}
    assert found["preferred"]["explained"] == 5
    lists = write_records(tmp_path / "lists.jsonl", [{"prompt": "fix", "answers": [
        {"text": "one", "score": 0.2, "scores": {"yes": 0.9, "no": 0.1 * i}},
        {"text": "two", "score": 0.8, "scores": {"yes": 0.1, "no": 0.9}},
    ]} for i in range(4)])  # fmt: skip
    found = sample_trusted(str(run), ["fix the table"], tmp_path / "b", prefer_from=lists, count=1)
    assert found["preferred"]["preference"] == {"yes": 0.0, "no": 1.0}


GOOD = {"prompt": "p", "chosen": "p0.png", "rejected": "p1.png"}


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([GOOD] * 3, "choices.jsonl: 3 choices; give at least 4"),
        ([{"prompt": "p", "samples": ["p0.png", "p1.png"], "scores": [1, 1]}] * 9, "0 choices; give at le"),
        ([*[GOOD] * 4, {**GOOD, "chosen": "none.png"}], ":5: "),
        ([{**GOOD, "chosen": "p1.png"}], ":1: the same file is on two sides"),
    ],
)
def test_wrong_files_of_choices(run: Path, tmp_path: Path, records: list[dict[str, Any]], told: str) -> None:
    make_pictures(tmp_path, 4)
    path = write_records(tmp_path / "choices.jsonl", records)
    with pytest.raises(ParetuneError) as caught:
        sample_trusted(str(run), ["p"], tmp_path / "out", prefer_from=path)
    assert told in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_other_mistakes_about_choices(run: Path, tiny_sd3: Path, tiny_llama: Path, tmp_path: Path) -> None:
    path, out = _choices(tmp_path / "c"), tmp_path / "out"
    with pytest.raises(ParetuneError, match="both say a preference: give one of them"):
        sample_trusted(str(run), ["p"], out, prefer="red=1", prefer_from=path)
    with pytest.raises(ParetuneError, match="is a model, not a run: it has no rewards to prefer"):
        sample_trusted(str(tiny_sd3), ["p"], out, prefer_from=path)
    with pytest.raises(ParetuneError, match="the base has no preference"):
        sample_trusted(str(run), ["p"], out, method="base", prefer_from=path)
    with pytest.raises(ParetuneError, match="No such file"):
        sample_trusted(str(run), ["p"], out, prefer_from=tmp_path / "none.jsonl")
    texts = open_trusted(str(make_texts_run(tmp_path / "texts", tiny_llama)))
    few = write_records(tmp_path / "few.jsonl", [{"prompt": "p", "chosen": "yes", "rejected": "no"}] * 3)
    with pytest.raises(ParetuneError, match=r"few\.jsonl: 3 choices; give at least 4"):
        read_choices(few, texts)
    none = write_records(tmp_path / "c" / "none.jsonl", [{"prompt": "how are you"}] * 4)
    with pytest.raises(ParetuneError, match="'how are you' has neither \"answers\" nor"):
        read_choices(none, texts)
    same = write_records(tmp_path / "c" / "same.jsonl", [{"prompt": "p", "answers": [
        {"file": "a.png", "scores": {"red": 1, "dark": 1}}, {"file": "b.png", "scores": {"red": 1, "dark": 1}}
    ]}] * 4)  # fmt: skip
    with pytest.raises(ParetuneError, match="the choices show no preference"):
        sample_trusted(str(run), ["p"], out, prefer_from=same)


# ---------------------------------------------------------------- the page's question


def test_a_user_of_one_reward_is_found(answers: Answers) -> None:
    """A user who always takes the darker picture."""
    chooser = Chooser(answers)
    asked = chooser.begin("mapreduce", start=3)
    counts = []
    for number in range(MOST):
        state = json.loads(asked.state)
        assert state["asked"] == len(state["taken"]) == number
        counts.append(asked.preference is not None)
        assert asked.samples.count("<img") == 2
        pair = [kept.scores["dark"] for kept in chooser._pair(chooser._read(asked.state), "mapreduce")]
        asked = chooser.choose(asked.state, 0 if pair[0] > pair[1] else 1, "mapreduce")
    assert counts == [False] * FEWEST + [True] * (MOST - FEWEST)
    assert asked.preference is not None
    assert asked.preference[1] > 0.8
    assert "pt-fitted" in asked.told
    assert f"Weights from {MOST} choices" in asked.told
    assert "±" in asked.told
    assert asked.samples == ""
    with pytest.raises(ParetuneError, match="that was the last choice; start again"):
        chooser.choose(asked.state, 0, "mapreduce")


def test_questions_follow_from_what_the_page_carries(answers: Answers) -> None:
    chooser = Chooser(answers)
    first, again = chooser.begin("mix", start=5), chooser.begin("mix", start=5)
    assert first == again
    other = chooser.begin("mix", start=6)
    assert other.samples != first.samples
    skipped = chooser.choose(first.state, None, "mix")
    assert json.loads(skipped.state) == {"start": 5, "asked": 1, "taken": []}
    assert "0 of at least 4 choices" in skipped.told


@pytest.mark.parametrize(
    "state",
    [None, 7, "", "{", "[]", '{"start": 1}', '{"start": -1, "asked": 0, "taken": []}',
     '{"start": 1, "asked": 99, "taken": []}', '{"start": 1, "asked": 1, "taken": [[[1, 2]]]}',
     '{"start": 1, "asked": 1, "taken": [[[1, NaN], [1, 2]]]}',
     '{"start": 1, "asked": 0, "taken": [[[1, 1], [1, 2]]]}',
     '{"start": 1, "asked": 1, "taken": [[[1, "x"], [1, 2]]]}', '{"start": true, "asked": 0, "taken": []}',
     "[" * 39_000, "x" * 50_000],
)  # fmt: skip
def test_choices_that_no_page_carries(answers: Answers, state: object) -> None:
    with pytest.raises(ParetuneError):
        Chooser(answers).choose(state, 0, "mapreduce")


def test_a_wrong_method_is_a_line(answers: Answers) -> None:
    for method in ("base", "none", None):
        with pytest.raises(ParetuneError):
            Chooser(answers).begin(method)


def test_choices_without_a_difference_go_on(answers: Answers) -> None:
    taken = [[[0.5, None], [0.5, None]]] * 4
    asked = Chooser(answers).choose(json.dumps({"start": 1, "asked": 4, "taken": taken}), None, "mapreduce")
    assert asked.preference is None
    assert "the choices show no preference" in asked.told
    assert asked.samples != ""


def test_scores_of_files_are_those_of_the_rewards(run: Path) -> None:
    pixels = torch.zeros(2, 3, 16, 16)
    pixels[1, 0] = 1.0
    first, second = Sampler(open_trusted(str(run))).scored(Request("a red circle", "base"), pixels)
    assert second["red"] > first["red"]


def test_the_cost_of_a_reward_whose_code_is_not_run_is_one_too(tmp_path: Path) -> None:
    """The run's summary says of which rewards less is better; the choices have the scores of both."""
    higher = {"red": True, "heavy": False}
    (tmp_path / "summary.json").write_text(
        json.dumps({"rewards": list(higher), "methods": {"base": {}}, "higher_is_better": higher})
    )
    source = SimpleNamespace(rewards=tuple(higher), unscored={"heavy": "mine.py:Heavy"}, run_folder=tmp_path)
    sampler: Any = SimpleNamespace(rewards=list, source=source)
    light, heavy = {"red": 0.5, "heavy": 1.0}, {"red": 0.5, "heavy": 3.0}
    assert fit_scores([light] * 4, [heavy] * 4, sampler).preference[1] > 0.9
    assert fit_scores([heavy] * 4, [light] * 4, sampler).preference[1] < 0.1
