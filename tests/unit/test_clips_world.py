"""The world `clips`: its facts, its tokenizers and its autoencoder."""

from __future__ import annotations

import json
import random

import pytest
import torch
from tools.worlds.clips.drawings import means
from tools.worlds.clips.model import build_identity_vae
from tools.worlds.clips.tokenizer import DEFAULT_PROMPT_TEMPLATE, build_llama_tokenizer

from paretune.config import ModelConfig
from paretune.data.prompts import load_prompts
from paretune.models.detect import EMBEDDED
from paretune.models.flow import Sampling, sample
from paretune.models.hunyuan_video.policy import HunyuanVideoPolicy
from paretune.rewards.worlds.tracking import track
from paretune.worlds.clips.scenes import Clip, all_clips, caption, mislabel


def test_a_caption_says_every_fact() -> None:
    assert caption(Clip("cross", "orange", "up", "slowly")) == "an orange cross moves up slowly"
    assert len({caption(clip) for clip in all_clips()}) == 192


def test_mislabelling_changes_one_fact() -> None:
    rng, clip = random.Random(0), all_clips()[7]
    for _ in range(50):
        wrong = mislabel(clip, rng)
        assert sum(a != b for a, b in zip(vars(clip).values(), vars(wrong).values(), strict=True)) == 1


def test_no_test_caption_is_trained_on() -> None:
    for name in ("visual", "motion"):
        train, test = ({p.text for p in load_prompts(f"clips/{name}-{s}")} for s in ("train", "test"))
        assert (len(train), len(test), len(train & test)) == (144, 48, 0)


def test_the_pipelines_system_text_is_exactly_what_it_drops() -> None:
    tokenizer = build_llama_tokenizer()
    template = DEFAULT_PROMPT_TEMPLATE["template"].format("an orange cross moves left quickly ok")
    ids = tokenizer(template)["input_ids"]
    kept = tokenizer.convert_ids_to_tokens(ids[DEFAULT_PROMPT_TEMPLATE["crop_start"] :])
    assert kept == ["an", "orange", "cross", "moves", "left", "quickly", "ok", "<|eot_id|>"]


def test_the_latents_of_the_analytic_autoencoder_are_the_pixels() -> None:
    vae = build_identity_vae()
    vae.use_framewise_decoding = False
    clips = torch.rand(1, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = vae.encode(clips).latent_dist.mode()  # type: ignore[union-attr]
        torch.testing.assert_close(latents, clips, atol=1e-4, rtol=0)
        torch.testing.assert_close(vae.decode(latents).sample, clips, atol=1e-4, rtol=0)  # type: ignore[union-attr]


def test_the_base_model_moves_shapes_as_captions_say() -> None:
    policy = HunyuanVideoPolicy(ModelConfig.model_validate({"path": "clips"}))
    captions = ["a red circle moves left quickly", "a red circle moves down quickly"] * 4
    noise = policy.initial_noise(8, torch.Generator().manual_seed(0))
    clips = policy.decode(sample(policy, policy.encode(captions, False), noise, Sampling(6, 1.0)).clean)
    left, down = (track(clips).steps.mean(1)[k::2].median(0).values for k in (0, 1))  # pixels a frame
    assert left[0] < -1
    assert abs(left[1]) < 0.5
    assert down[1] > 1
    assert abs(down[0]) < 0.5


def test_the_weights_are_small_say_how_they_were_made_and_draw_the_captions_colour() -> None:
    folder = EMBEDDED["clips"]
    assert all(path.stat().st_size < 8 * 2**20 for path in folder.rglob("*.safetensors"))
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    assert [*dict.fromkeys(row["run"] for row in log)] == [
        "looks", "moves", "looks2", "moves2", "moves3", "moves4", "moves5", "mistaken",
    ]  # fmt: skip
    policy = HunyuanVideoPolicy(ModelConfig.model_validate({"path": "clips"}))
    captions = ["a red circle moves left quickly", "a blue square moves right slowly"]
    noise = policy.initial_noise(2, torch.Generator().manual_seed(0))
    clips = policy.decode(sample(policy, policy.encode(captions, False), noise, Sampling(6, 1.0)).clean)
    assert clips.shape == (2, 8, 3, 32, 32)
    warmth = (clips[:, :, 0] - clips[:, :, 2]).flatten(1)  # red less blue, of the shape far from the ground's
    assert warmth[0].max() > 0.5
    assert warmth[0].min() > -0.3
    assert warmth[1].min() < -0.4
    assert warmth[1].max() < 0.3


def test_the_table_of_drawings_tells_the_kinds_apart() -> None:
    assert means("right", 6, 0) == pytest.approx((1.0, 1.0), abs=0.02)
    told = {kind: means(kind, 6, 0) for kind in ("frozen", "flicker", "another speed")}
    assert {kind: video > 0.95 for kind, (video, _) in told.items()} == {
        "frozen": True, "flicker": False, "another speed": True
    }  # fmt: skip
    assert max(motion for _, motion in told.values()) < 0.2
