"""What is special to Qwen-Image: its negative prompt, guidance that keeps lengths, its template's end."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from paretune.config import ModelConfig
from paretune.models.facts import read_shape
from paretune.models.family import Published, by_hub_id
from paretune.models.flow import Sampling, sample
from paretune.models.loading import open_policy
from paretune.models.qwen_image.family import BEFORE, WRITTEN
from paretune.planning.peak import measure_update
from paretune.recipes import load_config
from paretune.reward_tokens.pipelines import Scaled
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe
from tests.families.qwen_image import CASE, make

LONG = "a red circle " * 3  # 39 tokens of bytes, more than the 24 that are read
TEXTS = ["a red circle", LONG, "two"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("qwen"))


def _policy(pipeline: Path, **options: Any) -> Any:
    model = {"path": str(pipeline), **CASE.model, "options": {"max_sequence_length": 24, **options}}
    return open_policy(ModelConfig.model_validate(model))


@pytest.mark.parametrize("negative", [" ", "", "blurry"])
def test_prompts_of_any_length_are_drawn_as_by_the_pipeline(pipeline: Path, negative: str) -> None:
    """A pipeline of its own draws each prompt by itself, and reads up to 1024 tokens before it cuts."""
    from diffusers import QwenImagePipeline

    policy = _policy(pipeline, negative_prompt=negative)
    noise = policy.initial_noise(len(TEXTS), torch.Generator().manual_seed(0))
    ours = policy.decode(sample(policy, policy.encode(TEXTS, True), noise, Sampling(3, 4.0)).clean)
    pipe: Any = QwenImagePipeline.from_pretrained(pipeline)
    assert (pipe.prompt_template_encode, pipe.prompt_template_encode_start_idx) == (WRITTEN, BEFORE)
    pipe.set_progress_bar_config(disable=True)
    for i, text in enumerate(TEXTS):
        drawn = pipe(
            text, negative, 4.0, 16, 16, 3, latents=noise[i : i + 1], output_type="pt", max_sequence_length=24
        )
        torch.testing.assert_close(ours[i : i + 1], drawn.images, atol=1e-5, rtol=0)


def test_guidance_turns_the_velocity_of_a_token_and_keeps_its_length(pipeline: Path) -> None:
    policy = _policy(pipeline)
    noise = policy.initial_noise(2, torch.Generator().manual_seed(0))
    conditions, sigma = policy.encode(TEXTS[:2], True), torch.tensor([0.9, 0.5])
    plain, guided = (policy.velocity(noise, sigma, conditions, g) for g in (1.0, 4.0))
    assert (guided - plain).abs().max() > 0.01
    torch.testing.assert_close(guided.norm(dim=-1), plain.norm(dim=-1))


def test_the_negative_prompt_is_one_space_unless_a_recipe_says_otherwise(pipeline: Path) -> None:
    options = ({}, {"negative_prompt": " "}, {"negative_prompt": "blurry"})
    plain, space, other = (_policy(pipeline, **changes) for changes in options)
    assert plain.text_key == space.text_key  # the key of the cache on disk
    assert plain.text_key != other.text_key
    conditions = [policy.encode(["a"], True) for policy in (plain, other)]
    assert conditions[0].negative_embeds.shape[1] == 1 + 5  # the space, and the end of the template
    assert conditions[1].negative_embeds.shape[1] == 6 + 5


def test_reward_tokens_stand_before_the_end_of_the_template(pipeline: Path) -> None:
    """Positions before them are as without them, and those from there on are not."""
    policy = _policy(pipeline)
    token = policy.new_token("red", 2, "", torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, present = (policy.encode(["red", "a"], False, t) for t in ((), [Scaled(token)]))
        half = policy.encode(["red", "a"], False, [Scaled(token, scale=0.5)])
    assert plain.mask.sum(1).tolist() == [3 + 5, 1 + 5]
    assert present.mask.sum(1).tolist() == half.mask.sum(1).tolist() == [3 + 2 + 5, 1 + 2 + 5]
    torch.testing.assert_close(present.embeds[0, :3], plain.embeds[0, :3])
    assert (present.embeds[0, 3:8] - plain.embeds[0, 3:8]).abs().amax(1).min() > 1e-3
    padded = torch.nn.functional.pad(plain.embeds, (0, 0, 0, 2))
    torch.testing.assert_close(half.embeds, (present.embeds + padded) / 2)


def test_of_a_long_prompt_no_reward_token_is_cut(pipeline: Path) -> None:
    policy = _policy(pipeline)
    token = policy.new_token("red", 2, "", torch.Generator().manual_seed(0))
    embeds = policy.encode([LONG], False, [Scaled(token)]).embeds
    assert embeds.shape[1] == 24
    embeds.square().mean().backward()
    assert (token.vectors["text_encoder"].grad.abs().amax(1) > 0).all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"options": {"max_sequence_length": 1025}}, "max_sequence_length is at most 1024 for Qwen-Image"),
        ({"height": 1000}, r"model\.height: 1000 .* multiple of 16, such as 992"),
    ],
)
def test_what_the_pipeline_does_not_take_is_one_line(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ParetuneError, match=told):
        read_shape(ModelConfig.model_validate({"path": "Qwen/Qwen-Image", **change}))


def test_a_transformer_that_diffusers_cannot_run_is_one_line(tmp_path: Path) -> None:
    folder = make(tmp_path)
    config = folder / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"guidance_embeds": false', '"guidance_embeds": true'))
    with pytest.raises(ParetuneError, match="this Qwen-Image takes guidance as an input"):
        _policy(folder)


def test_moments_that_do_not_fit_the_autoencoder_are_one_line(tmp_path: Path) -> None:
    folder = make(tmp_path)
    config = folder / "vae" / "config.json"
    kept = json.loads(config.read_text())
    config.write_text(json.dumps({**kept, "latents_mean": [0.0] * 3}))
    policy = _policy(folder)
    with pytest.raises(ParetuneError, match=r"the vae of .* does not work as its config.json says"):
        policy.decode(policy.initial_noise(1, torch.Generator().manual_seed(0)))


def test_a_published_transformer_is_measured_with_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small one under the published name. Its table of positions is no buffer, and its values are true."""
    name = "Qwen/Qwen-Image"
    published = by_hub_id()[name].published
    transformer = {
        "in_channels": 64, "num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2,
        "joint_attention_dim": 16, "axes_dims_rope": (2, 2, 4),
    }  # fmt: skip
    tiny = replace(published[name], transformer=transformer, vae={**published[name].vae, "base_dim": 4})
    monkeypatch.setitem(cast("dict[str, Published]", published), name, tiny)
    model = {**CASE.model, "path": name}
    assert measure_update(load_config(tiny_recipe(tmp_path, Path("x"), model=model)), "cpu").random_weights
