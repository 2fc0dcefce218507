"""VBench's judges of clips: literal formulas, and the real code on tiny random networks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from paretune.rewards.base import RewardError, load_reward, score_samples
from paretune.rewards.clips import vbench
from paretune.types import Prompt

PROMPTS = [Prompt("a dog"), Prompt("a cat")]


def clips(frames: int = 4) -> torch.Tensor:
    return torch.rand(2, frames, 3, 24, 36, generator=torch.Generator().manual_seed(0))


def test_flicker_is_one_minus_the_mean_difference() -> None:
    """temporal_flickering.py: (255 - mean of the MAE of neighbouring frames) / 255."""
    clip = torch.zeros(1, 3, 3, 4, 4)
    clip[:, 1] = 51 / 255  # differences of 51, then 51: 1 - 0.2
    still = torch.full_like(clip, 0.3)
    scores = score_samples(vbench.Flicker(), torch.cat([clip, still]), PROMPTS)
    assert scores.tolist() == pytest.approx([0.8, 1.0])


def test_consistency_looks_at_the_former_and_the_first_frame() -> None:
    """subject_consistency.py: (max(0, cos former) + max(0, cos first)) / 2, the mean over frames 2..T."""
    features = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [-1.0, 0.0]])
    # frame 2: 0 and 0; frame 3: 1 and 0; frame 4: 0 and -1, which counts as 0
    assert vbench.consistency(features).item() == pytest.approx((0 + 0.5 + 0) / 3)
    assert vbench.consistency(torch.ones(5, 3)).item() == pytest.approx(1.0)


def test_speed_and_rule_of_the_dynamic_degree() -> None:
    """dynamic_degree.py: top 5 % of the flow's lengths, 6 pixels for a side of 256, 4 of 16 frames."""
    flow = torch.zeros(10, 10, 2)
    flow[0, :5] = torch.tensor([3.0, 4.0])  # 5 of 100 arrows, of length 5
    assert vbench.fastest(flow) == pytest.approx(5.0)
    assert not vbench.moves([6.0] * 15, 16, 256)  # above, not at
    assert vbench.moves([6.1] * 4 + [0.0] * 11, 16, 256)
    assert not vbench.moves([6.1] * 3 + [0.0] * 12, 16, 256)
    assert vbench.moves([12.1] * 4 + [0.0] * 11, 16, 512)
    assert not vbench.moves([12.0] * 15, 16, 512)


def test_neighbourhoods_are_ordered_as_the_flow_model_was_trained() -> None:
    """deepmind-research, io_processors.patches_for_flow: (row, column, channel), zeros around."""
    frames = torch.arange(2 * 3 * 2 * 2, dtype=torch.float32).view(2, 3, 2, 2) + 1
    found = vbench.neighbourhoods(frames)
    assert found.shape == (2, 27, 2, 2)
    assert found[0, :, 0, 0].tolist() == [
        0, 0, 0, 0, 0, 0, 0, 0, 0,  # the row above
        0, 0, 0, 1, 5, 9, 2, 6, 10,  # outside, the pixel, its right neighbour
        0, 0, 0, 3, 7, 11, 4, 8, 12,
    ]  # fmt: skip


def test_frames_keep_their_shape() -> None:
    assert vbench.shorter_side(torch.zeros(1, 3, 480, 832), "bilinear").shape == (1, 3, 224, 388)
    assert vbench.shorter_side(torch.zeros(1, 3, 300, 100), "bilinear").shape == (1, 3, 672, 224)


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=224,
        patch_size=112,
    )  # fmt: skip
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def test_subject_consistency_is_that_of_the_networks_first_token(dino: Path) -> None:
    from transformers import ViTModel

    score = vbench.SubjectConsistency(str(dino), "cpu").score(clips(), PROMPTS)
    network = ViTModel.from_pretrained(dino, add_pooling_layer=False).eval()
    frames = vbench.shorter_side((clips()[0] * 255).round(), "bilinear") / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in vbench.IMAGENET)
    with torch.no_grad():
        states = network((frames - mean) / std, interpolate_pos_encoding=True).last_hidden_state[:, 0]
    assert score[0].item() == pytest.approx(vbench.consistency(states).item(), abs=1e-5)
    still = clips()[:, :1].expand(-1, 4, -1, -1, -1)
    assert score_samples(load_reward("vbench_subject", model=str(dino)), still, PROMPTS).tolist() == \
        pytest.approx([1.0, 1.0])  # fmt: skip


def test_background_consistency_runs_on_clip(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**tiny, "vocab_size": 12, "bos_token_id": 10, "eos_token_id": 11},
        vision_config={**tiny, "image_size": 32, "patch_size": 16}, projection_dim=8,
    )  # fmt: skip
    torch.manual_seed(1)
    CLIPModel(config).save_pretrained(tmp_path)
    reward = load_reward("vbench_background", model=str(tmp_path))
    scores = score_samples(reward, clips(), PROMPTS)
    assert ((scores > 0) & (scores < 1)).all()
    still = clips()[:, :1].expand(-1, 4, -1, -1, -1)
    assert score_samples(reward, still, PROMPTS).tolist() == pytest.approx([1.0, 1.0])


def test_dynamic_degree_runs_on_a_perceiver(tmp_path: Path) -> None:
    from transformers import PerceiverConfig, PerceiverForOpticalFlow

    torch.manual_seed(0)
    # The class itself fixes 322 channels of its input: 64 of the patches and 258 of positions.
    config = PerceiverConfig(
        num_latents=4, d_latents=16, d_model=322, num_self_attends_per_block=1, num_self_attention_heads=2,
        num_cross_attention_heads=1, train_size=[8, 12],
    )  # fmt: skip
    PerceiverForOpticalFlow(config).save_pretrained(tmp_path)
    reward = vbench.DynamicDegree(8.0, str(tmp_path), "cpu")
    flow = reward._flow(*(clips()[0, :2] * 255))
    assert flow.shape == (8, 12, 2)
    assert bool(torch.isfinite(flow).all())
    assert reward._step == 1
    assert set(reward.score(clips(), PROMPTS).tolist()) <= {0.0, 1.0}
    expected = vbench.moves(
        [vbench.fastest(reward._flow(*(clips()[0, i : i + 2] * 255).round())) for i in range(3)], 4, 24
    )
    assert reward.score(clips()[:1], PROMPTS[:1]).item() == float(expected)
    assert math.isclose(vbench.FLOW_SCALE, 20.0)


def test_pictures_and_single_frames_are_refused() -> None:
    for samples in (torch.rand(1, 3, 8, 8), torch.rand(1, 1, 3, 8, 8)):
        with pytest.raises(RewardError, match="scores clips of two frames or more"):
            score_samples(vbench.Flicker(), samples, PROMPTS[:1])
