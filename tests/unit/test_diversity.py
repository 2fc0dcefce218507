"""Diversity within a group: the distances, the groups, and a tiny DINOv2."""

import json
from pathlib import Path

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from paretune.rewards import load_reward, score_samples
from paretune.rewards.hub import normalised
from paretune.rewards.photo.diversity import distances
from paretune.types import Prompt
from tests.photo_models import MEAN, STD, photographs


def test_the_distance_is_the_mean_to_the_others_of_the_prompt() -> None:
    features = torch.tensor([[1.0, 0], [0, 1], [0.6, 0.8], [-1, 0], [1, 0]])
    told = distances(features, ["a", "a", "a", "b", "c"])
    assert told.tolist() == pytest.approx([(1 + 0.4) / 2, (1 + 0.2) / 2, (0.4 + 0.2) / 2, 0, 0])
    assert distances(features, ["a", "b", "b", "a", "b"])[0] == 2  # opposite, and the order is free


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    config = Dinov2Config(
        image_size=28, patch_size=14, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=1
    )
    Dinov2Model(config).save_pretrained(folder)
    settings = {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28},
                "image_mean": MEAN, "image_std": STD}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return str(folder)


def test_a_collapse_is_seen(dino: str) -> None:
    reward = load_reward("diversity", model=dino, device="cpu")
    pictures = photographs(4, 32, 32)
    prompts = [Prompt("a dog")] * 4
    apart = score_samples(reward, pictures, prompts)
    same = score_samples(reward, pictures[:1].expand(4, -1, -1, -1), prompts)
    assert (apart > 1e-4).all()
    assert same.abs().max() < 1e-5
    network = Dinov2Model.from_pretrained(Path(dino)).eval()
    with torch.no_grad():
        seen = network(normalised(pictures[..., 2:30, 2:30], MEAN, STD)).pooler_output
    cosines = torch.nn.functional.cosine_similarity(seen[:1], seen[1:])
    assert float(apart[0]) == pytest.approx(float((1 - cosines).mean()), abs=1e-5)


def test_batches_do_not_part_a_group(dino: str) -> None:
    reward = load_reward("diversity", model=dino, device="cpu")
    pictures, prompts = photographs(7, 32, 32), [Prompt(text) for text in "aabbbcc"]
    whole = score_samples(reward, pictures, prompts)
    for size in (1, 2, 3, 5):
        assert torch.allclose(score_samples(reward, pictures, prompts, batch_size=size), whole, atol=1e-6)
    assert whole.min() > 0
