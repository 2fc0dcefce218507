"""Several rewards on the same prompts and samples: each is asked about its own, and none spoils another's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.recipes import find_recipe, load_config
from paretune.rewards.base import load_reward
from paretune.stages.evaluate import EvaluateJob, Subject, _score
from paretune.stages.scorers import scale_of, scorers_of
from paretune.training.mixture import Mixture, PromptSet
from paretune.types import Prompt

SIGN = Prompt('a sign "drum"')
OBJECTS = Prompt("a red circle", {"include": [{"class": "circle", "count": 1}]})


class Spoils:
    """Returns the mean of the samples, and then wipes them and the records out."""

    name, range, higher_is_better = "spoils", (0.0, 1.0), True

    def score(self, samples: Any, prompts: Sequence[Prompt]) -> torch.Tensor:
        means = samples.flatten(1).mean(1)
        samples.zero_()
        for prompt in prompts:
            prompt.metadata.clear()  # type: ignore[attr-defined]
        return means


def test_morl_dr_asks_each_reward_about_the_prompts_that_it_can_score() -> None:
    """The reward of signs is not asked about objects, nor the one of objects about signs."""
    rewards = [load_reward("ocr"), load_reward("pictures.geneval"), load_reward("pictures.preference")]
    sets = [[SIGN], [OBJECTS], [Prompt("anything")]]
    mixture = Mixture([PromptSet(r, p) for r, p in zip(rewards, sets, strict=True)], scoring="all")
    pictures = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    scores = mixture.score(pictures, torch.tensor([0, 1, 2]), timeout=60)
    assert scores.applies.tolist() == [[True, False, False], [False, True, False], [True, True, True]]
    assert bool((scores.raw[2] != 0).all())
    assert bool((scores.raw[0, 1:] == 0).all())


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 5, 3, 8, 8)], ids=["pictures", "clips"])
def test_a_reward_that_writes_leaves_the_next_its_samples_and_records(shape: tuple[int, ...]) -> None:
    prompts = [Prompt("a", {"text": "drum"}), Prompt("b", {"text": "fgmjs"})]
    mixture = Mixture([PromptSet(Spoils(), prompts[:1]), PromptSet(Spoils(), prompts[1:])], scoring="all")
    samples = torch.rand(shape)
    before = samples.clone()
    scores = mixture.score(samples, torch.tensor([0, 1]), timeout=60)
    wanted = before.flatten(1).mean(1).view(2, 2)
    assert torch.equal(scores.raw[0], wanted)
    assert torch.equal(scores.raw[1], wanted)
    assert torch.equal(samples, before)
    assert [p.metadata for p in prompts] == [{"text": "drum"}, {"text": "fgmjs"}]


def test_a_judge_sees_the_samples_that_the_reward_wrote_over(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "class Mean:\n    name, range, higher_is_better = 'mean', (0, 1), True\n"
        "    def score(self, samples, prompts): return samples.flatten(1).mean(1)\n"
        "class Spoils(Mean):\n"
        "    def score(self, samples, prompts):\n"
        "        means = samples.flatten(1).mean(1)\n        samples.zero_()\n        return means\n"
    )
    own = f"{{mine: {{reward: '{file}:Spoils', judge: '{file}:Mean', prompts: p.txt, eval_prompts: p.txt}}}}"
    config = load_config(find_recipe("smoke"), [f"rewards={own}", "evaluate.samples=2"])
    job = EvaluateJob(config, Subject("base", "base", (), 2, (1.0,)), tmp_path, "", "cpu")
    samples = torch.rand(4, 3, 8, 8)
    wanted = samples.flatten(1).mean(1).tolist()
    found = []
    for kind, scorer in scorers_of(config, "mine"):
        first = _score(job, scale_of("mine", kind, scorer), scorer, (SIGN, OBJECTS), samples)
        found.append(first.values.tolist())
    assert found == [wanted, wanted]
