"""Public prompt sets: fetched when asked, from servers that are made here, checked, kept and written."""

from __future__ import annotations

import io
import json
import re
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from paretune.cli.app import app
from paretune.commands.write_prompts import listed, write_prompts
from paretune.data import set_files
from paretune.data.hub import load_hub
from paretune.data.prompts import load_prompts, prompt_file
from paretune.data.remote import is_remote
from paretune.data.set_files import git_hash, kept_file, set_file
from paretune.data.sets import SETS, PromptSet, Source, find_set
from paretune.types import ParetuneError

LINES = b'a sign saying "drum"\r\n\r\na cat \xe2\x80\x9cseen\xe2\x80\x9d\n'
RECORDS = b'{"tag": "counting", "include": [{"class": "dog", "count": 2}], "prompt": "two dogs"}\n'
TSV = b"Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tmany meanings\nalone\tArts\t\t\n"
VBENCH = b'[{"prompt_en": "a bird", "dimension": ["color"], "auxiliary_info": {"color": {"color": "red"}}}]'
FILES = {"l.txt": LINES, "r.jsonl": RECORDS, "p.tsv": TSV, "v.json": VBENCH, "h.json": b'["an owl", "a fox"]'}
COMMIT = "c" * 40


def source(path: str, form: str, **more: Any) -> Source:
    return Source("who/what", COMMIT, path, form, len(FILES[path]), git_hash(FILES[path]), **more)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A set of several files on servers that are made here. Returns what is asked of them."""
    found: list[str] = []
    styled = {"more": (("style", "anime"),), "hub": True}
    splits = {
        "test": (source("l.txt", "lines"),),
        "train": (source("r.jsonl", "records"), source("h.json", "list", **styled)),
        "table": (source("p.tsv", "tsv"), source("v.json", "vbench")),
    }
    monkeypatch.setitem(SETS, "tiny", PromptSet("MIT", "for tests", splits))
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))

    def opened(url: str, timeout: float) -> io.BytesIO:
        found.append(url)
        assert url.startswith(f"https://raw.githubusercontent.com/who/what/{COMMIT}/")
        return io.BytesIO(FILES[url.rpartition("/")[2]])

    def download(repo: str, path: str, repo_type: str, revision: str) -> str:
        found.append(f"{repo}/{path}@{revision}")
        assert repo_type == "dataset"
        place = tmp_path / "hub" / path
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(FILES[path])
        return str(place)

    monkeypatch.setattr("urllib.request.urlopen", opened)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    return found


def test_a_set_is_fetched_once_and_read_as_a_file(asked: list[str]) -> None:
    assert is_remote("set:tiny@test")
    assert prompt_file("set:tiny@test") is None
    prompts = load_prompts("set:tiny@test")
    assert [p.text for p in prompts] == ['a sign saying "drum"', "a cat “seen”"]
    assert load_prompts("set:tiny@test") == prompts
    assert len(asked) == 1
    assert not is_remote("set:tiny@test")


def test_records_of_every_published_form(asked: list[str]) -> None:
    rows = [dict(p.metadata) for p in (*load_prompts("set:tiny@train"), *load_prompts("set:tiny@table"))]
    assert rows == [
        {"tag": "counting", "include": [{"class": "dog", "count": 2}], "prompt": "two dogs"},
        {"prompt": "an owl", "style": "anime"},
        {"prompt": "a fox", "style": "anime"},
        {"prompt": "bond", "category": "Abstract", "challenge": "Basic", "note": "many meanings"},
        {"prompt": "alone", "category": "Arts"},
        {"prompt": "a bird", "dimension": ["color"], "auxiliary_info": {"color": {"color": "red"}}},
    ]
    assert asked[1] == f"who/what/h.json@{COMMIT}"


def test_other_bytes_than_the_published_revision_are_not_used(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FILES, "l.txt", b"another prompt\n")
    with pytest.raises(ParetuneError, match=r"tiny: https\S+ has other bytes than the published revision"):
        load_prompts("set:tiny@test")
    assert not kept_file("set:tiny@test").exists()


def test_a_kept_file_that_somebody_changed_is_refused(asked: list[str]) -> None:
    file = set_file("set:tiny@test")
    file.write_text('{"prompt": "something else"}\n')
    with pytest.raises(ParetuneError, match="was changed since it was fetched"):
        load_prompts("set:tiny@test")


def test_no_connection_is_one_line(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(url: str, timeout: float) -> None:
        raise urllib.error.URLError("Name or service not known\nmore")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(ParetuneError, match=r"l\.txt cannot be downloaded: <urlopen error Name or serv"):
        load_prompts("set:tiny@test")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ParetuneError, match="HF_HUB_OFFLINE forbids"):
        load_prompts("set:tiny@test")


@pytest.mark.parametrize(
    ("form", "data", "told"),
    [
        ("records", b'{"tag": "x"}', ':1: no record with a "prompt"'),
        ("records", b"{", ":1: malformed JSON"),
        ("list", b'{"a": 1}', "is no list of prompts"),
        ("tsv", b"Text\nbond", "has no column Prompt"),
        ("vbench", b'["a"]', "is no list of VBench's records"),
        ("lines", b"\xff", "not UTF-8"),
    ],
)
def test_a_file_of_another_form_is_one_line(form: str, data: bytes, told: str) -> None:
    with pytest.raises(ParetuneError, match=re.escape(told)):
        list(set_files.FORMS[form](data, "file"))


def test_names_and_splits() -> None:
    assert find_set("set:vbench") == ("vbench", "test")
    assert find_set("geneval@train") == ("geneval", "train")
    for spec, told in {
        "set:geneval": "has several splits: write set:geneval@ and one of test, train, flow-grpo-test",
        "set:ocr@validation": "has no split 'validation'",
        "set:genevall@test": "there is no prompt set 'genevall'; did you mean 'geneval'",
    }.items():
        with pytest.raises(ParetuneError, match=re.escape(told)):
            load_prompts(spec)


def test_the_table_is_whole() -> None:
    """Revisions are commits, hashes are git's, and whatever is on GitHub has one."""
    for own in SETS.values():
        for part in (source for split in own.splits.values() for source in split):
            assert re.fullmatch("[0-9a-f]{40}", part.revision), part
            assert part.hub or re.fullmatch("[0-9a-f]{40}", part.blob or ""), part
            assert part.form in set_files.FORMS, part
    assert git_hash(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"  # of `git hash-object`
    names = {row.spec for row in listed()}
    assert {"set:geneval@test", "set:t2i-compbench@train", "hf:Anthropic/hh-rlhf/helpful-base@test"} <= names


def test_prompts_are_written_with_their_source(asked: list[str], tmp_path: Path) -> None:
    out = tmp_path / "two.jsonl"
    told = write_prompts("tiny", out, split="train", limit=2, seed=3)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["two dogs", "a fox"]
    assert [p.text for p in load_prompts(out)] == ["two dogs", "a fox"]
    beside = json.loads((tmp_path / "two.jsonl.source.json").read_text())
    assert beside == told
    told = [beside[key] for key in ("spec", "prompts", "of", "licence")]
    assert told == ["set:tiny@train", 2, 3, "MIT"]
    assert [file["revision"] for file in beside["files"]] == [COMMIT, COMMIT]
    with pytest.raises(ParetuneError, match="exists already"):
        write_prompts("tiny", out, split="train")
    first = write_prompts("tiny@train", tmp_path / "one.jsonl", limit=1)
    assert (first["prompts"], first["seed"]) == (1, None)


def test_the_command(asked: list[str], tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["prompts", "--json"])
    assert {"spec": "set:tiny@test", "size": len(LINES), "licence": "MIT", "source": "who/what",
            "about": "for tests"} in json.loads(shown.output)  # fmt: skip
    assert asked == []
    out = tmp_path / "tiny.jsonl"
    done = CliRunner().invoke(app, ["prompts", "set:tiny@test", "--out", str(out)])
    assert done.exit_code == 0
    assert f"prompts: {out} (2 of 2)" in done.output
    for words, told in {
        ("tiny",): "give --out FILE.jsonl",
        ("tiny", "--out", str(tmp_path / "x.txt")): "name a file .jsonl",
        ("tiny", "--out", str(tmp_path / "x.jsonl")): "has several splits",
        ("tiny@test", "--split", "train", "--out", str(tmp_path / "x.jsonl")): "names another split",
        ("hh-rlhf", "--out", str(tmp_path / "x.jsonl")): "give --split and one of helpful-train",
        ("tiny@test", "--limit", "-1", "--out", str(tmp_path / "x.jsonl")): "a number of prompts",
    }.items():
        wrong = CliRunner().invoke(app, ["prompts", *words])
        assert isinstance(wrong.exception, ParetuneError)
        assert told in str(wrong.exception)
    assert not (tmp_path / "x.jsonl").exists()


def test_any_column_of_a_dataset(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    captions = ("a dog", "a cat", "an owl")
    rows = [{"caption": text, "seed": i} for i, text in enumerate(captions, start=1)]
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = load_prompts(f"hf:{data}@train[:2]:caption")
    assert [(p.text, p.metadata["seed"]) for p in found] == [("a dog", 1), ("a cat", 2)]
    with pytest.raises(ParetuneError, match="no column 'text'; its columns: caption, seed"):
        load_hub(f"hf:{data}@train:text")
    told = write_prompts(f"hf:{data}@train:caption", tmp_path / "c.jsonl", limit=1)
    assert (told["prompts"], told["of"], told["revision"]) == (1, 3, None)
    assert json.loads((tmp_path / "c.jsonl").read_text())["prompt"] == "a dog"


def test_so_many_prompts_are_always_the_same(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = b"".join(b"prompt %d\n" % number for number in range(20))
    monkeypatch.setitem(FILES, "l.txt", lines)
    monkeypatch.setitem(SETS, "tiny", PromptSet("MIT", "", {"test": (source("l.txt", "lines"),)}))
    chosen = [p.text for p in load_prompts("set:tiny@test[:4]")]
    assert chosen == ["prompt 1", "prompt 8", "prompt 12", "prompt 13"]  # as random.Random(0) draws
    assert len(load_prompts("set:tiny[:50]")) == 20
    assert kept_file("set:tiny@test[:4]") == kept_file("set:tiny@test")
    with pytest.raises(ParetuneError, match="a number of prompts from 1 up"):
        load_prompts("set:tiny@test[:0]")
