"""A language model's own steps are timed for every loss, with the recipe's records or made ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paretune.files import write_rows
from paretune.planning.measured_answers import time_answers
from paretune.recipes import load_config
from tests.language import language_recipe


@pytest.mark.parametrize("name", ["adpo_text", "tree_tpo"])
def test_records_with_scores_of_several_rewards(tiny_llama: Path, tmp_path: Path, name: str) -> None:
    """An expert trains on the scores of its own reward, and so does what is timed."""
    path = language_recipe(tmp_path, tiny_llama, objective={"name": name})
    scores = {"one": {"yes": 1, "no": 0}, "two": {"yes": 0, "no": 1}}
    answers = [{"text": text, "scores": own} for text, own in scores.items()]
    write_rows(tmp_path / "lists.jsonl", [{"prompt": "fix the table", "answers": answers} for _ in range(2)])
    config = load_config(path, [f"rewards.{r}.prompts={tmp_path / 'lists.jsonl'}" for r in ("yes", "no")])
    count, seconds = time_answers(config, "cpu")
    assert (count, seconds > 0) == (2, True)


LOSSES = ("dpo", "list_dpo", "adpo_text", "madpo_text", "sem_dpo_text", "triple_tpo")
NAMED = {"name": "madpo_text", "options": {"score": "no"}}


@pytest.mark.parametrize("objective", [*({"name": name} for name in LOSSES), NAMED], ids=str)
def test_records_of_the_hub_are_not_downloaded_for_it(
    tiny_llama: Path, tmp_path: Path, objective: dict[str, Any]
) -> None:
    path = language_recipe(tmp_path, tiny_llama, objective=objective)
    config = load_config(path, [f"rewards.{r}.prompts=hf:nobody/nothing@train" for r in ("yes", "no")])
    config = config.model_copy(
        update={"model": config.model.model_copy(update={"options": {"max_tokens": 6, "prompt_tokens": 8}})}
    )
    assert time_answers(config, "cpu")[0] == 2
