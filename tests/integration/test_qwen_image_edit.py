"""What is special to Qwen-Image-Edit: two pipelines, and what they and the text encoder see of a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image

from paretune.config import ModelConfig
from paretune.models.facts import read_shape
from paretune.models.family import Published, by_hub_id
from paretune.models.flow import Sampling, sample
from paretune.models.loading import open_policy
from paretune.planning.peak import measure_update
from paretune.recipes import load_config
from paretune.types import ParetuneError, Pictured
from tests.conftest import tiny_recipe
from tests.families import write_picture
from tests.families.qwen_image_edit import CASE, draw, make


@pytest.fixture(scope="module")
def edit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The older pipeline, whose text encoder sees the picture at the size of the transformer's."""
    return make(tmp_path_factory.mktemp("edit"), "QwenImageEditPipeline")


def _policy(pipeline: Path, **options: Any) -> Any:
    options = {**CASE.model["options"], **options}
    return open_policy(
        ModelConfig.model_validate({"path": str(pipeline), **CASE.model, "options": options})
    )


def _prompt(folder: Path, size: tuple[int, int], seed: int = 1) -> Pictured:
    path = folder / f"{seed}-{size[0]}x{size[1]}.png"
    write_picture(path, size, seed)
    return Pictured("make it red", str(path))


def test_the_older_pipeline_draws_the_same(edit: Path, tmp_path: Path) -> None:
    policy = _policy(edit)
    assert type(policy.pipe).__name__ == "QwenImageEditPipeline"
    prompts = [_prompt(tmp_path, (40, 40)), _prompt(tmp_path, (24, 8), seed=2)]
    noise = policy.initial_noise(2, torch.Generator().manual_seed(0))
    conditions = policy.encode(prompts, True)
    assert conditions.more["picture_size"].tolist() == [[8, 8], [8, 16]]
    ours = policy.decode(sample(policy, conditions, noise, Sampling(3, 4.0)).clean)
    policy.load_text()
    theirs = torch.cat([draw(policy, p, noise[i : i + 1], 3, 4.0) for i, p in enumerate(prompts)])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_transformer_that_takes_the_picture_without_noise_draws_the_same(tmp_path: Path) -> None:
    """As that of Qwen-Image-Edit-2511: the tokens of the input picture have the time 0."""
    folder = make(tmp_path)
    config = folder / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"zero_cond_t": false', '"zero_cond_t": true'))
    policy, prompt = _policy(folder), _prompt(tmp_path, (24, 8))
    assert policy.transformer.zero_cond_t
    noise = policy.initial_noise(1, torch.Generator().manual_seed(0))
    ours = policy.decode(sample(policy, policy.encode([prompt], True), noise, Sampling(3, 4.0)).clean)
    policy.load_text()
    torch.testing.assert_close(ours, draw(policy, prompt, noise, 3, 4.0), atol=1e-5, rtol=0)


def test_prompts_that_are_read_in_parts_are_the_same(edit: Path, tmp_path: Path) -> None:
    """Texts and negative prompts are as long as their pictures make them, and are filled up when joined."""
    policy = _policy(edit)
    policy.lazy_text = False  # nothing comes from the cache
    prompts = [_prompt(tmp_path, (40, 40)), _prompt(tmp_path, (24, 8), seed=2)]
    whole, parts = (policy.encode(prompts, True, batch=batch).tensors() for batch in (2, 1))
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, msg=name)


def test_texts_and_pictures_are_read_as_by_the_processor_of_transformers(edit: Path) -> None:
    """Its own `__init__` needs torchvision, for the part that reads videos; what it does here does not."""
    from transformers import Qwen2VLProcessor

    pipe = _policy(edit).pipe
    theirs: Any = object.__new__(Qwen2VLProcessor)
    theirs.image_processor, theirs.tokenizer, theirs.video_processor = (
        pipe.processor.images, pipe.tokenizer, None,
    )  # fmt: skip
    theirs.image_token, theirs.video_token = "<|image_pad|>", "<|video_pad|>"
    theirs.image_token_id, theirs.video_token_id = pipe.tokenizer.encode("<|image_pad|>")[0], -1
    theirs.chat_template = None
    texts = ["a <|image_pad|> red", "<|image_pad|>"]
    pictures = [Image.new("RGB", (64, 32)), Image.new("RGB", (32, 96))]
    settings: dict[str, Any] = {"padding": True, "return_tensors": "pt"}
    ours, wanted = (read(text=texts, images=pictures, **settings) for read in (pipe.processor, theirs))
    for name in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw"):
        assert torch.equal(ours[name], wanted[name]), name
    # "a", " ", a mark for each 32 pixels, " re", "d"; three marks.
    assert ours["attention_mask"].sum(1).tolist() == [2 + 2 + 2, 3]


def test_another_picture_is_another_sample(edit: Path, tmp_path: Path) -> None:
    policy = _policy(edit)
    noise = policy.initial_noise(1, torch.Generator().manual_seed(0))
    conditions = [policy.encode([_prompt(tmp_path, (32, 32), seed)], True) for seed in (1, 2)]
    drawn = [sample(policy, c, noise, Sampling(3, 4.0)).clean for c in conditions]
    assert (drawn[0] - drawn[1]).abs().max() > 1e-3


def test_a_saved_pipeline_has_its_processor(edit: Path, tmp_path: Path) -> None:
    assert _policy(edit).save_pretrained(tmp_path / "saved")
    prompt = _prompt(tmp_path, (32, 32))
    embeds = [_policy(folder).encode([prompt], False).embeds for folder in (edit, tmp_path / "saved")]
    assert torch.equal(*embeds)


def test_what_cannot_be_read_is_one_line(edit: Path, tmp_path: Path) -> None:
    policy = _policy(edit)
    with pytest.raises(ParetuneError, match="qwen_image_edit works on an input picture"):
        policy.encode(["make it red"], True)
    with pytest.raises(ParetuneError, match="60x1 pixels, too long for Qwen-Image-Edit"):
        policy.encode([_prompt(tmp_path, (60, 1))], True)
    model = {"path": "Qwen/Qwen-Image-Edit", "options": {"max_sequence_length": 512}}
    with pytest.raises(ParetuneError, match=r"max_sequence_length: the pipelines .* leave it out"):
        read_shape(ModelConfig.model_validate(model))


def test_plan_measures_with_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "Qwen/Qwen-Image-Edit-2509"
    published = by_hub_id()[name].published
    transformer = {
        "in_channels": 64, "num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2,
        "joint_attention_dim": 16, "axes_dims_rope": (2, 2, 4),
    }  # fmt: skip
    tiny = replace(published[name], transformer=transformer, vae={**published[name].vae, "base_dim": 4})
    monkeypatch.setitem(cast("dict[str, Published]", published), name, tiny)
    model = {**CASE.model, "path": name}
    assert measure_update(load_config(tiny_recipe(tmp_path, Path("x"), model=model)), "cpu").random_weights
