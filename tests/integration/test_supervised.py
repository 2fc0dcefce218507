"""`paretune sft`: what it refuses before it trains, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paretune.recipes import load_config
from paretune.training.language.supervised import supervise
from paretune.types import ParetuneError
from tests.language import language_recipe, make_gpt2

from .commands import call


def _recipe(folder: Path, model: Path, *records: dict[str, object], **changes: Any) -> Path:
    """A recipe whose only reward has the records."""
    path = language_recipe(folder, model, **changes)
    file = folder / "records.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    config = load_config(path, [f"rewards.yes.prompts={file}"])
    config = config.model_copy(update={"rewards": {"yes": config.rewards["yes"]}})
    made = folder / "made.yaml"
    made.write_text(config.to_yaml())
    return made


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_answer_beyond_the_context_is_one_line(tiny_llama: Path, tmp_path: Path, kind: str) -> None:
    model = tiny_llama if kind == "llama" else make_gpt2(tmp_path / "gpt2")
    good, long = {"prompt": "fix", "chosen": "yes"}, {"prompt": "tell me", "chosen": " yes" * 40}
    changes = {} if kind == "llama" else {"lora": {"targets": ["c_attn"]}}
    path = _recipe(tmp_path / "own", model, good, long, **changes)
    with pytest.raises(ParetuneError, match=r"'tell me' and its longest answer have 43 tokens.*holds 32"):
        supervise(load_config(path), tmp_path / "sft")
    assert not (tmp_path / "sft").exists()


def test_an_answer_is_a_text(tiny_llama: Path, tmp_path: Path) -> None:
    path = _recipe(tmp_path, tiny_llama, {"prompt": "fix", "chosen": "yes"}, {"prompt": "me", "chosen": 3})
    with pytest.raises(ParetuneError, match="the prompt 'me': \"chosen\" is the text of an answer, not 3"):
        supervise(load_config(path), tmp_path / "sft")


def test_json_is_all_of_the_standard_output_and_quiet_is_quiet(tiny_llama: Path, tmp_path: Path) -> None:
    path = _recipe(tmp_path, tiny_llama, *({"prompt": "fix", "chosen": " yes"} for _ in range(4)))
    done = call("sft", path, "--out", tmp_path / "sft", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"model": str(tmp_path / "sft"), "answers": 4}
    assert done.stderr == ""


def test_single_steps_are_no_answers(tiny_llama: Path, tmp_path: Path) -> None:
    step = {"prompt": "me", "prefix": " the table", "chosen": "yes", "rejected": "no"}
    path = _recipe(tmp_path, tiny_llama, {"prompt": "fix", "chosen": "yes"}, step)
    with pytest.raises(ParetuneError, match=r"the prompt 'me' has a .prefix..*list_dpo takes such records"):
        supervise(load_config(path), tmp_path / "sft")
