"""Recipes of published models that share a family: their sizes, and what makes them differ."""

from __future__ import annotations

import pytest

from paretune.models.detect import family_of
from paretune.planning.estimate import estimate
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config


@pytest.mark.parametrize(
    ("recipe", "billions", "tokens", "gigabytes"),
    [
        ("sd35-large", 8.06, 1024 + 333, (25, 40)),
        ("sd35-large-turbo", 8.06, 1024 + 333, (25, 40)),
        ("flux1-krea", 11.90, 1024 + 512, (33, 50)),
        ("flux1-schnell", 11.89, 1024 + 256, (33, 50)),
    ],
)
def test_they_are_planned_at_their_published_sizes(
    recipe: str, billions: float, tokens: int, gigabytes: tuple[float, float]
) -> None:
    config = load_config(find_recipe(recipe))
    needed = estimate(config, build_plan(config), "cuda")
    assert needed.parameters == pytest.approx(billions * 1e9)
    assert needed.tokens == tokens
    assert needed.memory_gb is not None
    assert gigabytes[0] < needed.memory_gb < gigabytes[1]


def test_a_model_without_guidance_takes_one_pass_a_step_and_four_steps() -> None:
    for recipe in ("sd35-large-turbo", "flux1-schnell"):
        config = load_config(find_recipe(recipe))
        assert family_of(config.model.path).passes(config.model) == 1
        assert (config.model.steps, config.evaluate.steps, config.objective.kl) == (4, 4, 0.0)
    large = load_config(find_recipe("sd35-large")).model
    assert family_of(large.path).passes(large) == 2


def test_the_transformer_of_schnell_has_no_input_for_guidance() -> None:
    dev, schnell = (load_config(find_recipe(name)).model.path for name in ("flux1-dev", "flux1-schnell"))
    published = family_of(dev).published
    assert published[dev].transformer["guidance_embeds"] is True
    assert published[schnell].transformer == {**published[dev].transformer, "guidance_embeds": False}
