"""Public reward models of answers: what tiny models of the same classes give by hand, and unfit ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from paretune.rewards.base import RewardError, load_reward, score_samples
from paretune.rewards.text import armo
from paretune.rewards.text.armo import ATTRIBUTES, ArmoRM, last_place
from paretune.rewards.text.guard import Guard
from paretune.types import ParetuneError, Prompt
from tests.language import make_gpt2_reward, make_llama, make_tokenizer

PROMPTS = [Prompt("how do i clean"), Prompt("fix the table")]
ANSWERS = ["yes soap", "no maybe a cloth"]
MARKS = ["<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
WORDS = ("user", "assistant", "safe", "unsafe", "how", "do", "i", "clean", "fix", "the", "table", "yes", "no")
TEMPLATE = (  # Llama 3's
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] }}"
    "<|eot_id|>{% endfor %}"
)
BEGIN = "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"


def _chatty() -> Any:
    tokenizer = make_tokenizer(words=WORDS)
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    tokenizer.chat_template = TEMPLATE + BEGIN
    return tokenizer


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random ArmoRM, whose config.json names code of its own as the published one does."""
    from transformers import LlamaConfig

    folder = tmp_path_factory.mktemp("armo")
    tokenizer = _chatty()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.5,
        num_objectives=19, gating_hidden_dim=8, gating_n_hidden=3, gating_temperature=10,
        pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    network = armo._network()(config)
    with torch.no_grad():
        network.reward_transform_matrix.copy_(torch.randn(19, 19))
        network.gating.logit_scale.fill_(1.5)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    code = "modeling_custom.LlamaForRewardModelWithGating"
    written["auto_map"] = {"AutoModelForSequenceClassification": code}
    (folder / "config.json").write_text(json.dumps(written))
    return folder


def test_armorm_is_the_gated_sum_of_its_values(gated: Path) -> None:
    """The formula by hand, on the tensors' published names (stage-2_train.py and the model card)."""
    from transformers import AutoTokenizer, LlamaModel

    tensors = load_file(gated / "model.safetensors")
    assert {name for name in tensors if not name.startswith("model.")} == {
        "regression_layer.weight", "reward_transform_matrix", "gating.logit_scale",
        *(f"gating.layers.{i}.{kind}" for i in range(4) for kind in ("weight", "bias")),
    }  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(gated)
    turns = [{"role": "user", "content": PROMPTS[0].text}, {"role": "assistant", "content": ANSWERS[0]}]
    ids = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), return_tensors="pt").input_ids
    network = LlamaModel.from_pretrained(gated).eval()
    with torch.no_grad():
        states = network(ids).last_hidden_state[0]
    values = tensors["regression_layer.weight"] @ states[-1]
    # The gate sees the end of the user's turn, before the assistant's header.
    x = states[ids[0].tolist().index(tokenizer.convert_tokens_to_ids("<|eot_id|>"))]
    for i in range(3):
        x = torch.relu(tensors[f"gating.layers.{i}.weight"] @ x + tensors[f"gating.layers.{i}.bias"])
    x = torch.softmax((tensors["gating.layers.3.weight"] @ x + tensors["gating.layers.3.bias"]) / 10, 0) * 1.5
    score = (x * (values @ tensors["reward_transform_matrix"])).sum()

    def told(head: str) -> float:
        reward = load_reward("armorm", head=head, model=str(gated), dtype="float32", device="cpu")
        return float(score_samples(reward, ANSWERS, PROMPTS)[0])

    assert told("score") == pytest.approx(float(score), abs=1e-4)
    for i in (0, 10, 18):
        assert told(ATTRIBUTES[i]) == pytest.approx(float(values[i]), abs=1e-4)


def test_armorm_scores_an_answer_once_for_all_heads(gated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    own = ArmoRM.score

    def counted(self: ArmoRM, samples: list[str], prompts: list[Prompt]) -> dict[str, torch.Tensor]:
        seen.append(len(samples))
        return own(self, samples, prompts)

    monkeypatch.setattr(ArmoRM, "score", counted)
    for head in ("score", "beavertails-is_safe", "helpsteer-verbosity"):
        reward = load_reward("armorm", head=head, model=str(gated), dtype="float32", max_length=63)
        reward.score(ANSWERS, PROMPTS)
    assert seen == [2]


def test_armorm_names_its_heads_and_its_limit(gated: Path) -> None:
    with pytest.raises(ParetuneError, match="armorm has no head 'safe'; its heads: score, helpsteer-helpful"):
        load_reward("armorm", head="safe")
    short = load_reward("armorm", model=str(gated), dtype="float32", max_length=4)
    with pytest.raises(RewardError, match="more than 4 tokens"):
        score_samples(short, ANSWERS[:1], PROMPTS[:1])
    assert [last_place([1, 2, 1, 2, 3], row) for row in ([1, 2], [2, 3], [3, 1])] == [2, 3, None]


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guard")
    make_llama(folder, words=(*WORDS, *MARKS))
    _chatty().save_pretrained(folder)
    return folder


def test_a_guard_gives_the_probability_of_safe(guard: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    scores = score_samples(load_reward("guard", model=str(guard), dtype="float32"), ANSWERS, PROMPTS)
    tokenizer = AutoTokenizer.from_pretrained(guard)
    turns = [{"role": "user", "content": PROMPTS[0].text}, {"role": "assistant", "content": ANSWERS[0]}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    with torch.no_grad():
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        logits = AutoModelForCausalLM.from_pretrained(guard).eval()(ids).logits[0, -1]
    safe, unsafe = (logits[tokenizer.convert_tokens_to_ids(word)].exp() for word in ("safe", "unsafe"))
    assert scores[0].item() == pytest.approx(float(safe / (safe + unsafe)), abs=1e-5)


def test_a_guard_reads_past_the_line_ends_before_its_verdict(guard: Path) -> None:
    """Llama Guard 3 answers "\\n\\nsafe": white space is taken as it comes, then the verdict is read."""
    reward = Guard(str(guard), dtype="float32")
    space, safe, unsafe = 19, *reward._verdicts

    class Model:
        device = "cpu"

        def __call__(self, input_ids: torch.Tensor) -> object:
            logits = torch.zeros(1, input_ids.shape[1], 20)
            last = int(input_ids[0, -1])
            logits[0, -1, safe if last == space else space] = 5.0
            logits[0, -1, unsafe] = 1.0
            return type("Output", (), {"logits": logits})

    class Tokenizer:
        def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
            return {"input_ids": [1, 2]}

        def decode(self, ids: list[int]) -> str:
            return "\n\n" if ids == [space] else "word"

    reward._model, reward._tokenizer = Model(), Tokenizer()  # type: ignore[assignment]
    expected = torch.tensor([5.0, 1.0]).softmax(0)[0]
    assert reward._safe("anything") == pytest.approx(float(expected))


def test_a_guard_without_a_template_or_verdicts_is_refused(tmp_path: Path) -> None:
    make_llama(tmp_path)
    with pytest.raises(ParetuneError, match="no chat template"):
        load_reward("guard", model=str(tmp_path))
    tokenizer = make_tokenizer()  # both words are unknown to it
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ParetuneError, match="begin alike"):
        load_reward("guard", model=str(tmp_path))


def test_skywork_is_a_classifier_with_its_own_template(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    make_gpt2_reward(tmp_path)
    tokenizer = make_tokenizer(chat=True)
    tokenizer.save_pretrained(tmp_path)
    scores = score_samples(load_reward("skywork", model=str(tmp_path), dtype="float32"), ANSWERS, PROMPTS)
    turns = [{"role": "user", "content": PROMPTS[1].text}, {"role": "assistant", "content": ANSWERS[1]}]
    text = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(turns, tokenize=False)
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = network(**tokenizer(text, return_tensors="pt")).logits[0, 0]
    assert scores[1].item() == pytest.approx(float(expected), abs=1e-5)
