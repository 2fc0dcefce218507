"""Records of free prompts: what their words tell a reward."""

import random

import pytest

from paretune.data.prompts import load_prompts
from paretune.sampling.records import prompt_of
from paretune.types import Prompt
from paretune.worlds.pictures.scenes import caption, geneval_metadata, parse_caption, random_scene


def test_a_caption_is_read_back() -> None:
    rng = random.Random(3)
    for kind in ("single", "pair", "relation", "sign", "mixed"):
        for _ in range(200):
            scene = random_scene(rng, kind)
            assert parse_caption(caption(scene)) == scene


@pytest.mark.parametrize("name", ["geneval", "ocr", "preference"])
def test_records_of_the_worlds_files_are_read_from_their_prompts(name: str) -> None:
    for prompt in load_prompts(f"pictures/{name}-test"):
        scene = parse_caption(prompt.text)
        assert scene is not None
        assert geneval_metadata(scene) == prompt.metadata


@pytest.mark.parametrize(
    "text",
    ["", "a", "a red dog", "a red circle and", "a orange circle", "no red circles", "one red circle",
     "a red circle above two blue squares", "a sign saying ", "a sign saying kite above", "red circle",
     "a sign saying kite near a red circle", "a red circle and a blue square and a green cross"],
)  # fmt: skip
def test_other_sentences_are_no_scene(text: str) -> None:
    assert parse_caption(text) is None


def test_a_known_prompt_keeps_its_record() -> None:
    known = Prompt("a cat", {"text": "odd"})
    assert prompt_of("a cat", {"a cat": known}, "pictures") is known


def test_the_word_of_a_free_prompt() -> None:
    assert prompt_of('a shop with "open now" on it', {}, "").metadata["text"] == "open now"
    assert prompt_of("a sign saying kite on a hill", {}, "pictures").metadata["text"] == "kite"
    assert prompt_of('an empty "" pair', {}, "").metadata == {}
    assert prompt_of("a red circle", {}, "").metadata == {}
    assert prompt_of("a red circle", {}, "pictures").metadata["include"][0]["color"] == "red"
