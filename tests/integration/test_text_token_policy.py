"""Reward tokens in a language model: what they change, what they leave to the bit, and plain transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from paretune.config import ModelConfig
from paretune.models.causal_lm.policy import CausalLMPolicy
from paretune.reward_tokens.files import EMBEDDING, Token, read_bank, read_token, write_token
from paretune.reward_tokens.language import MARK, vectors_of, with_words
from paretune.reward_tokens.pipelines import Scaled, blends
from paretune.types import ParetuneError
from tests.language import make_llama, make_opt, make_tokenizer

PROMPTS = ["fix the table", "clean", "how do i clean the window"]
GREEDY = {"top_p": 1e-6}  # the best word alone is left to draw


def _policy(path: Path, **options: Any) -> CausalLMPolicy:
    whole = {"max_tokens": 6, **options}
    return CausalLMPolicy(ModelConfig.model_validate({"path": str(path), "options": whole}))


def _token(policy: CausalLMPolicy, name: str, vectors: int = 1, seed: int = 0) -> Token:
    token = policy.new_token(name, vectors, "", torch.Generator().manual_seed(seed))
    return Token(name, {n: v.detach() for n, v in token.vectors.items()})


def _make_gemma(folder: Path) -> Path:
    """Its embedding layer scales what its table holds."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, head_dim=8,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=32, initializer_range=0.5,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    Gemma3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def policy(tiny_llama: Path) -> CausalLMPolicy:
    return _policy(tiny_llama)


def test_no_token_is_the_same_to_the_bit_before_during_and_after(policy: CausalLMPolicy) -> None:
    ids = policy.tokenizer(PROMPTS[:1], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = policy.transformer(ids).logits
    before, words = policy.answer(PROMPTS, 3, 2), len(policy.tokenizer)
    rows = policy.transformer.get_input_embeddings().weight.clone()
    token = _token(policy, "yes", vectors=2)
    kinds = [policy.answer(PROMPTS, 3, 2, [Scaled(token, 1, s)]) for s in (0.0, 1.0)]
    assert kinds[0] == before == policy.answer(PROMPTS, 3, 2)
    assert kinds[1] != before
    with torch.no_grad():
        assert torch.equal(policy.transformer(ids).logits, logits)
        assert torch.equal(policy.logits(policy.prompt_ids(PROMPTS[:1], ()), None), logits)
    assert len(policy.tokenizer) == words
    assert torch.equal(policy.transformer.get_input_embeddings().weight, rows)


def test_a_token_stands_directly_before_the_answer(policy: CausalLMPolicy, tmp_path: Path) -> None:
    tokens = [Scaled(_token(policy, "a", vectors=2)), Scaled(_token(policy, "b", seed=1), 2)]
    fix, tell, please = policy.tokenizer("fix tell please")["input_ids"]
    assert policy.prompt_ids(["fix"], tokens) == [[fix, -1, -2, -3, -4]]
    chat = _policy(make_llama(tmp_path / "chat", chat=True))
    assert chat.prompt_ids(["fix", "tell"], tokens[:1]) == [[fix, please, -1, -2], [tell, please, -1, -2]]
    told = _policy(tmp_path / "chat", template="tell {prompt} please")
    assert told.prompt_ids(["fix"], tokens[:1]) == [[tell, fix, please, -1, -2]]
    # What stands before it is read as it is without it.
    open_end = _policy(tmp_path / "chat", template="tell {prompt}\n")
    (bare,), (with_token,) = open_end.prompt_ids(["fix "], ()), open_end.prompt_ids(["fix "], tokens[:1])
    assert with_token == [*bare, -1, -2]


def test_a_word_as_a_token_is_that_word(policy: CausalLMPolicy) -> None:
    """The row of a vocabulary's word, appended, is the prompt with that word."""
    word = policy.tokenizer("soap")["input_ids"]
    row = policy.transformer.get_input_embeddings().weight[word].detach()
    token = [Scaled(Token("soap", {EMBEDDING: row}), 2)]
    longer = [f"{prompt} soap soap" for prompt in PROMPTS]
    assert policy.answer(PROMPTS, 3, 2, token) == policy.answer(longer, 3, 2)
    ours = policy.logits(policy.prompt_ids(PROMPTS, token), vectors_of(policy.transformer, token))
    assert torch.equal(ours, policy.logits(policy.prompt_ids(longer, ()), None))


def test_order_and_count_matter(policy: CausalLMPolicy) -> None:
    a, b = Scaled(_token(policy, "a")), Scaled(_token(policy, "b", vectors=2, seed=1))
    uses = ([a], [b], [a, b], [b, a], [Scaled(a.token, 2)])
    asked = [(policy.prompt_ids(PROMPTS[:1], use), vectors_of(policy.transformer, use)) for use in uses]
    found = [policy.logits(*each)[:, -1] for each in asked]
    pairs = [(i, j) for i in range(5) for j in range(i)]
    assert not any(torch.equal(found[i], found[j]) for i, j in pairs)


def test_a_token_is_never_cut_and_wrong_ones_are_one_line(policy: CausalLMPolicy) -> None:
    full = "fix " * 26
    assert len(policy.answer([full], 0, 1)) == 1
    token = Scaled(_token(policy, "yes", vectors=3))
    with pytest.raises(ParetuneError, match=r"29 tokens, 3 of them reward tokens; .*holds 26: shorten it"):
        policy.answer([full], 0, 1, [token])
    kept = policy.prompt_ids(["fix " * 23], [token])
    assert kept[0][-4:] == [kept[0][0], -1, -2, -3]
    with pytest.raises(ParetuneError, match="which stands for reward tokens"):
        policy.answer([f"fix {MARK}"], 0, 1, [token])
    with pytest.raises(ParetuneError, match="trained on another model"):
        policy.answer(PROMPTS, 0, 2, [Scaled(Token("wide", {EMBEDDING: torch.zeros(1, 7)}))])
    with pytest.raises(ParetuneError, match="no vectors for a language model"):
        policy.answer(PROMPTS, 0, 2, [Scaled(Token("x", {"text_encoder": torch.zeros(1, 16)}))])


def _greedy(policy: CausalLMPolicy, prompt: str, tokens: Sequence[Scaled]) -> list[int]:
    """An answer by the definition: no cache, no padding, the logits of every branch mixed."""
    answer: list[int] = []
    while len(answer) < policy.settings.max_tokens:
        mixed = torch.zeros(())
        for term in blends(tokens):
            ids = [*policy.prompt_ids([prompt], term.present)[0], *answer]
            logits = policy.logits([ids], vectors_of(policy.transformer, term.present))[0, -1]
            mixed = mixed + term.weight * logits
        answer.append(int(mixed.argmax()))
        if answer[-1] == policy.tokenizer.eos_token_id:
            break
    return answer


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("scale", [0.5, 1.5, -1.0])
def test_scales_mix_the_next_words_logits(tiny_llama: Path, tmp_path: Path, kind: str, scale: float) -> None:
    policy = _policy(tiny_llama if kind == "llama" else make_opt(tmp_path / "opt"), **GREEDY)
    a, b, c = (_token(policy, name, seed=i) for i, name in enumerate("abc"))
    tokens = [Scaled(a, 1, scale), Scaled(b), Scaled(c, 2, 0.25)]
    with torch.no_grad():
        rows = [_greedy(policy, prompt, tokens) for prompt in PROMPTS]
    told = [policy.tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    assert policy.answer(PROMPTS, 0, 3, tokens) == told
    assert told != policy.answer(PROMPTS, 0, 3, [Scaled(b)])


def test_scales_begin_and_end_at_absence_and_presence(policy: CausalLMPolicy) -> None:
    """Beside 0 and 1 the same seed draws the answers of 0 and 1."""
    token = _token(policy, "a", vectors=2)
    for whole in (0.0, 1.0):
        near = policy.answer(PROMPTS, 5, 2, [Scaled(token, 1, whole + 1e-6)])
        assert near == policy.answer(PROMPTS, 5, 2, [Scaled(token, 1, whole)])


def test_only_the_vectors_get_gradients(policy: CausalLMPolicy) -> None:
    token = policy.new_token("yes", 2, "soap water", torch.Generator().manual_seed(0))
    tokens = [Scaled(token)]
    policy.logits(policy.prompt_ids(PROMPTS, tokens), vectors_of(policy.transformer, tokens)).sum().backward()
    assert all(p.grad is None for p in policy.transformer.parameters())
    rows = token.vectors[EMBEDDING]
    assert rows.grad is not None
    assert (rows.grad.abs().sum(1) > 0).all()
    table = policy.transformer.get_input_embeddings().weight
    torch.testing.assert_close(rows.norm(dim=1), table.norm(dim=1).mean().expand(2))
    assert policy.row_scales() == {EMBEDDING: pytest.approx(float(table.pow(2).mean().sqrt()))}


# ---------------------------------------------------------------- plain transformers


def _plain(path: Path, folder: Path, names: Sequence[str]) -> tuple[Any, Any]:
    """The documented way to load tokens without paretune."""
    from tokenizers import AddedToken
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(path, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(path)
    added = []
    for name in names:
        rows = load_file(folder / name / "embedding.safetensors")[f"<{name}>"]
        words = [f"<{name}>", *(f"<{name}>_{i}" for i in range(1, len(rows)))]
        tokenizer.add_tokens(
            [AddedToken(w, normalized=False, special=True) for w in words], special_tokens=True
        )
        ids = tokenizer.convert_tokens_to_ids(words)
        size = max(len(tokenizer), model.get_input_embeddings().num_embeddings)
        model.resize_token_embeddings(size, mean_resizing=False)
        model.get_input_embeddings().weight.data[ids] = rows.to(model.dtype)
        added += ids
    model.generation_config.suppress_tokens = added
    return model, tokenizer


def _plain_answers(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[str]:
    inputs = tokenizer(list(texts), return_tensors="pt", padding=True)
    out = model.generate(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False,
        max_new_tokens=6, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


MODELS = {
    "llama": make_llama,
    "tied": lambda folder: make_llama(folder, tied=True),
    "chat": lambda folder: make_llama(folder, chat=True),
    "opt": make_opt,
    "gemma3": _make_gemma,
}


@pytest.mark.parametrize("kind", MODELS)
def test_plain_transformers_give_the_same_answers(tmp_path: Path, kind: str) -> None:
    path = MODELS[kind](tmp_path / "model")
    policy = _policy(path, **GREEDY)
    tokens = {"yes": _token(policy, "yes", vectors=2), "No": _token(policy, "No", seed=1)}
    for name, token in tokens.items():
        assert write_token(tmp_path / "tokens" / name, token) == ["embedding.safetensors"]
    bank = read_bank(tmp_path / "tokens")
    assert all(torch.equal(bank[n].vectors[EMBEDDING], t.vectors[EMBEDDING]) for n, t in tokens.items())
    model, tokenizer = _plain(path, tmp_path / "tokens", ["yes", "No"])
    asked = list(PROMPTS)
    if kind == "chat":
        turns = [[{"role": "user", "content": text}] for text in asked]
        asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    asked = [f"{text}<No><No><yes><yes>_1" for text in asked]
    for penalty in (1.0, 1.3):  # which looks at the prompt's words
        policy.transformer.generation_config.repetition_penalty = penalty
        model.generation_config.repetition_penalty = penalty
        ours = policy.answer(PROMPTS, 0, 3, [Scaled(bank["No"], 2), Scaled(bank["yes"])])
        assert ours == _plain_answers(model, tokenizer, asked)
    policy.transformer.generation_config.repetition_penalty = 1.0
    assert ours != policy.answer(PROMPTS, 0, 3)


def test_a_tied_row_would_be_a_word_to_say(tmp_path: Path) -> None:
    """Why the documented lines set suppress_tokens: the rows of a tied table are logits too."""
    path = make_llama(tmp_path / "model", tied=True)
    policy = _policy(path, **GREEDY)
    table = policy.transformer.get_input_embeddings().weight
    said = policy.tokenizer(policy.answer(PROMPTS[:1], 0, 1)[0])["input_ids"][0]
    token = Token("yes", {EMBEDDING: 3 * table[[said]].detach()})
    write_token(tmp_path / "tokens" / "yes", token)
    model, tokenizer = _plain(path, tmp_path / "tokens", ["yes"])
    ours = policy.answer(PROMPTS[:1], 0, 1)
    assert _plain_answers(model, tokenizer, PROMPTS[:1]) == ours
    model.generation_config.suppress_tokens = None
    assert _plain_answers(model, tokenizer, PROMPTS[:1]) != ours


def test_a_tokenizer_with_a_tokens_words_reads_them_as_one(policy: CausalLMPolicy, tmp_path: Path) -> None:
    token = _token(policy, "yes", vectors=2)
    with_words(policy.tokenizer, token.words).save_pretrained(tmp_path)
    from transformers import AutoTokenizer

    known: Any = AutoTokenizer.from_pretrained(tmp_path)
    size = len(policy.tokenizer)
    assert known("fix<yes><yes>_1")["input_ids"][1:] == [size, size + 1]
    assert len(policy.tokenizer) == size
    with pytest.raises(ParetuneError, match="holds no token"):
        read_token(tmp_path)
