"""What the page answers for runs that write texts or make clips, without a browser."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path

import pytest

from paretune.demo import views
from paretune.demo.answers import Answers
from paretune.demo.serving import open_answers
from paretune.types import ParetuneError
from tests.language import WORDS, make_llama
from tests.made_run import make_clips_run, make_texts_run, sample_trusted

MARKUP = ("<b>", "</div>", "{{1+1}}", "${2+2}", "`", "&lt;")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    return make_texts_run(folder / "run", make_llama(folder / "model", words=(*WORDS, *MARKUP)))


@pytest.fixture(scope="module")
def answers(run: Path) -> Answers:
    return open_answers(run, trust_rewards=True)


def words(samples: str) -> list[str]:
    """The texts that a browser would show, from the HTML."""
    boxes = re.findall(r'<div class="pt-words"[^>]*>(.*?)</div>', samples)
    assert not any("<" in box for box in boxes)
    return [html.unescape(box) for box in boxes]


def files(samples: str) -> list[bytes]:
    """The files behind the links."""
    return [base64.b64decode(data) for data in re.findall(r'href="data:[^"]*base64,([^"]+)"', samples)]


def test_two_answers_are_shown_as_they_are_saved(answers: Answers, run: Path, tmp_path: Path) -> None:
    seen = set()
    for seed in range(20):
        done = answers.answer("fix the table", [1, 3], "mix", "", seed)
        assert [file.decode() for file in files(done.samples)] == words(done.samples)
        assert not set("{}$`\\") & set(re.sub(r"&#\d+;", "", done.samples))  # Gradio's templates
        seen |= {word for word in MARKUP if word in " ".join(words(done.samples)).split()}
    assert len(seen) >= 4
    out = tmp_path / "out"
    table = sample_trusted(str(run), ["fix the table"], out, "yes=1 no=3", "mix", count=1, seed=19)
    assert words(done.samples)[1] == table["texts"][0]["text"]
    shown = re.findall(r'class="pt-bar pt-aligned".*?pt-value">([^<]+)<', done.bars)
    assert shown == [f"{value:.3f}" for value in table["texts"][0]["scores"].values()]


def test_the_aligned_answer_follows_the_preference_and_the_base_does_not(answers: Answers) -> None:
    asked = [[1.0, 0.0], [0.0, 1.0]]
    pairs = [[words(answers.answer("tell me", w, "mix", "", s).samples) for s in range(4)] for w in asked]
    assert [base for base, _ in pairs[0]] == [base for base, _ in pairs[1]]
    assert [aligned for _, aligned in pairs[0]] != [aligned for _, aligned in pairs[1]]


def test_wrong_prompts_are_one_line_and_the_next_is_answered(answers: Answers) -> None:
    wrong = {
        " \n ": "empty", "day " * 40: "has 40 tokens", "x" * 300_000: "300,000 characters",
        "\x00a": r"U\+0000",
    }  # fmt: skip
    for prompt, told in wrong.items():
        with pytest.raises(ParetuneError, match=told) as raised:
            answers.answer(prompt, [1, 1], "mapreduce", "", 0)
        assert "\n" not in str(raised.value)
    assert len(words(answers.answer("tell\nme", [1, 1], "mapreduce", "", 0).samples)) == 2


def test_an_empty_answer_is_reported() -> None:
    assert "an empty answer" in views.text(b" ", "base", "x", "base-0.txt")
    assert "a\nb" in views.text(b"a\nb", "base", "x", "base-0.txt")


def test_clips_are_videos(tiny_hunyuan: Path, tmp_path: Path) -> None:
    import av

    answers = open_answers(make_clips_run(tmp_path / "run", tiny_hunyuan), trust_rewards=True)
    done = answers.answer("a <b> circle", [1, 0], "mix", "", 2)
    assert done.samples.count("<video ") == 2
    assert 'aria-label="aligned: a &lt;b&gt; circle"' in done.samples
    assert 'download="aligned-2.mp4">save MP4' in done.samples
    for file in files(done.samples):
        with av.open(io.BytesIO(file)) as film:
            assert sum(1 for _ in film.decode(video=0)) == 5
    assert "Scores of these two clips" in done.bars
    assert answers.examples() == ["a red circle", "two blue squares", "a sign saying kite"]
