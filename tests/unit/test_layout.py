"""Contrast and prominence by hand: what is asked for counts, what is not there scores nothing."""

from __future__ import annotations

import math
import random

import pytest
import torch

from paretune.rewards.base import load_reward
from paretune.rewards.worlds.layout import ContrastReward, ProminenceReward, contrast, luminance
from paretune.types import Prompt
from paretune.worlds.pictures.render import Style, render
from paretune.worlds.pictures.scenes import Group, Scene, caption, geneval_metadata


def shown(scene: Scene, background: str = "navy", plate: str = "black", large: bool = True) -> torch.Tensor:
    drawn = render(scene, Style(background, plate, large, False), random.Random(0))
    return torch.from_numpy(drawn).permute(2, 0, 1).float() / 255


def prompt(scene: Scene) -> Prompt:
    return Prompt(caption(scene), geneval_metadata(scene))


YELLOW = Scene((Group("square", "yellow"),))


def test_luminance_of_the_corners_of_srgb() -> None:
    corners = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0]])
    light = luminance(corners[:, :, None, None])[:, 0, 0]
    assert light.tolist() == pytest.approx([0, 1, 0.2126, 0.7152], abs=1e-4)


def test_contrast_is_the_log_of_wcag_s_ratio() -> None:
    assert contrast(0.5, 0.5) == 0
    assert contrast(0.0, 1.0) == 1  # 21:1
    assert contrast(0.0, 0.05) == pytest.approx(math.log(2) / math.log(7))


def test_a_bright_shape_stands_out_on_a_dark_ground() -> None:
    pictures = torch.stack([shown(YELLOW, "navy"), shown(YELLOW, "cream"), torch.zeros(3, 32, 32)])
    dark, pale, blank = ContrastReward().score(pictures, [prompt(YELLOW)] * 3).tolist()
    assert dark == 1
    assert pale < 0.4
    assert blank == 0


def test_a_shape_that_was_not_asked_for_counts_nothing() -> None:
    asked = prompt(Scene((Group("circle", "red"),)))
    for reward in (ContrastReward(), ProminenceReward()):
        assert reward.score(shown(YELLOW)[None], [asked]).item() == 0


def test_half_of_the_shapes_is_half_of_the_score() -> None:
    two = prompt(Scene((Group("square", "yellow", 2),)))
    one = prompt(YELLOW)
    for reward in (ContrastReward(), ProminenceReward()):
        full, half = reward.score(torch.stack([shown(YELLOW)] * 2), [one, two]).tolist()
        assert half == pytest.approx(full / 2)


def test_the_word_must_be_read_to_stand_out() -> None:
    sign = Scene(word="drum")
    right, wrong = prompt(sign), Prompt("a sign saying opal", {"include": [], "text": "opal"})
    clear, other = ContrastReward().score(torch.stack([shown(sign)] * 2), [right, wrong]).tolist()
    assert clear == 1
    assert other < 0.3
    sand = ContrastReward().score(shown(sign, plate="sand")[None], [right]).item()
    assert sand < 0.8


def test_large_shapes_are_more_prominent() -> None:
    pictures = torch.stack([shown(YELLOW, large=True), shown(YELLOW, large=False)])
    large, small = ProminenceReward().score(pictures, [prompt(YELLOW)] * 2).tolist()
    assert large == 1
    assert 0.2 < small < 0.9


def test_they_know_what_they_apply_to() -> None:
    assert not ProminenceReward().applies(prompt(Scene(word="drum")))
    assert ContrastReward().applies(prompt(Scene(word="drum")))
    assert not ContrastReward().applies(Prompt("words alone"))
    assert load_reward("pictures.prominence").name == "prominence"
