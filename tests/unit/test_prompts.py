"""Reading prompt sets, and what the committed ones hold."""

from pathlib import Path

import pytest
from tools.worlds.pictures.tokenizer import build_tokenizer, is_spelled

from paretune.data import load_prompts, prompt_set_names
from paretune.types import ParetuneError

REWARDS = ("geneval", "ocr", "preference")


def test_text_has_a_prompt_a_line(tmp_path: Path) -> None:
    place = tmp_path / "mine.txt"
    place.write_bytes("a red circle\r\n ein grünes Quadrat \n\n".encode())
    assert [p.text for p in load_prompts(place)] == ["a red circle", "ein grünes Quadrat"]


def test_a_record_becomes_metadata(tmp_path: Path) -> None:
    place = tmp_path / "mine.jsonl"
    place.write_text('{"prompt": "a sign saying drum", "text": "drum"}\n')
    (prompt,) = load_prompts(str(place))
    assert prompt.text == "a sign saying drum"
    assert prompt.metadata["text"] == "drum"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b'{"prompt": "x"}\n{"prompt": \n', "a.jsonl:2: malformed JSON"),
        ("a.jsonl", b'{"prompt": "x"}\n{"text": "y"}\n', 'a.jsonl:2: "prompt" is missing'),
        ("a.jsonl", b'{"prompt": "  "}\n', 'a.jsonl:1: "prompt" is missing, empty'),
        ("a.jsonl", b'{"prompt": 7}\n', "a.jsonl:1: "),
        ("a.jsonl", b'["x"]\n', "a.jsonl:1: expected a JSON object"),
        ("a.jsonl", b'{"prompt": "x"}\n\n{"prompt": "y"}\n', "a.jsonl:2: malformed JSON"),
        ("a.txt", b"x\ny\n\xff\n", "a.txt:3: not UTF-8"),
        ("a.txt", b"x\n\ny\n", "a.txt:2: the line is empty"),
        ("a.txt", b"\n \n", "a.txt is empty"),
        ("a.jsonl", b"", "a.jsonl is empty"),
        ("a.doc", b"x\n", "expected .txt, .jsonl, .json, .csv, .tsv, not '.doc'"),
    ],
)
def test_an_error_names_file_and_line(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ParetuneError) as caught:
        load_prompts(tmp_path / name)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_offers_the_nearest_set() -> None:
    with pytest.raises(ParetuneError, match="did you mean 'pictures/geneval-train'"):
        load_prompts("pictures/geneval-trian")


def test_the_committed_sets_are_there_and_disjoint() -> None:
    names = [f"pictures/{reward}-{split}" for reward in REWARDS for split in ("test", "train")]
    assert set(names) <= set(prompt_set_names())
    sets = {name: load_prompts(name) for name in names}
    assert [len(sets[name]) for name in names] == [128, 400] * 3
    seen = {"test": set(), "train": set()}
    words = {"test": set(), "train": set()}
    for name, prompts in sets.items():
        split = name.rpartition("-")[2]
        texts = {p.text for p in prompts}
        assert len(texts) == len(prompts)
        seen[split] |= texts
        words[split] |= {p.metadata["text"] for p in prompts if "text" in p.metadata}
    assert not seen["test"] & seen["train"]
    assert not words["test"] & words["train"]


def test_every_word_is_spelled_and_every_ocr_prompt_has_one(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(tmp_path)
    prompts = [*load_prompts("pictures/ocr-train"), *load_prompts("pictures/ocr-test")]
    for prompt in prompts:
        word = prompt.metadata["text"]
        assert word in prompt.text.split()
        assert len(word) in (4, 5)
        assert is_spelled(tokenizer, word)
