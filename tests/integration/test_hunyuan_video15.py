"""HunyuanVideo 1.5: what its shared tests do not see: texts in quotes, guiders, limits, the chat."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.hunyuan_video1_5.pipeline_hunyuan_video1_5 import format_text_input
from torch.testing import assert_close

from paretune.config import ModelConfig
from paretune.models.facts import read_shape
from paretune.models.family import families
from paretune.models.flow import Sampling, sample
from paretune.models.hunyuan_video15.family import BEFORE, WRITTEN
from paretune.models.loading import open_policy
from paretune.models.true_sizes import policy_of, random_conditions
from paretune.recipes import find_recipe, load_config
from paretune.types import ParetuneError
from tests.families.hunyuan_video15 import CASE, make_hunyuan15, theirs

PROMPTS = ('a sign that says "OPEN"', "a kite")  # one with a text for ByT5, and one without


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hunyuan15(tmp_path_factory.mktemp("hunyuan15"), guidance_rescale=0.5)


def _model(pipeline: Path, **changes: Any) -> ModelConfig:
    return ModelConfig.model_validate({"path": str(pipeline), **CASE.model, **changes})


def test_texts_in_quotes_and_a_rescaling_guider_are_the_pipelines_own(pipeline: Path) -> None:
    policy: Any = open_policy(_model(pipeline))
    noise = policy.initial_noise(2, torch.Generator().manual_seed(0))
    conditions = policy.encode(list(PROMPTS), True)
    assert conditions.more["mask_2"].sum(1).tolist() == [14, 0]  # 'Text "OPEN". ' and its end
    # The bytes of the prompt, and the end of its chat: three special tokens or line ends, and a line of ten.
    assert conditions.mask.sum(1).tolist() == [len(PROMPTS[0]) + 13, len(PROMPTS[1]) + 13]
    assert conditions.embeds.shape[1] == len(PROMPTS[0]) + 13
    ours = policy.decode(sample(policy, conditions, noise, Sampling(3, 4.0)).clean)
    policy.load_text()
    assert_close(ours, theirs(policy, PROMPTS, noise, 3, 4.0), atol=1e-5, rtol=0)
    plain = policy.encode(["a sign that says OPEN", "a kite"], True)
    assert (policy.decode(sample(policy, plain, noise, Sampling(3, 4.0)).clean) - ours)[0].abs().max() > 1e-3


def test_a_guider_that_does_not_guide_all_steps_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParetuneError, match=r"^model\.path: the guider of .* only a ClassifierFreeGuidance"):
        open_policy(_model(make_hunyuan15(tmp_path, stop=0.5)))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"options": {"frames": 6}}, r"frames: 6 does not fit this model: give 2 k \+ 1"),
        ({"options": {"max_sequence_length": 1001}}, "max_sequence_length is at most 1000 here"),
        ({"height": 18}, r"height: 18 does not fit this model: give a multiple of 4"),
    ],
)
def test_what_does_not_fit_is_one_line(pipeline: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ParetuneError, match=told):
        read_shape(_model(pipeline, **changes))


def test_the_published_size_and_its_default_clip() -> None:
    model = load_config(find_recipe("hunyuan-video-1.5")).model
    own = model.model_copy(update={"height": None, "width": None, "options": {}})
    shape = read_shape(own)
    assert shape is not None
    assert (shape.height, shape.width, shape.frames, shape.latents) == (480, 848, 121, (32, 31, 30, 53))


def test_the_chat_is_the_pipelines_own(pipeline: Path) -> None:
    policy: Any = open_policy(_model(pipeline))
    policy.load_text()
    (chat,) = format_text_input(["a kite"], policy.pipe.system_message)
    assert WRITTEN.format("a kite") == policy.pipe.tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=False
    )
    assert policy.pipe.prompt_template_encode_start_idx == BEFORE


def test_random_weights_run_as_the_published_ones_would(pipeline: Path) -> None:
    family = families()["hunyuan_video15"]
    published = next(iter(family.published.values()))
    small = replace(
        published,
        transformer={**published.transformer, "in_channels": 9, "out_channels": 4, "num_layers": 1,
                     "num_attention_heads": 1, "rope_axes_dim": (16, 56, 56)},
        vae={"latent_channels": 4, "block_out_channels": (8, 8), "layers_per_block": 1,
             "spatial_compression_ratio": 4, "temporal_compression_ratio": 2,
             "downsample_match_channel": False, "upsample_match_channel": False},
    )  # fmt: skip
    model = _model(pipeline, options={"frames": 5, "max_sequence_length": 8})
    policy: Any = policy_of(family, small, model, "cpu")
    conditions = random_conditions(policy, 2)
    x = policy.initial_noise(2, torch.Generator().manual_seed(0))
    assert policy.velocity(x, torch.tensor([0.5, 0.5]), conditions, 6.0).shape == x.shape
