"""What is special to one family in training: bfloat16 recipes, masks of tokens, textual inversion, clips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from paretune.config import ModelConfig
from paretune.models.loading import open_policy
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.reward_tokens.files import write_token
from paretune.reward_tokens.pipelines import Scaled
from paretune.rewards.base import FunctionReward
from paretune.training.expert import ExpertTrainer
from paretune.training.mixture import Mixture, PromptSet
from paretune.types import Prompt
from tests.conftest import tiny_recipe

from .commands import call

PROMPTS = [Prompt("a red circle moves left"), Prompt("two blue squares"), Prompt("a green cross moves up")]
SMALL = {
    "flux": {"height": 16, "width": 16, "options": {"max_sequence_length": 16}},
    "hunyuan_video": {"height": 16, "width": 16, "options": {"frames": 5, "max_sequence_length": 16}},
    "sd3": {"height": 16, "width": 16, "options": {"max_sequence_length": 16}},
}
RECIPES = {"flux": "flux1-dev", "hunyuan_video": "hunyuan-video", "sd3": "sd35-medium"}


def _red(samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    return samples.select(-3, 0).flatten(1).mean(1)


def _trainer(folder: Path, pipeline: Path, **changes: Any) -> ExpertTrainer:
    config = load_config(tiny_recipe(folder, pipeline, **changes))
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    own = FunctionReward(_red, "red")
    return ExpertTrainer(config, task, folder, Mixture([PromptSet(own, PROMPTS, kl=0.01)]), None, "cpu")


def _published(name: str, family: str) -> dict[str, Any]:
    """A shipped recipe with its size, steps and batch cut down, everything else as it is."""
    shipped = yaml.safe_load(Path(find_recipe(name)).read_text())
    model = {k: v for k, v in shipped["model"].items() if k != "path"}
    train = {k: v for k, v in shipped["train"].items() if k not in ("epochs", "checkpoint_every")}
    options = shipped["objective"]["options"]
    keep_window = {"window": [0, 3, 2]} if "window" in options else {}
    objective = {**shipped["objective"], "options": {**options, **keep_window}}
    keep = {"keep": 2} if "keep" in train else {}
    small = {"prompts_per_epoch": 2, "group_size": 4, "updates_per_epoch": 2, "micro_batch": 3, "epochs": 1}
    options = {**model["options"], **SMALL[family]["options"]}
    return {
        "model": {**model, **SMALL[family], "options": options, "steps": 4},
        "lora": {**shipped["lora"], "rank": 2},
        "objective": objective,
        "train": {**train, **small, **keep},
    }


@pytest.fixture(params=["flux", "hunyuan_video"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def pipeline(family: str, tiny_flux: Path, tiny_hunyuan: Path) -> Path:
    return {"flux": tiny_flux, "hunyuan_video": tiny_hunyuan}[family]


@pytest.mark.parametrize("name", RECIPES)
def test_the_published_recipe_trains(
    name: str, tiny_flux: Path, tiny_hunyuan: Path, tiny_sd3_t5: Path, tmp_path: Path
) -> None:
    family, pipeline = name, {"flux": tiny_flux, "hunyuan_video": tiny_hunyuan, "sd3": tiny_sd3_t5}[name]
    trainer = _trainer(tmp_path, pipeline, **_published(RECIPES[name], family))
    assert trainer.policy.transformer.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in trainer.state.parameters.values())
    assert trainer.policy.pipe.text_encoder is None  # type: ignore[attr-defined]
    before = [p.detach().clone() for p in trainer.state.parameters.values()]
    row = trainer.epoch()
    assert row["ratio"] == pytest.approx(1.0, abs=0.02)
    assert row["kept_groups"] > 0
    after = trainer.state.parameters.values()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    if family == "hunyuan_video":
        assert len(trainer.objective.steps) == 2  # type: ignore[attr-defined]
        assert len(trainer.objective.batch.advantages) == 2 * row["kept_groups"]  # type: ignore[attr-defined]


def test_reward_tokens_enter_every_encoder(family: str, pipeline: Path) -> None:
    policy: Any = open_policy(ModelConfig.model_validate({"path": str(pipeline), **SMALL[family]}))
    token = policy.new_token("red", 2, "", torch.Generator().manual_seed(0))
    assert set(token.vectors) == {"text_encoder", "text_encoder_2"}
    texts = [p.text for p in PROMPTS]
    plain = policy.encode(texts, False)
    absent = policy.encode(texts, False, [Scaled(token, scale=0.0)])
    torch.testing.assert_close(absent.embeds, plain.embeds, rtol=0, atol=0)
    present = policy.encode(texts, False, [Scaled(token)])
    present.embeds.square().mean().add(present.pooled.square().mean()).backward()
    assert all(v.grad is not None and v.grad.abs().max() > 0 for v in token.vectors.values())
    if family == "hunyuan_video":  # two more tokens, which its mask lets the model see
        assert (present.mask.sum(1) - plain.mask.sum(1)).tolist() == [2, 2, 2]


def test_a_plain_flux_pipeline_loads_the_tokens(tiny_flux: Path, tmp_path: Path) -> None:
    from diffusers import FluxPipeline

    policy = open_policy(ModelConfig.model_validate({"path": str(tiny_flux), **SMALL["flux"]}))
    token = policy.new_token("red", 2, "", torch.Generator().manual_seed(0))
    write_token(tmp_path / "red", token)
    pipe = FluxPipeline.from_pretrained(tiny_flux)
    for number in ("", "_2"):
        encoder, tokenizer = getattr(pipe, f"text_encoder{number}"), getattr(pipe, f"tokenizer{number}")
        file = str(tmp_path / "red" / f"text_encoder{number}.safetensors")
        pipe.load_textual_inversion(file, tokenizer=tokenizer, text_encoder=encoder)
        if hasattr(encoder, "text_model"):
            encoder.text_model.eos_token_id = tokenizer.eos_token_id
    texts = ["a kite", "a circle"]
    with torch.no_grad():
        ours = policy.encode(texts, False, [Scaled(token)])
        words = [f"{text} <red>" for text in texts]  # FLUX's pipeline spells out a token of several vectors
        embeds, pooled, _ = pipe.encode_prompt(words, words, max_sequence_length=16)
        bare = policy.encode(texts, False)
    torch.testing.assert_close(ours.embeds, embeds, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.pooled, pooled, atol=1e-5, rtol=1e-4)
    assert (bare.embeds - ours.embeds).abs().max() > 1e-3
    assert (bare.pooled - ours.pooled).abs().max() > 1e-3


def test_a_whole_run_of_clips(tiny_hunyuan: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        tmp_path / "recipe", tiny_hunyuan, rounds=1, methods=["mapreduce"],
        model=SMALL["hunyuan_video"], train={"epochs": 1}, executor={"workers": 1},
    )  # fmt: skip
    (tmp_path / "recipe" / "rewards.py").write_text(
        "def red(clips, prompts):\n    return clips[:, :, 0].mean((1, 2, 3)).tolist()\n"
        "def dark(clips, prompts):\n    return (1 - clips.mean((1, 2, 3, 4))).tolist()\n"
    )
    out = tmp_path / "run"
    done = call("run", recipe, "--out", out, "--quiet")
    assert done.returncode == 0, done.stderr
    files = {p.name for p in (out / "samples" / "base").iterdir()}
    stems = [f"{reward}-{i:03d}" for reward in ("red", "dark") for i in range(3)]
    assert files == {f"{stem}.{kind}" for stem in stems for kind in ("mp4", "png")}
    assert set(json.loads((out / "summary.json").read_text())["methods"]) > {"base", "mapreduce"}
    page = (out / "report.html").read_text()
    assert page.count("<video") == page.count("data:video/mp4") > 4
