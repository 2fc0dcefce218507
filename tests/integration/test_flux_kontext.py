"""FLUX.1-Kontext: what its input pictures do, beyond what every family's tests check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.flux import pipeline_flux_kontext

from paretune.config import ModelConfig
from paretune.inputs.pictures import open_picture
from paretune.models.family import by_hub_id
from paretune.models.flow import Sampling, sample
from paretune.models.flux_kontext import policy as ours
from paretune.models.loading import open_policy
from paretune.planning.methods import build_plan
from paretune.planning.peak import measure_update
from paretune.recipes import load_config
from paretune.rewards.base import FunctionReward
from paretune.training.expert import ExpertTrainer
from paretune.training.mixture import Mixture, PromptSet
from paretune.types import ParetuneError, Pictured, Prompt
from tests.conftest import tiny_recipe
from tests.families import cases, write_picture

CASE = cases()["flux_kontext"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CASE.make(tmp_path_factory.mktemp("kontext"))


def _policy(pipeline: Path, resize: bool = False) -> Any:
    options = {**CASE.model["options"], "resize_picture": resize}
    return open_policy(
        ModelConfig.model_validate({"path": str(pipeline), **CASE.model, "options": options})
    )


def _prompt(folder: Path, seed: int, size: tuple[int, int] = (16, 16)) -> Pictured:
    path = folder / f"{seed}-{size[0]}x{size[1]}.png"
    write_picture(path, size, seed)
    return Pictured("make it red", str(path))


def _draw(policy: Any, prompt: Pictured, noise: torch.Tensor) -> torch.Tensor:
    conditions = policy.encode([prompt], False)
    return policy.decode(sample(policy, conditions, noise, Sampling(3, 2.5)).clean)


def test_a_picture_is_resized_as_the_pipeline_does(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(16, 24), (20, 20), (24, 16)]  # Kontext's own have a million pixels
    monkeypatch.setattr(pipeline_flux_kontext, "PREFERRED_KONTEXT_RESOLUTIONS", sizes)
    monkeypatch.setattr(ours, "PREFERRED_KONTEXT_RESOLUTIONS", sizes)
    policy, prompt = _policy(pipeline, resize=True), _prompt(tmp_path, 1, (61, 38))
    noise = policy.initial_noise(1, torch.Generator().manual_seed(0))
    assert policy.encode([prompt], False).more["picture_size"].tolist() == [[4, 6]]
    drawn = _draw(policy, prompt, noise)
    theirs = policy.pipe(
        open_picture(prompt.image), str(prompt), latents=noise, num_inference_steps=3, guidance_scale=2.5,
        output_type="pt", height=16, width=16, max_area=256, max_sequence_length=16,
    ).images  # fmt: skip
    torch.testing.assert_close(drawn, theirs, atol=1e-5, rtol=0)


def test_another_picture_is_another_sample_and_a_changed_file_is_seen(pipeline: Path, tmp_path: Path) -> None:
    policy = _policy(pipeline)
    noise = policy.initial_noise(1, torch.Generator().manual_seed(0))
    first, second = _prompt(tmp_path, 1), _prompt(tmp_path, 2)
    drawn = _draw(policy, first, noise)
    assert (drawn - _draw(policy, second, noise)).abs().max() > 1e-3
    Path(first.image).write_bytes(Path(second.image).read_bytes())
    assert torch.equal(_draw(policy, first, noise), _draw(policy, second, noise))


def test_plan_measures_with_pictures(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(tiny_recipe(tmp_path, pipeline, CASE.pictures, model=dict(CASE.model)))
    assert not measure_update(config, "cpu").random_weights
    name = "black-forest-labs/FLUX.1-Kontext-dev"
    published: Any = by_hub_id()[name].published
    parts = (vars(_policy(pipeline).pipe)[part].config for part in ("transformer", "vae"))
    transformer, vae = ({k: v for k, v in part.items() if k[0] != "_"} for part in parts)
    monkeypatch.setitem(published, name, replace(published[name], transformer=transformer, vae=vae))
    hub = config.model.model_copy(update={"path": name})
    assert measure_update(config.model_copy(update={"model": hub}), "cpu").random_weights


def test_rewards_see_the_pictures_in_training(pipeline: Path, tmp_path: Path) -> None:
    seen = list[tuple[str, tuple[int, int]]]()

    def like(samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        for prompt in prompts:
            seen.append((prompt.text, open_picture(prompt.metadata["image"]).size))
        return samples.flatten(1).mean(1)

    config = load_config(tiny_recipe(tmp_path, pipeline, CASE.pictures, model=dict(CASE.model)))
    prompts = CASE.prompts(tmp_path / "own")
    mixture = Mixture([PromptSet(FunctionReward(like, "like"), prompts)])
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    ExpertTrainer(config, task, tmp_path, mixture, None, "cpu").epoch()
    assert set(seen) == {("a red circle", (16, 16)), ("two blue squares", (24, 13))}
    assert len(seen) == 6  # two groups of three


def test_what_does_not_fit_is_one_line(pipeline: Path, tmp_path: Path) -> None:
    policy = _policy(pipeline)
    with pytest.raises(ParetuneError, match="flux_kontext works on an input picture"):
        policy.encode([_prompt(tmp_path, 1), "a plain text"], False)
    with pytest.raises(ParetuneError, match=r"2x30\.png has 2x30 pixels; 4x4 are the least"):
        policy.encode([_prompt(tmp_path, 1, (2, 30))], False)
