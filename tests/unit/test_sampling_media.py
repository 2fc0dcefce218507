"""Sampling of runs that make clips or texts: what is left in the folder, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from paretune.cli.tables import sample_places, sample_table
from paretune.commands.measure import score_folder
from paretune.config import ModelConfig
from paretune.recipes import load_config
from paretune.reward_tokens.files import Token, write_token
from paretune.samples.files import read_clip
from paretune.samples.media import medium_of
from paretune.samples.stamped import read_settings
from paretune.sampling import Request, Sampler
from paretune.sampling.command import sample_folder
from paretune.sampling.records import prompt_of
from paretune.sampling.request import read_prompt
from paretune.sampling.source import open_source
from paretune.types import ParetuneError, Prompt
from tests.made_run import make_clips_run, make_texts_run, open_trusted, sample_trusted

ASK = "how do i clean the window"


@pytest.fixture(scope="module")
def texts(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_texts_run(tmp_path_factory.mktemp("made") / "texts", tiny_llama)


@pytest.fixture(scope="module")
def clips(tiny_hunyuan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips_run(tmp_path_factory.mktemp("made") / "clips", tiny_hunyuan)


@pytest.fixture(scope="module")
def writer(texts: Path) -> Sampler:
    return Sampler(open_trusted(str(texts)))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def scored_alike(run: Path, out: Path, table: dict[str, Any]) -> bool:
    """Whether `paretune score` gives the scores of the table."""
    made = table["made"]
    return all(
        [row["value"] for row in score_folder(own.reward, out / made, str(out / "prompts.jsonl"))]
        == [row["scores"][name] for row in table[made]]
        for name, own in load_config(run / "config.yaml").rewards.items()
    )


# ---------------------------------------------------------------- texts


def test_answers_are_files_and_rows_and_the_same_seed_gives_the_same_bytes(
    texts: Path, tmp_path: Path
) -> None:
    ask = [ASK, "a question of no file"]
    table = sample_trusted(str(texts), ask, tmp_path / "a", "yes=3 no=1", "mix", count=2, seed=9)
    sample_trusted(str(texts), ask, tmp_path / "b", "yes=3 no=1", "mix", count=2, seed=9)
    files = files_of(tmp_path / "a")
    assert files == files_of(tmp_path / "b")
    assert set(files) == {"prompts.jsonl", "sample.json", *(row["file"] for row in table["texts"])}
    assert table == json.loads(files["sample.json"])
    assert [row["file"] for row in table["texts"]] == [f"texts/00{p}-00{i}.txt" for p in "01" for i in "01"]
    assert [row["text"].encode() for row in table["texts"]] == [files[r["file"]] for r in table["texts"]]
    assert len({row["text"] for row in table["texts"]}) == 4
    assert scored_alike(texts, tmp_path / "a", table)
    asked = table["requests"][0]
    assert (asked["preference"], asked["seed"], asked["max_tokens"]) == ({"yes": 0.75, "no": 0.25}, 9, 6)
    assert [a["folder"] for a in asked["adapters"]] == ["round-1/experts/yes", "round-1/experts/no"]
    assert "steps" not in asked


def test_the_first_answers_of_more_are_those_of_fewer(writer: Sampler) -> None:
    request = Request(ASK, "mapreduce", (0.7, 0.3), seed=5)
    many = writer.draw(request, 6)
    assert writer.draw(request, 2) == many[:2]
    assert len(set(many)) == 6
    state = torch.get_rng_state()
    assert writer.draw(replace(request, seed=6)) != many[:1]
    assert torch.equal(torch.get_rng_state(), state)


def test_each_part_of_a_request_changes_the_answer(writer: Sampler) -> None:
    request = Request(ASK, "mapreduce", (0.7, 0.3), seed=5)
    asked = [
        request, replace(request, preference=(0.1, 0.9)), replace(request, method="mix"),
        replace(request, method="base", preference=None), replace(request, prompt="fix the table"),
    ]  # fmt: skip
    assert len({tuple(writer.draw(r, 3)) for r in asked}) == len(asked)
    assert writer.draw(request, 3) == writer.draw(request, 3)


def test_a_prompt_of_the_files_is_asked_as_it_is_written_there(texts: Path) -> None:
    source = open_trusted(str(texts))
    dialogue = Prompt("\n\nHuman: fix\n\nthe table ", {"chosen": "yes"})
    sampler = Sampler(replace(source, known={dialogue.text.strip(): dialogue}))
    asked: list[str] = []
    answer = sampler.policy.answer
    sampler.policy.answer = lambda prompts, *rest: (asked.extend(prompts), answer(prompts, *rest))[1]
    drawn = sampler.draw_scored(Request(dialogue.text.strip(), "base"))
    assert asked == [dialogue.text]
    assert drawn.prompt is dialogue


def test_mistakes_of_texts_are_one_line(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wrong: dict[str, Callable[[], object]] = {
        "prompt is empty": lambda: sample_trusted(str(texts), [" \n "], out),
        "has 40 tokens.*context holds 26: shorten it": lambda: sample_trusted(str(texts), ["day " * 40], out),
        "400,000 characters": lambda: sample_trusted(str(texts), ["x" * 400_000], out),
        r"U\+0007": lambda: sample_trusted(str(texts), ["a\x07b"], out),
        "--steps is for flow models; tiny-language makes texts": (
            lambda: sample_trusted(str(texts), [ASK], out, steps=4)
        ),
        "--guidance is for flow models": lambda: sample_trusted(str(texts), [ASK], out, guidance=1.0),
        "no reward tokens; .paretune tokens": lambda: sample_trusted(str(texts), [ASK], out, None, "rate"),
    }
    for told, call in wrong.items():
        with pytest.raises(ParetuneError, match=told) as raised:
            call()
        assert "\n" not in str(raised.value)
    assert not out.exists()


def test_tokens_reach_the_policy_of_a_run_that_has_them(tiny_llama: Path, tmp_path: Path) -> None:
    run = make_texts_run(tmp_path / "run", tiny_llama)
    for reward in ("yes", "no"):
        write_token(run / "final/tokens" / reward, Token(reward, {"embedding": 3 * torch.ones(1, 16)}))
    sampler = Sampler(open_trusted(str(run)))
    assert sampler.source.methods == ("mapreduce", "mix", "rate", "base")
    plain = sampler.draw(Request(ASK, "base"))
    assert sampler.draw(Request(ASK, "rate", (0.5, 0.5))) != plain
    assert sampler.draw(Request(ASK, "base")) == plain


def test_several_lines_are_for_texts_alone(tiny_llama: Path) -> None:
    medium = medium_of(ModelConfig.model_validate({"path": str(tiny_llama)}))
    assert medium.lines
    assert not medium_of(ModelConfig()).lines
    assert read_prompt("Human: a\r\n\tb ", lines=True) == "Human: a\n\tb"
    with pytest.raises(ParetuneError, match=r"U\+000A"):
        read_prompt("a\nb")


def test_a_bare_language_model_answers_by_its_options(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ParetuneError, match=r"answers of 128 tokens .* leave no room .* context of 32"):
        sample_folder(str(tiny_llama), [ASK], tmp_path / "out")
    source = open_source(str(tiny_llama))
    short = ModelConfig.model_validate({"path": str(tiny_llama), "options": {"max_tokens": 3}})
    drawn = Sampler(replace(source, model=short)).draw_scored(Request(ASK, "base"))
    assert isinstance(drawn.samples[0], str)
    assert len(drawn.samples[0].split()) <= 3
    assert drawn.scores == ({},)


def test_the_terminal_shows_the_first_answer_and_no_control_character() -> None:
    table = {
        "made": "texts", "grid": None, "rewards": ["yes"], "requests": [{"prompt": "a\nb"}],
        "texts": [{"request": 0, "scores": {"yes": 0.5}, "text": "\x1b[31m[b]no"}],
    }  # fmt: skip
    rendered = sample_table(table)
    assert [list(c.cells) for c in rendered.columns] == [["a b"], ["1"], ["0.500"], [r" [31m\[b]no"]]
    assert sample_places(table, Path("out")) == "texts: out/texts   scores: out/sample.json"


# ---------------------------------------------------------------- clips


def test_clips_are_videos_with_a_sheet_and_the_same_seed_gives_the_same_bytes(
    clips: Path, tmp_path: Path
) -> None:
    ask = ["a red circle", "two blue squares"]
    table = sample_trusted(str(clips), ask, tmp_path / "a", "red=1", count=2, seed=3)
    sample_trusted(str(clips), ask, tmp_path / "b", "red=1", count=2, seed=3)
    files = files_of(tmp_path / "a")
    assert files == files_of(tmp_path / "b")
    names = [row["file"] for row in table["clips"]]
    assert names == [f"clips/00{p}-00{i}.mp4" for p in "01" for i in "01"]
    assert set(files) == {"prompts.jsonl", "sample.json", "grid.png", *names}
    assert read_clip(tmp_path / "a" / names[0]).shape == (5, 3, 128, 128)
    told = read_settings(tmp_path / "a" / names[3])
    assert (told["prompt"], told["index"], told["seed"], told["steps"]) == ("two blue squares", 1, 3, 3)
    assert told["preference"] == {"red": 1, "dark": 0}
    with Image.open(tmp_path / "a/grid.png") as sheet:
        assert sheet.size == (5 * 136, 4 * 136)  # a row a clip, its five frames
    assert set(table["clips"][0]["scores"]) == {"red", "dark"}
    # `paretune score` reads what H.264 left of the clip.
    rows = score_folder(load_config(clips / "config.yaml").rewards["red"].reward, tmp_path / "a/clips",
                        str(tmp_path / "a/prompts.jsonl"))  # fmt: skip
    drawn = [row["scores"]["red"] for row in table["clips"]]
    assert [row["value"] for row in rows] == pytest.approx(drawn, abs=0.03)


def test_methods_and_preferences_make_other_clips(clips: Path) -> None:
    sampler = Sampler(open_trusted(str(clips)))
    asked = [Request("a red circle", m, p) for m, p in (
        ("base", None), ("mapreduce", (0.9, 0.1)), ("mix", (0.9, 0.1)), ("mix", (0.1, 0.9)),
    )]  # fmt: skip
    drawn = [sampler.draw(request) for request in asked]
    assert drawn[0].shape == (1, 5, 3, 16, 16)
    assert len({d.numpy().tobytes() for d in drawn}) == 4


def test_a_caption_of_the_world_is_a_record() -> None:
    told = prompt_of("an orange cross moves up slowly", {}, "clips", "clips").metadata
    assert (told["color"], told["direction"], told["speed"]) == ("orange", "up", "slowly")
    assert prompt_of("a dog moves", {}, "clips", "clips").metadata == {}
    assert prompt_of('say "yes"', {}, "", "texts").metadata == {}


def test_bare_models_are_drawn_by_diffusers_own_settings(tiny_hunyuan: Path, tiny_flux: Path) -> None:
    told = [(s.steps, s.guidance) for s in (open_source(str(p)) for p in (tiny_hunyuan, tiny_flux))]
    assert told == [(50, 6.0), (28, 3.5)]
