"""Tokens in the text encoders: what they change, what they leave to the bit, and plain diffusers' view."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from diffusers.loaders import TextualInversionLoaderMixin

from paretune.config import ModelConfig
from paretune.models.flow import Conditions, Sampling, sample
from paretune.models.lora import fold
from paretune.models.sd3.policy import SD3Policy
from paretune.ops.lowrank import LowRank
from paretune.reward_tokens.files import Token, read_bank, read_token, write_token
from paretune.reward_tokens.pipelines import Scaled
from paretune.types import ParetuneError

PROMPTS = ["a red circle", "a sign saying kite"]
LONG = "a sign saying kite above two blue squares left of three green crosses and a yellow circle"
NAMES = ("text_encoder", "text_encoder_2", "text_encoder_3")


def _policy(path: Path, t5: bool = False, **settings: Any) -> SD3Policy:
    return SD3Policy(ModelConfig(path=str(path), options={"load_t5": t5, **settings}))


def _token(policy: SD3Policy, name: str, vectors: int = 1, seed: int = 0) -> Token:
    generator = torch.Generator().manual_seed(seed)
    token = policy.new_token(name, vectors, "", generator)
    return Token(name, {n: v.detach() for n, v in token.vectors.items()})


def _same(a: Conditions, b: Conditions) -> bool:
    return torch.equal(a.embeds, b.embeds) and torch.equal(a.pooled, b.pooled)


@pytest.fixture
def policy(tiny_sd3: Path) -> SD3Policy:
    return _policy(tiny_sd3)


@pytest.fixture
def legacy_sd3(tiny_sd3: Path, tmp_path: Path) -> Path:
    """As the real towers of Stable Diffusion 3 are: eos_token_id 2, the end found as the largest id."""
    copy = Path(shutil.copytree(tiny_sd3, tmp_path / "legacy"))
    for encoder in NAMES[:2]:
        file = copy / encoder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": 2}))
    return copy


@pytest.mark.parametrize("t5", [False, True])
def test_no_token_is_the_same_to_the_bit_before_during_and_after(
    tiny_sd3: Path, tiny_sd3_t5: Path, t5: bool
) -> None:
    policy = _policy(tiny_sd3_t5 if t5 else tiny_sd3, t5)
    before = policy.encode(PROMPTS, True)
    token = _token(policy, "ocr")
    assert set(token.vectors) == set(NAMES[: 3 if t5 else 2])
    with_token = policy.encode(PROMPTS, True, [Scaled(token)])
    after = policy.encode(PROMPTS, True)
    absent = policy.encode(PROMPTS, True, [Scaled(token, 2, 0.0)])
    assert _same(before, after)
    assert _same(before, absent)
    assert not _same(before, with_token)
    assert (before.pooled - with_token.pooled).abs().max() > 1e-4
    assert before.negative_embeds is not None
    assert with_token.negative_embeds is not None
    assert torch.equal(before.negative_embeds, with_token.negative_embeds)
    assert type(policy.pipe.tokenizer).__name__ == "CLIPTokenizer"
    if t5:  # the last encoder's part of the sequence
        assert not torch.equal(before.embeds[:, 16:], with_token.embeds[:, 16:])


def test_order_count_and_vectors_matter(policy: SD3Policy) -> None:
    a, b = Scaled(_token(policy, "a")), Scaled(_token(policy, "b", vectors=2, seed=1))
    found = [policy.encode(PROMPTS, False, t) for t in ([a], [b], [a, b], [b, a], [Scaled(a.token, 2)])]
    pairs = [(i, j) for i in range(5) for j in range(i)]
    assert not any(torch.equal(found[i].embeds, found[j].embeds) for i, j in pairs)
    assert _same(found[4], policy.encode(PROMPTS, False, [a, a]))
    parts = [policy.encode([p], False, [t]) for p, t in zip(PROMPTS, (a, b), strict=True)]
    joined = Conditions.join(parts)  # different preferences in one batch
    assert torch.allclose(joined.embeds[0], found[0].embeds[0], atol=1e-6)
    assert torch.allclose(joined.embeds[1], found[1].embeds[1], atol=1e-6)


def test_a_word_as_a_token_is_that_word(policy: SD3Policy) -> None:
    """The vector of a vocabulary's word, appended, is the prompt with that word."""
    word = policy.pipe.tokenizer("here", add_special_tokens=False)["input_ids"]
    assert len(word) == 1
    rows = {
        n: getattr(policy.pipe, n).get_input_embeddings().weight[word].detach() for n in NAMES[:2]
    }
    token = policy.encode(PROMPTS, False, [Scaled(Token("here", rows))])
    assert _same(token, policy.encode([f"{p} here" for p in PROMPTS], False))


@pytest.mark.parametrize("t5", [False, True])
def test_a_long_prompt_keeps_its_tokens(tiny_sd3: Path, tiny_sd3_t5: Path, t5: bool) -> None:
    settings = {"max_sequence_length": 12} if t5 else {}
    policy = _policy(tiny_sd3_t5 if t5 else tiny_sd3, t5, **settings)
    token = _token(policy, "ocr", vectors=3)
    plain = policy.encode([LONG], False)
    assert _same(plain, policy.encode([LONG + " today"], False))  # cut, like any pipeline's
    kept = policy.encode([LONG], False, [Scaled(token)])
    assert _same(kept, policy.encode([LONG + " today"], False, [Scaled(token)]))
    other = policy.encode([LONG], False, [Scaled(_token(policy, "ocr", vectors=3, seed=1))])
    assert (kept.pooled - other.pooled).abs().max() > 1e-4
    if t5:
        assert not torch.equal(kept.embeds[:, 16:], other.embeds[:, 16:])
    with pytest.raises(ParetuneError, match="no room for a prompt"):
        policy.encode(PROMPTS, False, [Scaled(token, 16)])


def test_the_scale_is_continuous_from_absence_to_presence(policy: SD3Policy) -> None:
    a, b = _token(policy, "a"), _token(policy, "b", seed=1)
    at = [policy.encode(PROMPTS, False, [Scaled(a, 1, s), Scaled(b)]) for s in (0.0, 1e-4, 0.5, 1.0, 2.0)]
    assert _same(at[0], policy.encode(PROMPTS, False, [Scaled(b)]))
    assert _same(at[3], policy.encode(PROMPTS, False, [Scaled(a), Scaled(b)]))
    step = (at[3].embeds - at[0].embeds).abs().max()
    assert 0 < (at[1].embeds - at[0].embeds).abs().max() < 2e-4 * step
    torch.testing.assert_close(at[2].embeds, (at[0].embeds + at[3].embeds) / 2, atol=1e-6, rtol=0)
    torch.testing.assert_close(at[4].pooled, 2 * at[3].pooled - at[0].pooled, atol=1e-5, rtol=0)


def test_only_the_vectors_get_gradients(policy: SD3Policy) -> None:
    token = policy.new_token("ocr", 2, "", torch.Generator().manual_seed(0))
    policy.transformer.requires_grad_(False)
    conditions = policy.encode(PROMPTS, False, [Scaled(token, 1, 0.5)])
    x = policy.initial_noise(2, torch.Generator().manual_seed(0))
    policy.velocity(x, torch.full((2,), 0.5), conditions, 1.0).pow(2).sum().backward()
    parts = [policy.transformer, policy.vae, policy.pipe.text_encoder, policy.pipe.text_encoder_2]
    assert all(p.grad is None for part in parts for p in part.parameters())
    for vectors in token.vectors.values():
        assert vectors.grad is not None
        assert (vectors.grad.abs().sum(1) > 0).all()
    with torch.no_grad():
        assert not policy.encode(PROMPTS, False, [Scaled(token)]).embeds.requires_grad


def test_a_start_has_the_length_of_the_models_own_embeddings(policy: SD3Policy) -> None:
    table = policy.pipe.text_encoder.get_input_embeddings().weight
    here = policy.pipe.tokenizer("here", add_special_tokens=False)["input_ids"]
    for init in ("", "here"):
        vectors = policy.new_token("x", 3, init, torch.Generator().manual_seed(0)).vectors
        norms = vectors["text_encoder"].norm(dim=1)
        torch.testing.assert_close(norms, table.norm(dim=1).mean().expand(3), rtol=1e-4, atol=0)
    close = torch.cosine_similarity(vectors["text_encoder"], table[here])
    torch.testing.assert_close(close, torch.ones(3))


def test_files_come_back_as_they_went(policy: SD3Policy, tmp_path: Path) -> None:
    token = _token(policy, "ocr", vectors=2)
    assert write_token(tmp_path / "ocr", token) == ["text_encoder.safetensors", "text_encoder_2.safetensors"]
    write_token(tmp_path / "beauty", _token(policy, "beauty", seed=1))
    bank = read_bank(tmp_path)
    assert list(bank) == ["beauty", "ocr"]
    assert all(torch.equal(bank["ocr"].vectors[n], token.vectors[n]) for n in token.vectors)
    assert read_bank(tmp_path / "nowhere") == {}
    with pytest.raises(ParetuneError, match="holds no token"):
        read_token(tmp_path)
    (tmp_path / "ocr" / "text_encoder.safetensors").write_bytes(b"no")
    with pytest.raises(ParetuneError, match="is not a readable safetensors"):
        read_token(tmp_path / "ocr")
    wide = Token("wide", {"text_encoder": torch.zeros(1, 7)})
    with pytest.raises(ParetuneError, match="trained on another model"):
        policy.encode(PROMPTS, False, [Scaled(wide)])
    with pytest.raises(ParetuneError, match="no vectors for any text encoder"):
        policy.encode(PROMPTS, False, [Scaled(Token("x", {"text_encoder_9": torch.zeros(1, 4)}))])


class LoadingPipeline(StableDiffusion3Pipeline, TextualInversionLoaderMixin):
    """As docs/tokens.md tells: Stable Diffusion 3's pipeline has no loader of its own."""


def _plain(path: Path, folder: Path, names: list[str], t5: bool) -> Any:
    """The documented way to load tokens without paretune."""
    parts = {} if t5 else {"text_encoder_3": None, "tokenizer_3": None}
    pipe = LoadingPipeline.from_pretrained(path, **parts)
    pipe.set_progress_bar_config(disable=True)
    for encoder in NAMES[: 3 if t5 else 2]:
        module = getattr(pipe, encoder)
        tokenizer = getattr(pipe, encoder.replace("text_encoder", "tokenizer"))
        for name in names:
            pipe.load_textual_inversion(
                str(folder / name / f"{encoder}.safetensors"), tokenizer=tokenizer, text_encoder=module
            )
        if hasattr(module, "text_model"):
            module.text_model.eos_token_id = tokenizer.eos_token_id
    return pipe


@pytest.mark.parametrize("kind", ["plain", "t5", "legacy", "merged"])
def test_a_plain_pipeline_gives_the_same_picture(
    tiny_sd3: Path, tiny_sd3_t5: Path, legacy_sd3: Path, tmp_path: Path, kind: str
) -> None:
    t5 = kind == "t5"
    path = {"t5": tiny_sd3_t5, "legacy": legacy_sd3}.get(kind, tiny_sd3)
    policy = _policy(path, t5)
    tokens = [_token(policy, "ocr", vectors=2), _token(policy, "Beauty", seed=1)]
    for token in tokens:
        write_token(tmp_path / "tokens" / token.name, token)
    pipe = _plain(path, tmp_path / "tokens", ["ocr", "Beauty"], t5)
    if kind == "merged":
        generator = torch.Generator().manual_seed(1)
        factors = torch.randn(16, 2, generator=generator), torch.randn(2, 16, generator=generator)
        deltas = {"transformer_blocks.0.attn.add_k_proj": LowRank(*factors)}
        fold(policy.transformer, deltas)
        fold(pipe.transformer, deltas)
    noise = policy.initial_noise(2, torch.Generator().manual_seed(0))
    bank = read_bank(tmp_path / "tokens")
    conditions = policy.encode(PROMPTS, True, [Scaled(bank["Beauty"], 2), Scaled(bank["ocr"])])
    ours = policy.decode(sample(policy, conditions, noise, Sampling(4, 3.0)).clean)
    theirs = pipe(
        [f"{p} <Beauty> <Beauty> <ocr> <ocr>_1" for p in PROMPTS], latents=noise, guidance_scale=3.0,
        num_inference_steps=4, output_type="pt", max_sequence_length=policy.t5_tokens,
    ).images  # fmt: skip
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    bare = policy.decode(sample(policy, policy.encode(PROMPTS, True), noise, Sampling(4, 3.0)).clean)
    assert (bare - ours).abs().max() > 1e-4


def test_the_largest_id_would_be_the_wrong_end(legacy_sd3: Path, tmp_path: Path) -> None:
    """Why the documented lines set eos_token_id: without, such a pipeline pools at the token."""
    policy = _policy(legacy_sd3)
    write_token(tmp_path / "ocr", _token(policy, "ocr"))
    pipe = _plain(legacy_sd3, tmp_path, ["ocr"], False)
    ours = policy.encode(PROMPTS, False, [Scaled(read_token(tmp_path / "ocr"))]).pooled

    def pooled() -> torch.Tensor:
        texts = [f"{p} <ocr>" for p in PROMPTS]
        return pipe.encode_prompt(texts, texts, texts, do_classifier_free_guidance=False)[2]

    torch.testing.assert_close(pooled(), ours, atol=1e-6, rtol=0)
    pipe.text_encoder.text_model.eos_token_id = 2
    assert (pooled() - ours).abs().max() > 1e-3
