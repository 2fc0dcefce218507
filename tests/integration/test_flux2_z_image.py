"""What is special in Z-Image and FLUX.2: guidance, lengths of texts, and published sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.config import ModelConfig
from paretune.models.detect import family_of
from paretune.models.facts import read_shape
from paretune.models.flow import Sampling, sample
from paretune.models.loading import open_policy
from paretune.models.quantize import in_a_block
from paretune.planning.long_prompts import cuts
from paretune.reward_tokens.pipelines import Scaled
from paretune.types import ParetuneError
from tests.families import PROMPTS, flux2, flux2_klein, z_image

CASES = {case.name: case for case in (z_image.CASE, flux2.CASE, flux2_klein.CASE)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelConfig]:
    """The model of a case, made once."""
    models: dict[str, ModelConfig] = {}

    def make(name: str) -> ModelConfig:
        if name not in models:
            path = CASES[name].make(tmp_path_factory.mktemp(name))
            models[name] = ModelConfig.model_validate({"path": str(path), **CASES[name].model})
        return models[name]

    return make


def test_distilled_models_ignore_guidance_as_their_pipeline_does(tmp_path: Path) -> None:
    path = flux2_klein.make(tmp_path, distilled=True)
    policy: Any = open_policy(ModelConfig.model_validate({"path": str(path), **CASES["flux2_klein"].model}))
    noise = policy.initial_noise(2, torch.Generator().manual_seed(0))
    conditions = policy.encode(list(PROMPTS), True)
    ours = policy.decode(sample(policy, conditions, noise, Sampling(2, 3.0)).clean)
    policy.load_text()
    torch.testing.assert_close(ours, flux2.theirs(policy, PROMPTS, noise, 2, 3.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, flux2.theirs(policy, PROMPTS, noise, 2, 1.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("path", "guidance", "passes"),
    [
        ("Tongyi-MAI/Z-Image-Turbo", 0.0, 1),
        ("Tongyi-MAI/Z-Image", 1.0, 2),
        ("black-forest-labs/FLUX.2-dev", 4.0, 1),
        ("black-forest-labs/FLUX.2-klein-base-4B", 4.0, 2),
        ("black-forest-labs/FLUX.2-klein-base-4B", 1.0, 1),
        ("black-forest-labs/FLUX.2-klein-4B", 4.0, 1),
    ],
)
def test_passes_of_a_guided_step(path: str, guidance: float, passes: int) -> None:
    model = ModelConfig.model_validate({"path": path, "guidance_scale": guidance})
    assert family_of(path).passes(model) == passes


@pytest.mark.parametrize(
    ("path", "billions", "backbone"),
    [
        ("Tongyi-MAI/Z-Image", 6.15, (32, 3840)),
        ("black-forest-labs/FLUX.2-dev", 32.22, (56, 6144)),
        ("black-forest-labs/FLUX.2-klein-4B", 3.88, (25, 3072)),
        ("black-forest-labs/FLUX.2-klein-base-9B", 9.08, (32, 4096)),
    ],
)
def test_published_parameters_are_those_of_the_published_configuration(
    path: str, billions: float, backbone: tuple[int, int]
) -> None:
    import diffusers

    family = family_of(path)
    sizes = family.published[path]
    assert sizes.billions["transformer"] == billions
    with torch.device("meta"):
        model = getattr(diffusers, family.transformer)(**sizes.transformer)
        vae = getattr(diffusers, sizes.vae_class)(**sizes.vae)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(1e9 * billions, abs=5e6)
    assert sum(p.numel() for p in vae.parameters()) == pytest.approx(84e6, abs=1e6)
    assert family.backbone(sizes.transformer) == backbone


@pytest.mark.parametrize(("name", "longest"), [("z_image", 45), ("flux2", 19), ("flux2_klein", 39)])
def test_prompts_that_are_cut_are_counted_with_their_template(
    made: Callable[[str], ModelConfig], name: str, longest: int
) -> None:
    model = made(name)
    limit = model.options["max_sequence_length"]
    assert cuts(model, ["x" * longest]) == []
    assert cuts(model, ["x" * longest, "x" * (longest + 1)]) == [
        f"1 of 2 prompts is longer than the {limit} tokens that text_encoder reads: what follows them is cut"
    ]


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("z_image", "<|im_end|>\n<|im_start|>assistant\n"),
        ("flux2", "[/INST]"),
        ("flux2_klein", "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    ],
)
def test_reward_tokens_stand_where_the_prompt_ends(
    made: Callable[[str], ModelConfig], name: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy: Any = open_policy(made(name))
    token = policy.new_token("red", 2, "", torch.Generator().manual_seed(0))
    seen: list[dict[str, torch.Tensor]] = []
    encoder, tokenizer = policy.pipe.text_encoder, policy.pipe.tokenizer
    forward = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda **inputs: seen.append(inputs) or forward(**inputs))
    with torch.no_grad():
        policy.encode(["a cat", "x"], False, [Scaled(token)])
    texts = []
    for inputs in seen:
        pairs = zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)
        texts += [row[mask].tolist() for row, mask in pairs]
    after = tokenizer(end, add_special_tokens=False)["input_ids"]
    for prompt, ids in zip(("a cat", "x"), texts, strict=False):
        assert ids[-len(after) - 2 :] == [-1, -2, *after]
        assert tokenizer.decode(ids[: -len(after) - 2]).endswith(prompt)


def test_a_picture_beyond_the_positions_of_z_image_is_one_line(made: Callable[[str], ModelConfig]) -> None:
    wide = made("z_image").model_copy(update={"width": 132})
    with pytest.raises(ParetuneError, match=r"model\.width: 132 is more than 128 pixels"):
        read_shape(wide)


def test_a_text_beyond_the_positions_of_z_image_is_one_line(made: Callable[[str], ModelConfig]) -> None:
    small = made("z_image")
    long = small.model_copy(update={"options": {"max_sequence_length": 225}})
    with pytest.raises(ParetuneError, match=r"max_sequence_length is at most 224 for this model"):
        read_shape(long)
    most: Any = open_policy(small.model_copy(update={"options": {"max_sequence_length": 224}}))
    x = most.initial_noise(1, torch.Generator().manual_seed(0))
    v = most.velocity(x, torch.tensor([0.5]), most.encode(["x" * 300], True), 2.0)
    assert torch.isfinite(v).all()


def test_small_layers_outside_the_blocks_are_not_quantised(made: Callable[[str], ModelConfig]) -> None:
    policy: Any = open_policy(made("z_image"))
    chosen = {name for name, module in policy.transformer.named_modules() if in_a_block(module, name)}
    assert "layers.0.attention.to_q" in chosen
    assert "context_refiner.0.attention.to_out.0" in chosen
    assert not chosen & {"cap_embedder.1", "t_embedder.mlp.0", "all_final_layer.2-1.adaLN_modulation.1"}
