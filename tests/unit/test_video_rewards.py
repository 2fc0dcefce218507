"""Rewards and judges of clips on drawings whose faults are known."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from paretune.rewards.base import RewardError, load_reward, score_samples
from paretune.rewards.worlds.tracking import track
from paretune.rewards.worlds.video import MotionQuality, VideoQuality
from paretune.rewards.worlds.video_judges import MotionJudge, VisualJudge, displacement
from paretune.types import Prompt
from paretune.worlds.clips.render import Style, render
from paretune.worlds.clips.scenes import Clip, all_clips, caption, record

CLIPS = all_clips()[::24]  # each shape twice, half of them quick
OTHER = {"shape": {"circle": "square", "square": "triangle", "triangle": "cross", "cross": "circle"},
         "direction": {"left": "right", "right": "left", "up": "down", "down": "up"},
         "speed": {"slowly": "quickly", "quickly": "slowly"}}  # fmt: skip


def drawn(fault: str = "") -> tuple[torch.Tensor, list[Prompt]]:
    """Clips [8, 8, 3, 32, 32] with that fault, and the prompts of what they should show."""
    rng, told = random.Random(0), [replace(c, speed=s) for c, s in zip(CLIPS, SPEEDS, strict=True)]
    shown = [replace(c, **{fault: OTHER[fault][getattr(c, fault)]}) for c in told] if fault in OTHER else told
    style = Style("navy", 12, smear=fault == "smear")
    flaw = fault if fault in ("frozen", "jitter", "flicker", "blur") else None
    frames = np.stack([render(c, style, rng, flaw) for c in shown])  # type: ignore[arg-type]
    clips = torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float() / 255
    return clips, [Prompt(caption(c), record(c)) for c in told]


SPEEDS = ("slowly", "quickly") * 4


@pytest.mark.parametrize(
    ("fault", "visual", "motion"),
    [
        ("", (0.99, 1.0), (0.97, 1.0)),
        ("frozen", (0.99, 1.0), (0.0, 0.2)),  # the conflict: sharp, and not moving
        ("smear", (0.6, 0.95), (0.97, 1.0)),  # and its other half
        ("blur", (0.4, 0.7), (0.97, 1.0)),
        ("shape", (0.0, 0.4), (0.97, 1.0)),
        ("jitter", (0.95, 1.0), (0.0, 0.1)),
        ("flicker", (0.6, 0.95), (0.0, 0.4)),
        ("direction", (0.99, 1.0), (0.0, 0.1)),
        ("speed", (0.99, 1.0), (0.0, 0.1)),
    ],
)
def test_each_reward_sees_its_own_faults(
    fault: str, visual: tuple[float, float], motion: tuple[float, float]
) -> None:
    clips, prompts = drawn(fault)
    for reward, (low, high) in ((VideoQuality(), visual), (MotionQuality(), motion)):
        mean = float(reward.score(clips, prompts).mean())
        assert low - 1e-6 <= mean <= high + 1e-6, (reward.name, mean)


@pytest.mark.parametrize(
    ("fault", "visual", "motion"),
    [("", 1.0, 1.0), ("frozen", 1.0, 0.0), ("shape", 0.0, 1.0), ("blur", 0.0, 1.0), ("direction", 1.0, 0.0)],
)
def test_the_judges_agree_by_other_means(fault: str, visual: float, motion: float) -> None:
    clips, prompts = drawn(fault)
    assert float(VisualJudge().score(clips, prompts).mean()) == pytest.approx(visual, abs=0.1)
    assert float(MotionJudge().score(clips, prompts).mean()) == pytest.approx(motion, abs=0.1)


def test_blank_and_noisy_clips_earn_nothing() -> None:
    _, prompts = drawn()
    blank = torch.full((8, 8, 3, 32, 32), 0.3)
    noise = torch.rand(8, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for clips in (blank, noise):
        for reward in (VideoQuality(), MotionQuality(), VisualJudge(), MotionJudge()):
            assert float(reward.score(clips, prompts).max()) < 0.2, reward.name


def test_a_track_follows_the_centre() -> None:
    clip = Clip("circle", "red", "right", "quickly")
    frames = torch.from_numpy(render(clip, Style("navy", 10), random.Random(3))).permute(0, 3, 1, 2)[None]
    found = track(frames.float() / 255)
    torch.testing.assert_close(found.steps[0], torch.tensor([[2.0, 0.0]]).expand(7, 2), atol=0.05, rtol=0)


def test_displacement_is_found_between_pixels() -> None:
    line = torch.arange(32.0)
    first = torch.exp(-((line[None] - 12) ** 2 + (line[:, None] - 15) ** 2) / 18)
    second = torch.exp(-((line[None] - 9.5) ** 2 + (line[:, None] - 16) ** 2) / 18)
    torch.testing.assert_close(displacement(first, second), torch.tensor([-2.5, 1.0]), atol=0.05, rtol=0)


def test_a_prompt_without_facts_and_pictures_are_one_line() -> None:
    clips, prompts = drawn()
    with pytest.raises(RewardError, match="need a record with direction"):
        score_samples(load_reward("clips.motion_quality"), clips, [Prompt("a red circle")] * 8)
    with pytest.raises(RewardError, match="was given pictures of shape"):
        score_samples(load_reward("clips.video_quality"), clips[:, 0], prompts)
