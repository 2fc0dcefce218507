"""Sizes of the published models, whose recipes are planned without a copy of them."""

from __future__ import annotations

import pytest

from paretune.policies.shapes import Shape, read_shape, time_factor
from paretune.recipes import find_recipe, load_config
from paretune.types import ParetuneError


@pytest.mark.parametrize(
    ("recipe", "shape"),
    [
        ("sd35-medium", Shape(512, 512, (16, 64, 64), 1024)),
        ("flux1-dev", Shape(512, 512, (1024, 64), 1024)),
        ("hunyuan-video", Shape(480, 480, (16, 14, 60, 60), 14 * 30 * 30, 53)),
    ],
)
def test_published_recipes(recipe: str, shape: Shape) -> None:
    assert read_shape(load_config(find_recipe(recipe)).model) == shape


@pytest.mark.parametrize(
    ("recipe", "change", "told"),
    [
        ("sd35-medium", "model.height=1000", r"model\.height: 1000 .* multiple of 16, such as 992"),
        ("flux1-dev", "model.width=520", r"model\.width: 520 .* multiple of 16, such as 512"),
        ("hunyuan-video", "model.options.frames=60", r"frames: 60 .* give 4 k \+ 1, such as 53"),
    ],
)
def test_what_would_fit_is_told(recipe: str, change: str, told: str) -> None:
    with pytest.raises(ParetuneError, match=told):
        read_shape(load_config(find_recipe(recipe), [change]).model)


def test_answers_have_no_size() -> None:
    assert read_shape(load_config(find_recipe("llama2-7b")).model) is None


@pytest.mark.parametrize(("blocks", "factor"), [(1, 1), (2, 2), (3, 4), (4, 4)])
def test_a_small_autoencoder_compresses_less_in_time(blocks: int, factor: int) -> None:
    vae = {"block_out_channels": [8] * blocks, "temporal_compression_ratio": 4}
    assert time_factor(vae) == factor
