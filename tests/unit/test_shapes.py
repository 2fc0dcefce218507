"""Sizes of the published models, whose recipes are planned without a copy of them."""

from __future__ import annotations

import pytest

from paretune.models.facts import read_backbone, read_shape
from paretune.models.hunyuan_video.family import time_factor
from paretune.models.shapes import Shape
from paretune.planning.estimate import PROCESS, estimate
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.types import ParetuneError


@pytest.mark.parametrize(
    ("recipe", "shape", "backbone"),
    [
        ("sd35-medium", Shape(512, 512, (16, 64, 64), 1024), (24, 1536)),
        ("flux1-dev", Shape(512, 512, (1024, 64), 1024), (57, 3072)),
        ("hunyuan-video", Shape(480, 480, (16, 14, 60, 60), 14 * 30 * 30, 53), (60, 3072)),
        ("wan2.1-1.3b", Shape(240, 416, (16, 9, 30, 52), 9 * 15 * 26, 33), (30, 1536)),
        ("wan2.2-a14b", Shape(480, 480, (16, 2, 60, 60), 2 * 30 * 30, 5), (40, 5120)),
        ("wan2.1-i2v-14b", Shape(240, 240, (16, 2, 30, 30), 2 * 15 * 15, 5), (40, 5120)),
        ("qwen-image", Shape(512, 512, (1024, 64), 1024), (60, 3072)),
        ("clips", Shape(32, 32, (3, 8, 32, 32), 4 * 8 * 8, 8), (5, 128)),
    ],
)
def test_sizes_of_recipes(recipe: str, shape: Shape, backbone: tuple[int, int]) -> None:
    model = load_config(find_recipe(recipe)).model
    assert read_shape(model) == shape
    assert read_backbone(model) == backbone


def test_the_estimate_of_memory_follows_the_model_and_checkpointing() -> None:
    def memory(recipe: str, *changes: str) -> float:
        config = load_config(find_recipe(recipe), changes)
        told = estimate(config, build_plan(config), "cpu").memory_gb
        assert told is not None
        return told - PROCESS["cpu"] / 1e9

    # 36 clips of 256 + 16 tokens, 5 blocks of 128 units, 40 values each of 4 bytes; 1.2 M parameters beside.
    assert memory("clips") == pytest.approx(36 * 272 * 5 * 128 * 40 * 4 / 1e9, rel=0.02)
    assert memory("clips", "model.gradient_checkpointing=true") < memory("clips") / 2
    assert memory("flux1-dev") < memory("flux1-dev", "model.gradient_checkpointing=false") / 2


@pytest.mark.parametrize(
    ("recipe", "change", "told"),
    [
        ("sd35-medium", "model.height=1000", r"model\.height: 1000 .* multiple of 16, such as 992"),
        ("flux1-dev", "model.width=520", r"model\.width: 520 .* multiple of 16, such as 512"),
        ("hunyuan-video", "model.options.frames=60", r"frames: 60 .* give 4 k \+ 1, such as 53"),
        ("qwen-image", "model.height=1000", r"model\.height: 1000 .* multiple of 16, such as 992"),
        ("wan2.1-1.3b", "model.options.frames=32", r"frames: 32 .* give 4 k \+ 1, such as 81"),
    ],
)
def test_what_would_fit_is_reported(recipe: str, change: str, told: str) -> None:
    with pytest.raises(ParetuneError, match=told):
        read_shape(load_config(find_recipe(recipe), [change]).model)


def test_answers_have_no_size() -> None:
    assert read_shape(load_config(find_recipe("llama2-7b")).model) is None


@pytest.mark.parametrize(("blocks", "factor"), [(1, 1), (2, 2), (3, 4), (4, 4)])
def test_a_small_autoencoder_compresses_less_in_time(blocks: int, factor: int) -> None:
    vae = {"block_out_channels": [8] * blocks, "temporal_compression_ratio": 4}
    assert time_factor(vae) == factor
