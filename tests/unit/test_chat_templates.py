"""Chat templates: the tokens of a rendered prompt are transformers' own, and no template holds a run up."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.config import ModelConfig
from paretune.foreign import chat
from paretune.foreign.chat import render_chats
from paretune.models.causal_lm.policy import CausalLMPolicy
from paretune.recipes import load_config
from paretune.rewards.base import score_samples
from paretune.rewards.text.reward_models import TextModelReward
from paretune.training.objectives.preferences import DPO
from paretune.types import Dialogue, ParetuneError, Prompt, turns_of
from tests.language import WORDS, language_recipe, make_gpt2_reward, make_llama, make_tokenizer

USER = [{"role": "user", "content": "fix"}]
TEMPLATE = (
    "<s>{% for m in messages %}{% if m.role == 'user' %} {{ m.content }} please"
    "{% else %} {{ m.content }} <eot>{% endif %}{% endfor %}"
)


def with_start(tokenizer: Any, template: str = TEMPLATE) -> Any:
    """The tokenizer, which now adds <s> to every text, with a template that says it as well."""
    from tokenizers import processors

    tokenizer.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": ["<eot>"]})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[attr-defined]
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = template
    return tokenizer


def started_llama(folder: Path, template: str = TEMPLATE) -> Path:
    """A tiny chat model whose tokenizer adds <s>, and whose turns end in <eot>."""
    make_llama(folder, words=(*WORDS, "<s>", "<eot>"))
    with_start(make_tokenizer(words=(*WORDS, "<s>", "<eot>")), template).save_pretrained(folder)
    return folder


def _config(place: Path, **options: Any) -> ModelConfig:
    return ModelConfig.model_validate({"path": str(place), "options": {"max_tokens": 6, **options}})


@pytest.mark.parametrize("start", ["<s>", ""])
def test_a_prompt_has_the_tokens_of_the_template(tmp_path: Path, start: str) -> None:
    """Also where the template leaves the first token out: then so does the prompt."""
    place = started_llama(tmp_path / "m", TEMPLATE.replace("<s>", start))
    policy = CausalLMPolicy(_config(place))
    asked = policy.tokenizer.apply_chat_template(USER, tokenize=True, add_generation_prompt=True)["input_ids"]
    assert policy.prompt_ids(["fix"], ()) == [asked]
    assert policy.text_ids(policy.render(["fix"])) == [asked]
    seen: list[Any] = []
    policy._generate = lambda start: seen.append(start) or torch.zeros(1, 1, dtype=torch.long)
    policy.answer(["fix"], 0, 1)
    assert seen[0]["input_ids"].tolist() == [asked]
    names = policy.tokenizer.convert_ids_to_tokens(asked)
    assert names == [*([start] if start else []), "fix", "please"]


def test_a_plain_prompt_has_the_first_token_that_its_tokenizer_adds(tmp_path: Path) -> None:
    place = started_llama(tmp_path / "m")
    policy = CausalLMPolicy(_config(place, template="plain"))
    assert policy.tokenizer.convert_ids_to_tokens(policy.prompt_ids(["fix"], ())[0]) == ["<s>", "fix"]


def test_a_reward_model_scores_the_tokens_of_its_template(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

    torch.manual_seed(1)
    tokenizer = with_start(make_tokenizer(words=(*WORDS, "<s>", "<eot>")))
    GPT2ForSequenceClassification(GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=1, n_head=2, num_labels=1,
        pad_token_id=0, eos_token_id=1, bos_token_id=None, initializer_range=0.5,
    )).save_pretrained(tmp_path)  # fmt: skip
    tokenizer.save_pretrained(tmp_path)
    turns = [*USER, {"role": "assistant", "content": "soap"}]
    ids = tokenizer.apply_chat_template(turns, tokenize=True, return_tensors="pt")["input_ids"]
    model: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    right = float(model(input_ids=ids).logits[0, 0].detach())
    reward = TextModelReward(str(tmp_path), template="chat", device="cpu")
    assert tokenizer.convert_ids_to_tokens(ids[0]) == ["<s>", "fix", "please", "soap", "<eot>"]
    assert float(reward.score(["soap"], [Prompt("fix")])[0]) == pytest.approx(right, abs=1e-6)


def test_a_reward_model_reads_the_turns_of_a_dialogue(tmp_path: Path) -> None:
    """As many turns as the prompt has, each with its role: not one of the user's that quotes them."""
    place = make_gpt2_reward(tmp_path)
    with_start(make_tokenizer(words=WORDS[:-2])).save_pretrained(place)  # <s> and <eot> take their places
    reward = TextModelReward(str(place), template="chat", device="cpu")
    talk = Dialogue([*USER, {"role": "assistant", "content": "soap"}, {"role": "user", "content": "tell"}])
    assert reward._texts([talk], ["water"]) == ["<s> fix please soap <eot> tell please water <eot>"]
    seen: list[Any] = []
    reward._texts = lambda prompts, answers: seen.extend(prompts) or ["fix"]
    score_samples(reward, ["water"], [Prompt(talk)])  # its copy of the prompt has the turns, too
    assert turns_of(seen[0]) == list(talk.turns)


@pytest.mark.parametrize("said", [10, 10**30])
def test_a_roberta_takes_what_it_has_positions_for(tmp_path: Path, said: int) -> None:
    """12 rows, two of which are never a token's: ten tokens, of which two are special."""
    from tokenizers import processors
    from transformers import RobertaConfig, RobertaForSequenceClassification

    torch.manual_seed(1)
    tokenizer: Any = make_tokenizer(words=(*WORDS, "<s>"))
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", tokenizer.bos_token_id), ("</s>", 1)]
    )
    tokenizer.model_max_length = said
    RobertaForSequenceClassification(RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_labels=1,
        num_attention_heads=2, max_position_embeddings=11, pad_token_id=0, initializer_range=0.5,
    )).save_pretrained(tmp_path)  # fmt: skip
    tokenizer.save_pretrained(tmp_path)
    reward = TextModelReward(str(tmp_path), device="cpu")
    long = float(reward.score([" soap" * 30], [Prompt("fix " * 30)])[0])
    cut = float(reward.score([" soap" * 8], [Prompt("")])[0])
    assert long == pytest.approx(cut, abs=1e-6)
    soap = WORDS.index("soap") + 3
    assert reward._encode("fix " * 30 + "soap " * 8) == [tokenizer.bos_token_id, *[soap] * 8, 1]


ENDLESS = {
    "{% for a in range(90000) %}{% for b in range(90000) %}{% for c in range(90000) %}"
    "{% endfor %}{% endfor %}{% endfor %}": "does not end within",
    "{{ 10 ** (10 ** 9) }}": "does not end within|fails",
    "{{ 'a' * 20000000000 }}": "fails: it writes more than memory holds",
    "{{ 'a' * 20000000 }}": "fails: it writes more than 10000000 characters",
    "{% for a in range(90000) %}{{ 'a' * 100000 }}{% endfor %}": "does not end within|fails: it writes",
    "{% for a in range(10**9) %}x{% endfor %}": "fails: Range too big",
    "{% for a in messages %}": "fails: Unexpected end of template",
    "{{ messages[0].nothing.more }}": "fails: .*no attribute 'nothing'",
    "{{ raise_exception('only\ntwo') }}": "fails: only two",
}


@pytest.mark.parametrize("template", ENDLESS)
def test_a_template_without_end_is_one_line(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "MEMORY", 1 << 28)  # less than any machine has
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    start = time.monotonic()
    endless = "does not end" in ENDLESS[template]  # the others fail by themselves, on a busy machine late
    with pytest.raises(ParetuneError, match=f"^model m: its chat template ({ENDLESS[template]})") as told:
        render_chats(tokenizer, [USER], "model m", seconds=1.0 if endless else 60.0)
    assert "\n" not in str(told.value)
    assert time.monotonic() - start < 60


def test_a_text_is_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that holds a model is slow to fork: 1,076 forks took half of a benchmark's time."""
    forks, fork = [0], os.fork

    def counted() -> int:
        forks[0] += 1
        return fork()

    monkeypatch.setattr(os, "fork", counted)
    tokenizer = with_start(make_tokenizer(words=(*WORDS, "<s>", "<eot>")))
    soap = [{"role": "user", "content": "soap"}]
    fix_text, soap_text = "<s> fix please", "<s> soap please"
    assert render_chats(tokenizer, [USER, soap, USER], "m") == [fix_text, soap_text, fix_text]
    assert render_chats(tokenizer, [soap, USER], "m") == [soap_text, fix_text]
    assert forks[0] == 1
    asks = "{% if add_generation_prompt %}:{% endif %}"
    tokenizer.chat_template = "{{ bos_token }}{{ messages[0].content }}" + asks
    assert render_chats(tokenizer, [USER], "m") == ["<s>fix"]
    assert render_chats(tokenizer, [USER], "m", prompt=True) == ["<s>fix:"]
    tokenizer.bos_token = "<eot>"
    assert render_chats(tokenizer, [USER], "m") == ["<eot>fix"]
    assert forks[0] == 4
    monkeypatch.setattr(chat, "KEPT", 9)
    assert render_chats(tokenizer, [USER, soap], "m") == ["<eot>fix", "<eot>soap"]
    assert list(chat._kept[tokenizer].values()) == ["<eot>soap"]  # the earlier texts made room


def test_a_broken_template_of_a_model_is_one_line(tmp_path: Path) -> None:
    policy = CausalLMPolicy(_config(started_llama(tmp_path / "m", "{% for m in %}")))
    with pytest.raises(ParetuneError, match=r"^model\.path: .*its chat template fails"):
        policy.render(["fix"])


OBJECTIVES = ("dpo", "cpo", "orpo", "kto")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_pairs_end_as_conversations_do(tmp_path: Path, objective: str) -> None:
    """The tokens that are trained on are those that TRL makes of conversational rows."""
    pytest.importorskip("trl")
    from datasets import Dataset
    place = started_llama(tmp_path / "m")
    trained, made = _trainer(tmp_path, place, objective)
    user, soap, water = (
        [{"role": role, "content": text}] for role, text in
        (("user", "fix"), ("assistant", "soap"), ("assistant", "water"))
    )  # fmt: skip
    rows = [{"prompt": user, "chosen": soap, "rejected": water}]
    if objective == "kto":
        rows = [{"prompt": user, "completion": soap, "label": True},
                {"prompt": user, "completion": water, "label": False}]  # fmt: skip
    theirs = made(Dataset.from_list(rows))
    columns = [c for c in theirs.column_names if c.endswith(("_ids", "input_ids"))]
    assert columns
    for column in columns:
        for ours, right in zip(trained[column], theirs[column], strict=False):
            assert list(ours) == list(right)
    answer = {"kto": "completion_ids", "dpo": "chosen_ids"}.get(objective, "chosen_input_ids")
    tokens = make_tokenizer(words=(*WORDS, "<s>", "<eot>")).convert_ids_to_tokens(trained[answer][0])
    assert tokens[tokens.index("soap") :][:2] == ["soap", "<eot>"]


def _trainer(folder: Path, place: Path, objective: str) -> tuple[Any, Any]:
    """The rows that our trainer gives TRL, tokenised by it, and how TRL tokenises other rows."""
    from peft import LoraConfig

    from paretune.data.prompts import load_prompts
    from paretune.models.loading import open_policy
    from paretune.planning.plan import ExpertTask
    from paretune.training.language.settings import trl_classes, trl_objective
    from paretune.training.language.trainer import LanguageTrainer
    from paretune.training.mixture import Mixture, PromptSet

    recipe = language_recipe(folder / "recipe", place, objective={"name": objective})
    pairs = folder / "recipe" / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": "fix", "chosen": "soap", "rejected": "water"}) + "\n")
    config = load_config(recipe, [f"rewards.yes.prompts={pairs}", "train.prompts_per_epoch=2",
                                  "train.updates_per_epoch=1"])  # fmt: skip
    reward: Any = type("R", (), {"name": "yes", "range": (0.0, 1.0), "higher_is_better": True})()
    mixture = Mixture([PromptSet(reward, load_prompts(str(pairs)), 1.0, 0.1)], "own")
    task = ExpertTask("expert", ("yes",), 1, 0, 1)
    ours = LanguageTrainer(config, task, folder / "out", mixture, None, "cpu")
    ours._batches = lambda prompts: type(LanguageTrainer._batches(ours, 2))(1, 2, 1)  # type: ignore[method-assign]
    built = ours._trainer(Any, ours._batches(2), [torch.tensor([0, 0])])  # type: ignore[arg-type]

    def made(rows: Any) -> Any:
        trainer, _ = trl_classes(trl_objective(objective))
        return trainer(
            model=open_policy(config.model).transformer, args=built.args, train_dataset=rows,
            processing_class=ours.policy.tokenizer, peft_config=LoraConfig(target_modules=["q_proj"]),
        ).train_dataset  # fmt: skip

    return built.train_dataset, made


def test_plain_prompts_stay_texts() -> None:
    prompt = Prompt("fix", {"chosen": "soap", "rejected": "water"})
    row = {"prompt": "fix", "chosen": "soap", "rejected": "water"}
    assert DPO.rows("dpo", [prompt], ["fix"], [0]) == [row]


def test_grpo_prompts_are_not_given_a_second_start(tmp_path: Path) -> None:
    from paretune.reward_tokens.language import as_written

    policy = CausalLMPolicy(_config(started_llama(tmp_path / "m")))
    text, bare = policy.render(["fix"])[0], as_written(policy.tokenizer)
    assert bare(text=[text])["input_ids"] == policy.text_ids([text])
    assert policy.tokenizer([text])["input_ids"] != policy.text_ids([text])
