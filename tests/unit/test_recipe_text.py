"""Recipes as people and machines write them: what YAML can say and a recipe cannot mean is one line."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config, parse_config
from paretune.types import ParetuneError
from paretune.yaml_text import YamlMistake, dump_yaml, load_yaml

REWARD = {"reward": "pictures.ocr", "prompts": "a.txt", "eval_prompts": "b.txt"}
SMALL = "rewards:\n  ocr: {reward: pictures.ocr, prompts: a.txt, eval_prompts: b.txt}\n"
LAUGHS = "".join(
    f"l{i}: &l{i} [{', '.join([f'*l{i - 1}' if i else 'ha'] * 10)}]\n" for i in range(9)
)


def refusal(folder: Path, text: str | bytes, *overrides: str) -> str:
    """The one line that refuses a recipe file, without its path."""
    path = folder / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ParetuneError) as caught:
        load_config(path, overrides)
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 600
    return line.replace(str(path), "mine.yaml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seed: 1\nname: a\nseed: 2\n", "line 3: the key seed is there already, in line 1"),
        ("train:\n  epochs: 1\n  group_size: 4\n  epochs: 2\n", "line 4: the key epochs is there already"),
        ("rewards: {ocr: {reward: a, reward: b}}\n", "line 1: the key reward is there already"),
        ("rewards:\n  no: {a: b}\n", 'line 2: YAML takes the key no for true or false; write it as "no"'),
        ("rewards:\n  1.0: {reward: ocr}\n", 'line 2: YAML takes the key 1.0 for a number'),
        ("rewards:\n  7: {reward: ocr}\n", "line 2: YAML takes the key 7 for a number"),
        ("rewards:\n  ~: {reward: ocr}\n", "line 2: YAML takes the key ~ for nothing"),
        ("? [a]\n: 1\n", "line 1: a key is a list or a mapping"),
        ("seed: !!float x\n", "line 1: 'x' is no float"),
        ("seed: !!int x\n", "line 1: 'x' is no int"),
        ("seed: !!bool x\n", "line 1: 'x' is no bool"),
        ("seed: !!timestamp x\n", "line 1: timestamp is nothing that a recipe can hold"),
        ("seed: !!python/object/apply:os.getcwd []\n", "line 1: "),
        ("seed: !!binary aGk=\n", "line 1: binary is nothing that a recipe can hold"),
        ("rewards: !!set {a}\n", "line 1: set is nothing that a recipe can hold"),
        ("seed: " + "9" * 5000, "line 1: a number of 5,000 digits"),
        ("seed: 0x" + "f" * 5000, "line 1: a number of 5,002 digits"),
        ("seed: 1e400\n" + SMALL, "seed: Input should be a finite number"),
        ("seed: 2024-99-99\n" + SMALL, "seed: Input should be a valid integer"),
        ("a: " + "[" * 100_000, "more than 32 deep in each other"),
        ("a: " + "[" * 40 + "]" * 40, "line 1: more than 32 lists or mappings in each other"),
        ("a: " + "{a: " * 40 + "1" + "}" * 40, "line 1: more than 32 lists or mappings in each other"),
        (LAUGHS, "more than 20,000 values, aliases counted each time"),
        ("a: &a [*a]\n", "more than 32 lists or mappings in each other"),
        ("a: &a {<<: *a}\n", "more than 32 lists or mappings in each other"),
        ("a: &a {<<: 3}\n", "<< wants a mapping"),
        ("a: *b\n", "undefined alias"),
        ("a: 1\n---\nb: 2\n", "expected a single document"),
        ("# " + "x" * 300_000, "it has 300,002 characters"),
        ("a: \x01\n", "unacceptable character"),
        ("\ta: 1\n", "found character"),
        (b"\xff\xfea\x00", "utf-8"),
        (b"name: caf\xe9\n", "utf-8"),
        ('name: "a\\0b"\n' + SMALL, "name holds a control character"),
        ('model: {path: "a\\ud800b"}\n' + SMALL, "model.path holds a control character or half a character"),
        ('"a\\x1bb": 1\n' + SMALL, "a key holds a control character"),
        ('model: {path: "a\\nb"}\n' + SMALL, "model.path: it is one line without control characters"),
        ('model: {path: ""}\n' + SMALL, "model.path: String should have at least 1 character"),
        ("train:\n" + SMALL, "train has no keys: give some, or leave it out"),
        ("train: 5\n" + SMALL, "train is a section of keys, not a value (got 5)"),
        ("name: no\n" + SMALL, "name is a text, which YAML takes for true or false (False): write"),
        ("name: 7\n" + SMALL, "name is a text, which YAML takes for a number (7): write it in quotes"),
        (SMALL.replace("pictures.ocr", "on"), "rewards.ocr.reward is a text, which YAML takes"),
        ("train: [5]\n" + SMALL, "train is a section of keys, not a value (got [5])"),
        ("rewards: [ocr]\n", "rewards: Input should be a valid dictionary"),
        ("rewards: {ocr: ocr}\n", "rewards.ocr is a section of keys, not a value (got 'ocr')"),
        ("rounds: yes\n" + SMALL, "rounds: it is a number, not true"),
        ("train: {learning_rate: on}\n" + SMALL, "train.learning_rate: it is a number, not true"),
        (f"name: {'n' * 300}\n" + SMALL, "name: String should have at most 100 characters"),
        (SMALL.replace("  ocr", f"  {'n' * 300}"), "String should have at most 100 characters"),
        (SMALL.replace("a.txt", "n" * 300), "rewards.ocr.prompts: no file can have a name of 300 bytes"),
        (SMALL.replace("a.txt", "é" * 130), "no file can have a name of 260 bytes"),
        (SMALL.replace("a.txt", "/n" * 2100), "no file can have a name"),
        (SMALL.replace("b.txt", "b.txt, options: {name: 1}"), "no option of a reward can be called name"),
        (SMALL.replace("b.txt", "b.txt, options: {x: {y: .nan}}"), "options: x.y is nan; numbers are finite"),
        (SMALL.replace("b.txt", "b.txt, options: {x: 99999999999999999999}"), "x is a number beyond 64 bits"),
        ("lora: {targets: ['']}\n" + SMALL, "lora.targets.0: String should have at least 1 character"),
        ("lora: {targets: []}\n" + SMALL, "lora.targets: Tuple should have at least 1 item"),
        ("reduce: {method: search, options: {divisions: 101}}\n" + SMALL, "divisions 101 cannot be used"),
    ],
)  # fmt: skip
def test_what_no_recipe_can_mean_is_one_line(tmp_path: Path, text: str | bytes, told: str) -> None:
    assert told in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("a=b=c", "unknown key a; known: name"),
        ("=x", "--set wants key=value, not '=x'"),
        ("train..epochs=3", "--set wants key=value, not 'train..epochs=3'"),
        ("train=5", "train is a section of keys, not a value (got 5)"),
        ("rewards.ocr=null", "rewards.ocr has no keys: give some, or leave it out"),
        ("train={epochs: 1, epochs: 2}", "the value is not YAML: line 1: the key epochs is there already"),
        ("seed=" + "9" * 5000, "line 1: a number of 5,000 digits"),
        ("seed=2024-99-99", "seed: Input should be a valid integer"),
        ("name=!!float x", "the value is not YAML: line 1: 'x' is no float"),
        ("name=a\nb: 2", "the value is not YAML"),
        ("na\x00me=a", "a key holds a control character or half a character: 'na\\x00me'"),
        ("name=\udcff", "the value is not YAML"),
        ("seed=" + "[" * 100_000, "more than 32 deep"),
    ],
)
def test_a_set_is_read_with_the_same_care(tmp_path: Path, item: str, told: str) -> None:
    assert told in refusal(tmp_path, SMALL, item)


@pytest.mark.parametrize(
    "item",
    [
        "rounds=1000000000", "evaluate.lattice=100000", "train.epochs=1000000000000",
        "model.steps=1000000000", "evaluate.samples=100000000000", "evaluate.prompts=1000000000000",
        "model.height=100000000",
        "model.width=100000000", "train.prompts_per_epoch=1000000000", "train.group_size=1000000000",
        "lora.rank=1000000000", "lora.alpha=1e300", "train.learning_rate=1e300", "objective.kl=1e300",
        "objective.times=1000000000", "tokens={steps: 1000000000000}", "executor.workers=1000000000",
        "executor.threads=1000000000", "executor.reward_timeout=1e300", "rewards.ocr.weight=1e308",
        "rewards.ocr.epochs=100000000", "train.micro_batch=1000000000000", "evaluate.batch_size=10000000000",
        "train.keep=1000000000000", "seed=99999999999999999999", "reduce.final_rank=100000000000",
        "tokens={options: {samples: 1000000000000}}",
    ],
)  # fmt: skip
def test_a_size_that_no_run_has_is_refused_at_once(tmp_path: Path, item: str) -> None:
    start = time.process_time()
    line = refusal(tmp_path, SMALL, item)
    assert item.partition("=")[0].split(".")[-1] in line
    assert "less than" in line or "at most" in line or "keep is more than" in line
    assert time.process_time() - start < 30


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ({"rewards": {f"r{i}": REWARD for i in range(1000)}}, "rewards has 1000: 32 are the most"),
        (
            {"rewards": {f"r{i}": REWARD for i in range(5)}, "evaluate": {"lattice": 20}},
            "evaluate.lattice: 20 divisions for 5 weights are 10,626 models to measure",
        ),
        (
            {"rewards": {f"r{i}": REWARD for i in range(9)}, "reduce": {"method": "search"}},
            None,  # 4 divisions: 495 candidates
        ),
        (
            {"rewards": {f"r{i}": REWARD for i in range(20)}, "reduce": {"method": "search"}},
            "reduce.options.divisions: 4 divisions for 20 weights are 8,855 models to measure",
        ),
        (
            {"rewards": {"ocr": REWARD}, "rounds": 100, "train": {"epochs": 2000}},
            "make 200,000 epochs; a run has at most 100,000",
        ),
        (
            {"rewards": {"ocr": REWARD}, "train": {"prompts_per_epoch": 10_000, "group_size": 1000}},
            "train: prompts_per_epoch x group_size are 10,000,000 samples",
        ),
    ],
)
def test_sizes_that_multiply(recipe: dict[str, Any], told: str | None) -> None:
    if told is None:
        assert len(parse_config(recipe, "x").rewards) == 9
        return
    with pytest.raises(ParetuneError) as caught:
        parse_config(recipe, "x")
    assert told in str(caught.value)


def test_the_largest_plan_is_made_in_seconds() -> None:
    rewards = {f"r{i}": REWARD for i in range(32)}
    methods = ["mapreduce", "rewarded_soup", "morl_d", "morl_dr", "sequential", "selma"]
    largest = {"rewards": rewards, "rounds": 128, "train": {"epochs": 24}, "methods": methods}
    start = time.process_time()
    plan = build_plan(parse_config(largest, "x"))
    assert len(plan.to_json()["methods"]) == 6
    assert time.process_time() - start < 30


def test_what_other_editors_write_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + f"name: caf\nseed: 3\n{SMALL}".replace("\n", "\r\n").encode())
    assert (load_config(path).name, load_config(path).seed) == ("caf", 3)


def test_anchors_and_merges_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "rewards:\n  ocr: &one {reward: pictures.ocr, prompts: a.txt, eval_prompts: b.txt, weight: 2}\n"
        "  other: {<<: *one, weight: 3}\n  third: {<<: [{weight: 5}, *one]}\n"
    )
    rewards = load_config(path).rewards
    assert [(own.weight, own.prompts) for own in rewards.values()] == [
        (2, "a.txt"), (3, "a.txt"), (5, "a.txt")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1.5e-3", 1.5e-3), ("-.5", -0.5), ("1E3", 1000.0), ("0x10", 16), ("1_000", 1000),
        ("-7", -7), ("0b101", 5), ("007", "007"), ("12:30", "12:30"), ("2024-01-01", "2024-01-01"),
        ("~", None), ("off", False), ("'off'", "off"), ("1.", 1.0), ("-0.0", -0.0), (".", "."),
        ("1e", "1e"), ("", None),
    ],
)  # fmt: skip
def test_plain_words_are_what_they_look_like(text: str, value: Any) -> None:
    assert load_yaml(text) == value
    assert type(load_yaml(text)) is type(value)


@pytest.mark.parametrize(
    "text", ["1e-4", "1e5", "12:30", "2024-01-01", "no", "null", "~", "<<", "=", "007", "0o7", "1_0", "", "é"]
)
def test_a_text_comes_back_as_it_was(text: str) -> None:
    written = dump_yaml({"a": text, text: 1})
    assert load_yaml(written) == {"a": text, text: 1}
    assert yaml.safe_load(written) == {"a": text, text: 1}  # and for those who read it with PyYAML


def test_every_shipped_recipe_is_read_as_pyyaml_reads_it() -> None:
    for name in ("quickstart", "smoke", "sd35-medium", "assistant", "clips", "llama2-7b"):
        text = find_recipe(name).read_text()
        assert load_yaml(text) == yaml.safe_load(text)


def test_a_mistake_in_a_text_is_one_of_ours() -> None:
    with pytest.raises(YamlMistake, match="it has 262,145 characters"):
        load_yaml(" " * (256 * 1024 + 1))
    with pytest.raises(ParetuneError, match="no recipe can be at"):
        find_recipe("n" * 300)


@pytest.mark.parametrize(
    ("odd", "line"),
    [
        ({"\n": {0: None}}, r"fuzz: '\n': the key 0 is not a text"),
        ({"a\nb": {"c": "\b"}}, r"fuzz: 'a\nb'.c holds a control character or half a character: '\x08'"),
        ({"rewards": {"ocr": {"reward": "x", "prompts": "p", "eval_prompts": "p", "options": {"\n": 2**70}}}},
         r"fuzz: rewards.ocr.options: '\n' is a number beyond 64 bits"),
        ({"k" * 500: {0: None}}, f"fuzz: '{'k' * 99}..: the key 0 is not a text"),
    ],
)  # fmt: skip
def test_a_key_leaves_its_message_one_line(odd: dict[str, Any], line: str) -> None:
    with pytest.raises(ParetuneError) as caught:
        parse_config({"rewards": {}, **odd}, "fuzz")
    assert str(caught.value) == line
