"""The space that a chat template writes before an answer: the same tokens, however the answer came."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paretune.config import ModelConfig
from paretune.data.prompts import load_prompts
from paretune.models.causal_lm.answer_ids import as_drawn, as_message, ending_ids
from paretune.models.causal_lm.given_answers import given_answer
from paretune.models.causal_lm.policy import CausalLMPolicy
from paretune.planning.plan import ExpertTask
from paretune.recipes import find_recipe, load_config
from paretune.training.language.supervised import _rows
from paretune.training.language.trainer import LanguageTrainer
from paretune.training.mixture import Mixture, PromptSet

ASKED, SAID = "How do I clean the window?", "1. spray soap on the window."
SPACES = ("", " ")


@pytest.fixture(scope="module")
def policy() -> CausalLMPolicy:
    return CausalLMPolicy(ModelConfig.model_validate({"path": "assistant", "options": {"max_tokens": 40}}))


def test_the_space_belongs_to_a_drawn_answer_and_not_to_a_message(policy: CausalLMPolicy) -> None:
    """The template of the embedded assistant is "<assistant> ANSWER</s>"; drawn ones follow "<assistant>"."""
    assert as_drawn(policy, [SAID]) == as_drawn(policy, [" " + SAID]) == [" " + SAID]
    assert as_drawn(policy, ["1.", " spray"]) == [" 1.", " spray"]
    assert as_drawn(policy, [""]) == [""]
    assert as_message(policy, " " + SAID) == as_message(policy, SAID) == SAID
    assert policy.tokenizer.decode(ending_ids(policy)) == "</s>"


def test_a_template_without_a_space_changes_nothing(tmp_path: Path) -> None:
    from tests.language import make_llama

    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
    model = make_llama(tmp_path / "m", chat=True)
    own = CausalLMPolicy(ModelConfig.model_validate({"path": str(model)}))
    own.tokenizer.chat_template = template + "{% if add_generation_prompt %}[assistant]{% endif %}"
    for answer in ("yes", " yes"):
        assert as_drawn(own, [answer]) == [answer]
        assert as_message(own, answer) == answer
    own.tokenizer.chat_template = template + "{% if add_generation_prompt %}[assistant]{% endif %}".replace(
        "[assistant]{%", "[assistant]<think>{%"
    )
    assert as_drawn(own, ["yes"]) == ["yes"]  # the template itself writes no such word: unknown


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("objective", ["dpo", "kto", "cpo", "simpo", "orpo", "list_dpo"])
def test_all_trainers_train_the_tokens_that_the_model_draws(
    policy: CausalLMPolicy, tmp_path: Path, objective: str, space: str
) -> None:
    before = policy.text_ids(policy.render([ASKED]))[0]
    drawn = [*before, *policy.tokenizer(" " + SAID, add_special_tokens=False)["input_ids"],
             policy.tokenizer.eos_token_id]  # fmt: skip
    given = given_answer(policy, ASKED, [space + SAID])
    assert [*given.before, *given.own] == drawn
    row = _trained_row(tmp_path, objective, space)
    if objective == "list_dpo":
        assert list(row["ids"][0]) == drawn
        return
    answer = {"dpo": "chosen_ids", "kto": "completion_ids"}.get(objective, "chosen_input_ids")
    whole = row[answer] if objective in {"cpo", "simpo", "orpo"} else [*row["prompt_ids"], *row[answer]]
    assert list(whole) == drawn


@pytest.mark.parametrize("space", SPACES)
def test_supervised_rows_hold_messages(policy: CausalLMPolicy, tmp_path: Path, space: str) -> None:
    rows = _rows(_config(tmp_path, "list_dpo", space), policy, 0, "chosen")
    assert [row["completion"] for row in rows] == [[{"role": "assistant", "content": SAID}]] * 2


def _config(folder: Path, objective: str, space: str) -> Any:
    file = folder / "pairs.jsonl"
    record = {"prompt": ASKED, "chosen": space + SAID, "rejected": space + "No."}
    file.write_text(json.dumps(record) + "\n")
    return load_config(
        find_recipe("assistant"),
        ["map.lean=0", f"objective={json.dumps({'name': objective})}", "train.prompts_per_epoch=1",
         "train.updates_per_epoch=1", "train.epochs=1", f"rewards.helpful.prompts={file}",
         f"rewards.harmless.prompts={file}"],
    )  # fmt: skip


def _trained_row(folder: Path, objective: str, space: str) -> Any:
    config = _config(folder, objective, space)
    prompts = load_prompts(config.rewards["helpful"].prompts)
    mixture = Mixture([PromptSet(_Silent(), list(prompts))])
    task = ExpertTask(folder="helpful", rewards=("helpful",), round=1, seed=0, epochs=1)
    trainer = LanguageTrainer(config, task, folder, mixture, None, "cpu")
    trainer.resume("", None)
    made: list[Any] = []
    build = trainer._trainer
    trainer._trainer = lambda *given: made.append(build(*given)) or made[0]  # type: ignore[method-assign]
    trainer.run(lambda event: None, lambda: False)
    return made[0].train_dataset[0]


class _Silent:
    """No pair is scored."""

    name, range, higher_is_better = "helpful", (0.0, 1.0), True

    def score(self, samples: Any, prompts: Any) -> Any:
        raise AssertionError(samples)
