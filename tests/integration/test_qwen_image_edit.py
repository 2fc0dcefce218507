"""Qwen-Image-Edit: how its encoder is given a picture, beyond what every family's tests check."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2VLProcessor

from paretune.config import ModelConfig
from paretune.inputs.pictures import open_picture
from paretune.models.loading import open_policy
from paretune.models.qwen_image_edit.family import WRITTEN
from paretune.reward_tokens.pipelines import Scaled
from paretune.types import ParetuneError, Pictured
from tests.families import cases, write_picture

CASE = cases()["qwen_image_edit"]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = CASE.make(tmp_path_factory.mktemp("edit"))
    made: Any = open_policy(ModelConfig.model_validate({"path": str(folder), **CASE.model}))
    made.load_text()
    return made


def _prompt(folder: Path, seed: int, text: str = "make it red") -> Pictured:
    write_picture(folder / f"{seed}.png", (40, 30), seed)
    return Pictured(text, str(folder / f"{seed}.png"))


def test_texts_and_pictures_are_read_as_by_transformers_processor(policy: Any, tmp_path: Path) -> None:
    whole: Any = Qwen2VLProcessor.__new__(Qwen2VLProcessor)  # its constructor needs torchvision, for videos
    whole.image_processor, whole.tokenizer = policy.pipe.processor.images, policy.pipe.tokenizer
    whole.image_token, whole.video_token = "<|image_pad|>", "<|video_pad|>"
    whole.image_token_id = policy.pipe.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    whole.video_token_id = -1
    picture = open_picture(_prompt(tmp_path, 1).image)
    texts = [WRITTEN.format("make it red")]
    ours = policy.pipe.processor(text=texts, images=picture, padding=True, return_tensors="pt")
    theirs = whole(text=texts, images=picture, padding=True, return_tensors="pt")
    for name in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw"):
        assert torch.equal(ours[name], theirs[name]), name
    assert policy.pipe.prompt_template_encode == WRITTEN


def test_the_encoder_sees_the_picture_with_both_prompts(policy: Any, tmp_path: Path) -> None:
    first, second = (policy.encode([_prompt(tmp_path, seed)], True) for seed in (1, 2))
    assert (first.embeds - second.embeds).abs().max() > 1e-3
    assert (first.negative_embeds - second.negative_embeds).abs().max() > 1e-3
    both = policy.encode([_prompt(tmp_path, 1), _prompt(tmp_path, 2, "make it blue and large")], True)
    assert len(both.negative_embeds) == 2
    torch.testing.assert_close(both.negative_embeds[:1], first.negative_embeds, atol=1e-5, rtol=0)


def test_a_reward_token_stands_where_the_prompt_ends(policy: Any, tmp_path: Path) -> None:
    token = policy.new_token("red", 2, "", torch.Generator().manual_seed(0))
    prompt = _prompt(tmp_path, 1)
    plain = policy.encode([prompt], False)
    longer = policy.encode([prompt], False, [Scaled(token)])
    assert longer.embeds.shape[1] == plain.embeds.shape[1] + 2
    end = len(policy.pipe.tokenizer("<|im_end|>\n<|im_start|>assistant\n")["input_ids"])
    same = plain.embeds.shape[1] - end
    torch.testing.assert_close(longer.embeds[:, :same], plain.embeds[:, :same], atol=1e-5, rtol=0)
    assert (longer.embeds[:, same] - plain.embeds[:, same]).abs().max() > 1e-3


def test_a_length_of_prompts_is_refused(policy: Any) -> None:
    options = {**CASE.model["options"], "max_sequence_length": 64}
    model = policy.config.model_copy(update={"options": options})
    with pytest.raises(ParetuneError, match="Qwen-Image-Edit reads whole prompts; leave it out"):
        policy.family.text_tokens(model)
