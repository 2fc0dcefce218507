"""Prompt sets as other projects publish them, conversations as TRL takes them, and damaged files."""

import json
import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from paretune.config import ModelConfig
from paretune.data import load_prompts
from paretune.data.hub import load_hub
from paretune.data.prompts import prompt_file, spread
from paretune.models.causal_lm.policy import CausalLMPolicy
from paretune.training.objectives.preferences import DPO
from paretune.types import Dialogue, ParetuneError, Prompt
from tests.language import make_llama

USER = {"role": "user", "content": "how do i clean"}
SOAP, WAIT = {"role": "assistant", "content": "soap"}, {"role": "assistant", "content": "wait"}
SYSTEM = {"role": "system", "content": "please"}


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def refusal(place: str) -> str:
    with pytest.raises(ParetuneError) as caught:
        load_prompts(place)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 500 + 4 * len(place)
    return line


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "how do i clean", "chosen": "soap", "rejected": "wait"},
        {"prompt": [USER], "chosen": [SOAP], "rejected": [WAIT]},
        {"prompt": [USER], "chosen": [USER, SOAP], "rejected": [USER, WAIT]},
        {"chosen": [USER, SOAP], "rejected": [USER, WAIT]},
        # UltraFeedback's
        {"prompt": "how do i clean", "chosen": [USER, SOAP], "rejected": [USER, WAIT],
         "messages": [USER, SOAP]},
        {"prompt": "how do i clean", "chosen": [SOAP], "rejected": [WAIT]},
        {"prompt": None, "chosen": [USER, SOAP], "rejected": [USER, WAIT]},
        {"prompt": [{"role": "user", "content": [{"type": "text", "text": "how do i clean"}]}],
         "chosen": [SOAP], "rejected": [WAIT]},
        {"chosen": [{"from": "human", "value": "how do i clean"}, {"from": "gpt", "value": "soap"}],
         "rejected": [{"from": "human", "value": "how do i clean"}, {"from": "gpt", "value": "wait"}]},
    ],
)  # fmt: skip
def test_a_pair_is_the_same_however_it_is_written(tmp_path: Path, row: dict[str, Any]) -> None:
    (prompt,) = load_prompts(write(tmp_path, "a.jsonl", json.dumps(row)))
    assert (prompt.text, type(prompt.text)) == ("how do i clean", str)
    rows = DPO.rows("dpo", [prompt], ["<how do i clean>"], [0])
    assert rows == [{"prompt": "<how do i clean>", "chosen": "soap", "rejected": "wait"}]
    write(tmp_path, "train.jsonl", json.dumps(row))
    (again,) = load_hub(f"hf:{tmp_path}@train")
    assert (again.text, again.metadata["chosen"]) == ("how do i clean", "soap")


def test_texts_that_begin_alike_are_cut_where_trl_cuts_them(tmp_path: Path) -> None:
    row = {"chosen": "The sky is blue.", "rejected": "The sky is green."}
    (prompt,) = load_prompts(write(tmp_path, "a.jsonl", json.dumps(row)))
    from trl.data_utils import extract_prompt

    cut: Any = extract_prompt(row)
    assert (prompt.text, prompt.metadata["chosen"], prompt.metadata["rejected"]) == tuple(cut.values())
    assert prompt.metadata["chosen"] == " blue."


def test_messages_are_a_prompt_and_what_can_be_learned(tmp_path: Path) -> None:
    rows = [{"messages": [USER, SOAP]}, {"messages": [USER]}, {"messages": [SYSTEM, USER, SOAP]}]
    one, bare, dialogue = load_prompts(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))))
    assert (one.text, one.metadata["chosen"]) == ("how do i clean", "soap")
    assert (bare.text, "chosen" in bare.metadata) == ("how do i clean", False)
    assert dialogue.text == "system: please\n\nuser: how do i clean"
    assert isinstance(dialogue.text, Dialogue)
    assert dialogue.text.turns == (SYSTEM, USER)
    again = pickle.loads(pickle.dumps(dialogue.text))
    assert (again, again.turns) == (dialogue.text, dialogue.text.turns)


def test_a_model_reads_the_turns_of_a_dialogue(tmp_path: Path) -> None:
    talk = [USER, SOAP, {"role": "user", "content": "tell me"}]
    row = {"prompt": talk, "chosen": [WAIT], "rejected": [SOAP]}
    (prompt,) = load_prompts(write(tmp_path, "a.jsonl", json.dumps(row)))
    model = str(make_llama(tmp_path / "chat", chat=True))
    policy = CausalLMPolicy(ModelConfig.model_validate({"path": model, "options": {"max_tokens": 4}}))
    assert policy.render([prompt.text]) == ["how do i clean pleasesoap pleasetell me please"]
    plain = CausalLMPolicy(ModelConfig(path=model, options={"max_tokens": 4, "template": "plain"}))
    with pytest.raises(ParetuneError, match="has 3 turns, which takes a chat template"):
        plain.render([prompt.text])


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"chosen": [USER, SOAP], "rejected": [SYSTEM, WAIT]}, "have no turn in common"),
        ({"chosen": [SOAP], "rejected": [WAIT]}, "have no turn in common"),
        ({"prompt": [], "chosen": [SOAP], "rejected": [WAIT]}, '"prompt" has no turns'),
        ({"prompt": [USER, SOAP], "chosen": [SOAP], "rejected": [WAIT]}, "does not end with a turn of"),
        ({"prompt": [USER], "chosen": [], "rejected": [WAIT]}, '"chosen" has no turns'),
        ({"prompt": [USER], "chosen": [SOAP, USER, WAIT], "rejected": [WAIT]}, '"chosen" holds 3 turns'),
        ({"prompt": [USER], "chosen": [USER], "rejected": [WAIT]}, '"chosen" holds 0 turns after the prompt'),
        ({"prompt": ["x"], "chosen": [SOAP]}, '"prompt", turn 1: expected {"role"'),
        ({"prompt": [{"role": "user"}]}, '"prompt", turn 1: its role and its content are texts'),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "role and its content are texts"),
        ({"prompt": [{"role": "user", "content": " "}]}, "the user's last turn is empty"),
        ({"messages": 5}, '"prompt" is missing'),
        ({"messages": []}, '"prompt" is missing'),
        ({"chosen": "hm", "rejected": "no"}, 'neither a "prompt" nor a pair'),
        ({"chosen": "hm"}, 'neither a "prompt" nor a pair'),
    ],
)  # fmt: skip
def test_a_conversation_that_cannot_be_read_names_its_line(
    tmp_path: Path, row: dict[str, Any], told: str
) -> None:
    place = write(tmp_path, "a.jsonl", '{"prompt": "x"}\n' + json.dumps(row))
    line = refusal(place)
    assert line.startswith(f"{place}:2: ")
    assert told in line


def test_parti_prompts(tmp_path: Path) -> None:
    """Its quotes are the prompts' own."""
    table = "Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\t\n"
    table += '"HI" on a wall "x"\tArts\tComplex\tno\n'
    bond, wall = load_prompts(write(tmp_path, "PartiPrompts.tsv", table.replace("\n", "\r\n")))
    assert bond.text == "bond"
    assert bond.metadata == {"Prompt": "bond", "Category": "Abstract", "Challenge": "Basic"}
    assert (wall.text, wall.metadata["Note"]) == ('"HI" on a wall "x"', "no")
    (quoted,) = load_prompts(write(tmp_path, "b.tsv", 'prompt\n"a ""HI"" on a wall"\n'))
    assert quoted.text == 'a "HI" on a wall'


def test_geneval_s_nulls_are_absent(tmp_path: Path) -> None:
    row = {"tag": "x", "include": [{"class": "bench", "count": 1, "color": None}], "exclude": None,
           "prompt": "a photo of a bench"}  # fmt: skip
    (prompt,) = load_prompts(write(tmp_path, "evaluation_metadata.jsonl", json.dumps(row)))
    assert prompt.metadata == {
        "tag": "x", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"
    }  # fmt: skip


def test_hpsv2(tmp_path: Path) -> None:
    flat = load_prompts(write(tmp_path, "anime.json", json.dumps(["a cat", "a dog"])))
    assert [(p.text, dict(p.metadata)) for p in flat] == [("a cat", {}), ("a dog", {})]
    styles = {"anime": ["a cat"], "photo": ["a dog", {"prompt": "a cow", "id": 3}]}
    mixed = load_prompts(write(tmp_path, "all.json", json.dumps(styles)))
    assert [(p.text, p.metadata["style"]) for p in mixed] == [
        ("a cat", "anime"), ("a dog", "photo"), ("a cow", "photo")
    ]  # fmt: skip
    assert mixed[2].metadata["id"] == 3


def test_a_column_is_named_after_the_file(tmp_path: Path) -> None:
    rows = '1,"a cat, a dog\nand a cow",x\n2,"say ""hi""",y\n'
    place = write(tmp_path, "a.csv", "\ufeffid,caption,prompt\n" + rows)
    assert [p.text for p in load_prompts(f"{place}:caption")] == ["a cat, a dog\nand a cow", 'say "hi"']
    assert [p.text for p in load_prompts(place)] == ["x", "y"]
    assert prompt_file(f"{place}:caption") == Path(place)
    records = write(tmp_path, "b.jsonl", '{"caption": "a cat", "n": 1}\n')
    (prompt,) = load_prompts(f"{records}:caption")
    assert (prompt.text, prompt.metadata["n"]) == ("a cat", 1)
    whole = write(tmp_path, "c.csv:prompt.txt", "a cat\n")
    assert load_prompts(whole)[0].text == "a cat"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"x\n\0\n", "a.txt:2: the prompt holds the control character U+0000"),
        ("a.txt", b"x\ra\n", "a.txt:1: the prompt holds the control character U+000D"),
        ("a.txt", b"\xff\xfea\0", "a.txt:1: not UTF-8"),
        ("a.txt", b"x" * 1_100_000, "a.txt:1: the line has 1,100,000 bytes"),
        ("a.txt", b"\xef\xbb\xbf\n", "a.txt is empty"),
        ("a.txt:x", b"", "a .txt file has no columns to choose x from"),
        ("a.jsonl", b'{"prompt": "a\\u0000b"}', "a.jsonl:1: the prompt holds the control character U+0000"),
        ("a.jsonl", b'{"prompt": "a\\ud800b"}', "a.jsonl:1: a text holds half of a character"),
        ("a.jsonl", b'{"prompt": "a", "x": ["\\udfff"]}', "a.jsonl:1: a text holds half of a character"),
        ("a.jsonl", b'{"prompt": null}', 'a.jsonl:1: "prompt" is missing'),
        ("a.jsonl", b'{"prompt": "a", "x": NaN}', "a.jsonl:1: NaN is not a number in JSON"),
        ("a.jsonl", b'{"prompt": "a", "prompt": "b"}', "a.jsonl:1: the key 'prompt' is there twice"),
        ("a.jsonl", b'{"prompt": "a", "x": ' + b"9" * 5000 + b"}", "a.jsonl:1: "),
        ("a.jsonl", b"[" * 100_000, "a.jsonl:1: its lists are nested too deeply"),
        ("a.jsonl", b"null", "a.jsonl:1: expected a JSON object"),
        ("a.jsonl:caption", b'{"prompt": "a"}', 'a.jsonl:1: "caption" is missing'),
        ("a.json", b"", "a.json is empty"),
        ("a.json", b"[]", "a.json holds no prompt"),
        ("a.json", b"{}", "a.json holds no prompt"),
        ("a.json", b'"a"', "a.json: expected a list of prompts"),
        ("a.json", b'{"anime": "a"}', "a.json: expected a list of prompts"),
        ("a.json", b'["a",\n 5]', "a.json, entry 2: it is empty, or neither a text nor a record"),
        ("a.json", b'{"anime": ["a", ""]}', "a.json, 'anime', entry 2: it is empty"),
        ("a.json", b'["a",\n "b"', "a.json: malformed JSON: Expecting ',' delimiter (line 2, column 5)"),
        ("a.csv", b"prompt\n", "a.csv holds no prompt"),
        ("a.csv", b"a,b\n1,2\n", "a.csv:1: no column prompt or Prompt; name one of a, b as"),
        ("a.csv:c", b"a,b\n1,2\n", "a.csv:1: no column c; name one of a, b as"),
        ("a.csv", b"prompt,prompt\n1,2\n", "a.csv:1: the heading prompt is there twice"),
        ("a.csv", b"prompt,x\na,b\nc\n", "a.csv:3: 1 fields under 2 headings"),
        ("a.csv", b'prompt\n"a\nb\n', "a.csv:2: malformed CSV"),
        ("a.csv", b'prompt\n"a\nb"\n""\n', 'a.csv:4: "prompt" is missing, empty'),
        ("a.csv", b"prompt\na\0b\n", "a.csv:2: "),
        ("a.tsv", b"Prompt\tx\na\n", "a.tsv:2: 1 fields under 2 headings"),
        ("a.tsv", b"Prompt\n\xff\n", "a.tsv:2: not UTF-8"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    file, _, column = name.partition(":")
    place = write(tmp_path, file, content or b" ")
    assert told in refusal(f"{place}:{column}" if column else place)


def test_a_folder_and_a_name_that_no_file_has(tmp_path: Path) -> None:
    assert "is a folder; name a file in it" in refusal(str(tmp_path))
    assert "File name too long" in refusal("n" * 300)
    assert "does not exist" in refusal(str(tmp_path / "a\0b"))


def test_many_lines_take_seconds(tmp_path: Path) -> None:
    place = write(tmp_path, "a.txt", "a red circle\n" * 200_000)
    start = time.process_time()
    assert len(load_prompts(place)) == 200_000
    assert time.process_time() - start < 30


@pytest.mark.parametrize(
    ("count", "wanted"), [(1, [0]), (3, [0, 3, 6]), (4, [0, 2, 5, 7]), (10, [*range(10)]), (99, [*range(10)])]
)
def test_prompts_are_taken_from_the_whole_of_a_sorted_file(count: int, wanted: list[int]) -> None:
    prompts = [Prompt(str(number)) for number in range(10)]
    assert [int(prompt.text) for prompt in spread(prompts, count)] == wanted
