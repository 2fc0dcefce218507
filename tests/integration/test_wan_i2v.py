"""Wan's image to video beyond what every family does: 2.2's two transformers, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.config import ModelConfig
from paretune.models.facts import read_shape
from paretune.models.flow import Sampling, sample
from paretune.models.loading import open_policy
from paretune.models.true_sizes import policy_of, random_conditions
from paretune.models.wan_i2v.family import FAMILY
from paretune.types import ParetuneError
from tests.families.wan import published
from tests.families.wan_i2v import CASE, make_wan_i2v, theirs


def _policy(folder: Path, **options: Any) -> Any:
    own = {**CASE.model["options"], **options}
    return open_policy(ModelConfig.model_validate({"path": str(folder), **CASE.model, "options": own}))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wan_i2v(tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_two_transformers_without_an_encoder_of_the_picture(tmp_path: Path, guidance: float) -> None:
    policy = _policy(make_wan_i2v(tmp_path, two=True))
    assert policy.pipe.image_encoder is None
    texts = [prompt.text for prompt in CASE.prompts(tmp_path / "inputs")]
    noise = policy.initial_noise(2, torch.Generator().manual_seed(0))
    ours = policy.decode(sample(policy, policy.encode(texts, True), noise, Sampling(4, guidance)).clean)
    policy.load_text()
    torch.testing.assert_close(ours, theirs(policy, texts, noise, 4, guidance), atol=1e-5, rtol=0)


def test_the_picture_is_the_first_of_empty_frames(one: Path, tmp_path: Path) -> None:
    policy = _policy(one)
    texts = [prompt.text for prompt in CASE.prompts(tmp_path)]
    more = policy.encode(texts, False).more
    assert more["picture"].shape == (2, 2 + 4, 3, 8, 8)
    mask = more["picture"][:, :2].mean((0, 3, 4))  # which frames are given: two in each latent frame
    assert mask.tolist() == [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    assert more["picture_embeds"].shape == (2, 5, 8)
    assert not torch.equal(more["picture"][0], more["picture"][1])


def test_a_model_of_true_size_is_built_with_random_pictures(one: Path) -> None:
    config = ModelConfig.model_validate({"path": "owner/name", **CASE.model})
    policy: Any = policy_of(FAMILY, published(one, ["transformer"]), config, "cpu")
    noise = policy.initial_noise(2, torch.Generator().manual_seed(0))
    v = policy.velocity(noise, torch.tensor([0.95, 0.5]), random_conditions(policy, 2), 5.0)
    assert v.shape == noise.shape


def test_a_model_that_keeps_its_first_frame_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParetuneError, match="keeps the first frame of its samples"):
        _policy(make_wan_i2v(tmp_path, two=True, expand_timesteps=True))


def test_other_lengths_of_text_than_an_encoded_picture_allows_are_one_line(one: Path) -> None:
    with pytest.raises(ParetuneError, match="encodes its picture has 512 text tokens; leave the option out"):
        _policy(one, max_sequence_length=64)


def test_a_model_of_two_pictures_is_one_line(one: Path, tmp_path: Path) -> None:
    shutil.copytree(one, tmp_path / "model")
    path = tmp_path / "model" / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pos_embed_seq_len": 10}))
    config = ModelConfig.model_validate({"path": str(tmp_path / "model"), **CASE.model})
    with pytest.raises(ParetuneError, match="needs a last picture too"):
        read_shape(config)


def test_a_folder_without_its_encoder_of_the_picture_is_one_line(one: Path, tmp_path: Path) -> None:
    shutil.copytree(one, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "image_encoder")
    with pytest.raises(ParetuneError, match=r"lacks its image_encoder$"):
        _policy(tmp_path / "model")
