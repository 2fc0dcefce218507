"""The dial of conflict in the world of pictures: what `pictures.preference` likes by it, on renders."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from paretune.rewards import load_reward
from paretune.rewards.worlds.preference import PreferenceReward
from paretune.types import ParetuneError, Prompt
from paretune.worlds.pictures.render import Style, render
from paretune.worlds.pictures.scenes import COLORS, SHAPES, Group, Scene, caption, geneval_metadata

STYLE = Style("cream", "white", large=True, outline=False)


def drawn(scene: Scene, light: float = 1.0) -> torch.Tensor:
    """A rendering, float32 [3, 32, 32], of which the light is left."""
    pixels = render(scene, STYLE, random.Random(0))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 * light


def spoilings(scene: Scene) -> list[torch.Tensor]:
    """The scene as asked, then ever more spoiled: without its sign or with other shapes too, darker."""
    if scene.word is not None:
        bare = replace(scene, word=None, sign_place=None)
        return [drawn(scene), drawn(scene, 0.5), drawn(scene, 0.2), drawn(bare), drawn(bare, 0.5)]
    asked = {(group.shape, group.color) for group in scene.groups}
    free = [Group(shape, color) for shape in SHAPES for color in COLORS if (shape, color) not in asked]
    more = [replace(scene, groups=(*scene.groups, *free[:count])) for count in (1, 2)]
    return [drawn(scene), drawn(scene, 0.8), drawn(more[0]), drawn(more[1]), drawn(more[1], 0.8)]


SHAPES_ASKED = [Scene((Group("circle", "red"), Group("square", "blue"))), Scene((Group("cross", "green"),))]
SIGNS = [
    Scene((Group("circle", "red"),), word="quiz", sign_place="below"),
    Scene((Group("triangle", "purple"),), word="drum", sign_place="above"),
]


def ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks [n], equal values at the mean of theirs."""
    below = (values[None] < values[:, None]).sum(1)
    return (below + ((values[None] == values[:, None]).sum(1) - 1) / 2).double()


def spearman(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([ranks(first), ranks(second)]))[0, 1])


@pytest.mark.parametrize(("spec", "scenes"), [("pictures.geneval", SHAPES_ASKED), ("pictures.ocr", SIGNS)])
def test_at_one_the_preference_opposes_composition_and_text(spec: str, scenes: list[Scene]) -> None:
    agrees, opposes, asked = PreferenceReward(), PreferenceReward(conflict=1), load_reward(spec)
    for scene in scenes:
        pictures = torch.stack(spoilings(scene))
        prompts = [Prompt(caption(scene), geneval_metadata(scene))] * len(pictures)
        kept = asked.score(pictures, prompts)
        assert kept[0] == 1
        assert kept[-1] < 1
        assert spearman(kept, opposes.score(pictures, prompts)) < -0.5
        if spec == "pictures.geneval":  # the trained network sees a missing sign as no great fault
            assert spearman(kept, agrees.score(pictures, prompts)) > 0.3


def test_in_between_is_the_weighted_sum_and_zero_is_the_network_alone() -> None:
    pictures, prompts = torch.stack(spoilings(SIGNS[0])), [Prompt(caption(SIGNS[0]))] * 5
    none, half, full = (PreferenceReward(conflict=c).score(pictures, prompts) for c in (0, 0.5, 1))
    assert torch.equal(none, PreferenceReward().score(pictures, prompts))
    assert torch.allclose(half, 0.5 * none + 0.5 * full)
    assert (full[0] < 0.2, full[-1] > 0.4) == (True, True)


@pytest.mark.parametrize("dial", [-0.1, 1.5, "much", True])
def test_a_dial_beyond_its_range_is_one_line(dial: Any) -> None:
    with pytest.raises(ParetuneError, match=r"pictures\.preference: conflict is a number from 0 to 1, not"):
        load_reward("pictures.preference", conflict=dial)
