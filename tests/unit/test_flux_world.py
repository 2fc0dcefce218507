"""The tiny FLUX of the picture world: its tokenizer, its autoencoder, and what its training optimises."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from tools.worlds.pictures import flow_training, train_flux
from tools.worlds.pictures.data import build_bank
from tools.worlds.pictures.flux_model import (
    assemble,
    build_autoencoder,
    build_t5,
    build_transformer,
)
from tools.worlds.pictures.model import build_pooling_clip
from tools.worlds.pictures.tokenizer import MAX_TOKENS, build_t5_tokenizer, build_tokenizer

from paretune.config import ModelConfig
from paretune.data.prompts import load_prompts
from paretune.models.detect import EMBEDDED
from paretune.models.flow import Sampling, sample
from paretune.models.flux.policy import FluxPolicy
from paretune.models.loading import open_policy
from paretune.recipes import find_recipe, load_config
from paretune.rewards.base import load_reward, score_samples

CAPTION = "a sign saying kite ok"


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small one with random weights everywhere, those that begin at zero too."""
    folder = tmp_path_factory.mktemp("flux")
    torch.manual_seed(0)
    clip_tokenizer, t5_tokenizer = build_tokenizer(folder), build_t5_tokenizer(folder)
    transformer = build_transformer(dual=1, single=1, heads=2)
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    clip, t5 = build_pooling_clip(clip_tokenizer, MAX_TOKENS), build_t5(t5_tokenizer)
    return assemble(transformer, clip, clip_tokenizer, t5, t5_tokenizer, build_autoencoder())


def test_a_caption_is_words_and_a_sign_is_letters(pipe: Any) -> None:
    ids = pipe.tokenizer_2(CAPTION, padding="max_length", max_length=12)["input_ids"]
    pieces = pipe.tokenizer_2.convert_ids_to_tokens(ids)
    words = [f"{word}</w>" for word in ("a", "sign", "saying")]
    assert pieces == [*words, "k", "i", "t", "e</w>", "ok</w>", "</s>", "<pad>", "<pad>", "<pad>"]


def test_encoding_moves_two_by_two_pixels_into_channels() -> None:
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = build_autoencoder().encode(pictures).latent_dist.mode()  # type: ignore[union-attr]
    torch.testing.assert_close(latents, torch.nn.functional.pixel_unshuffle(pictures, 2), atol=1e-4, rtol=0)


def test_training_sees_the_velocity_that_the_policy_runs(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    options = {"path": str(tmp_path), "height": 32, "width": 32, "options": {"max_sequence_length": 16}}
    policy = FluxPolicy(ModelConfig.model_validate(options))
    assert policy.latent_shape == (64, 48)
    bank = build_bank(pipe.tokenizer, 3, 0.0, seed=0)
    pixels = torch.nn.functional.pixel_unshuffle(bank.pictures.float() / 127.5 - 1, 2)
    torch.testing.assert_close(policy.unscale(train_flux.packed(bank.pictures)), pixels)  # what is decoded
    t5 = pipe.tokenizer_2(bank.captions, padding="max_length", max_length=16, return_tensors="pt").input_ids
    places = pipe._prepare_latent_image_ids(1, 8, 8, torch.device("cpu"), torch.float32)
    lessons = train_flux.Lessons(bank.pictures, bank.tokens, t5, places)
    parts = torch.nn.ModuleList([pipe.transformer, pipe.text_encoder, pipe.text_encoder_2])
    for index in range(3):
        torch.manual_seed(index)
        with torch.no_grad():
            loss = train_flux.flow_matching_loss(parts, lessons, torch.tensor([index]), 2.5)
        torch.manual_seed(index)
        sigma = flow_training.shifted_sigma(1, 2.5)
        clean = train_flux.packed(bank.pictures[index : index + 1])
        noise = torch.randn_like(clean)
        guidance = float(1 + 6 * torch.rand(1))
        x = (1 - sigma.view(-1, 1, 1)) * clean + sigma.view(-1, 1, 1) * noise
        with torch.no_grad():
            v = policy.velocity(x, sigma, policy.encode([bank.captions[index]], False), guidance)
        torch.testing.assert_close(loss, (v - (noise - clean)).square().mean(), atol=1e-5, rtol=1e-5)


def test_a_phase_goes_on_from_where_it_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_training, "EVERY", 1)
    clock = count(0.0, 0.25)  # seconds of processor time: a quarter passes at every look
    monkeypatch.setattr(flow_training.time, "process_time", lambda: next(clock))
    part = torch.nn.ModuleList([torch.nn.ModuleDict({"transformer_blocks": torch.nn.Linear(2, 1)})])
    settings = flow_training.Settings(0.05, 2, (1e-3, 1e-2), 0.5, 0.9, 0, "crisp")

    def loss_of(index: torch.Tensor) -> torch.Tensor:
        return part[0]["transformer_blocks"](torch.ones(len(index), 2)).square().mean()  # type: ignore[index]

    flow_training.train(part, 4, loss_of, settings, tmp_path)
    steps = len((tmp_path / "log.jsonl").read_text().splitlines())
    assert steps > 1
    longer = flow_training.Settings(0.1, 2, (1e-3, 1e-2), 0.5, 0.9, 0, "crisp")
    flow_training.train(part, 4, loss_of, longer, tmp_path)
    rows = (tmp_path / "log.jsonl").read_text().splitlines()
    assert f'"step": {steps + 1},' in rows[steps]


def test_the_embedded_flux_draws_more_of_its_captions_than_of_others() -> None:
    """The detector finds more of what was asked for than of what another caption asks."""
    config = load_config(find_recipe("pictures-flux"))
    policy: Any = open_policy(config.model)
    prompts = load_prompts("pictures/geneval-test")[:32]
    noise = policy.initial_noise(len(prompts), torch.Generator().manual_seed(0))
    conditions = policy.encode([p.text for p in prompts], False)
    pictures = policy.decode(sample(policy, conditions, noise, Sampling(8, 1.0)).clean)
    reward = load_reward("pictures.geneval")
    own = score_samples(reward, pictures, prompts).mean()
    others = score_samples(reward, pictures, [*prompts[1:], prompts[0]]).mean()
    assert own > others + 0.1
    assert own > 0.45
    files = list(EMBEDDED["pictures-flux"].rglob("*.safetensors"))
    assert len(files) == 4
    assert max(f.stat().st_size for f in files) < 8 * 2**20
