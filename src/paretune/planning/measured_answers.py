"""Time a language model's own steps: a short epoch of its trainer, on the recipe's prompts where it can."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ..config import RewardConfig, RunConfig
from ..data.prompts import load_prompts
from ..data.remote import is_remote
from ..models.causal_lm.family import TextOptions
from ..models.options import read_options
from ..training.checkpoint import Stopped
from ..training.mixture import Mixture, PromptSet
from ..training.objectives.settings import draws_samples
from ..training.objectives.table import find_objective
from ..training.trainers import open_trainer
from ..types import ParetuneError, Prompt
from .plan import ExpertTask

LONG = 15.0  # seconds of a first epoch, after which no second is timed


class _Length:
    """Answers by their length: the reward's own time is not measured, and gradients shall not vanish."""

    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(self, name: str) -> None:
        self.name = name

    def score(self, samples: Sequence[str], prompts: Sequence[Prompt]) -> torch.Tensor:
        """See `types.Reward`."""
        return torch.tensor([len(answer) % 7 / 7 for answer in samples])


def time_answers(config: RunConfig, device: str) -> tuple[int, float]:
    """How many answers (or pairs) a short epoch had, and its seconds: the second's, if there is time."""
    train, draws = config.train, draws_samples(config.objective)
    group = train.group_size if draws else 1
    count = min(train.prompts_per_epoch, max(1, -(-train.micro_batch // group)))
    name, prompts = _prompts(config, count)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "held-out.txt").write_text("hello\n")
        file = str(folder / "held-out.txt")
        own = RewardConfig.model_validate({"reward": name, "prompts": file, "eval_prompts": file})
        short = train.model_copy(
            update={"epochs": 2, "prompts_per_epoch": len(prompts), "updates_per_epoch": 1}
        )
        config = config.model_copy(update={"train": short, "rewards": {name: own}})
        mixture = Mixture([PromptSet(_Length(name), prompts, kl=config.objective.kl)])
        task = ExpertTask(folder="measure", rewards=(name,), round=1, seed=0, epochs=2)
        trainer = open_trainer(config, task, folder, mixture, None, device)
        trainer.resume("", None)
        with suppress(Stopped):
            trainer.run(rows.append, lambda: bool(rows) and rows[-1]["seconds"] > LONG)
    return len(prompts) * group, float(rows[-1]["seconds"])


def _prompts(config: RunConfig, count: int) -> tuple[str, list[Prompt]]:
    """A reward of the recipe, and its training prompts where they are here.

    Else as many of the length that the recipe expects, with what a loss may read of a pair or a triple: not
    with weights of tokens.
    """
    for name, own in config.rewards.items():
        if is_remote(own.prompts):  # a data set of the hub may have to be downloaded
            continue
        try:
            found = load_prompts(own.prompts)[:count]
        except ParetuneError:  # a run tells that
            continue
        if found:
            return name, list(found)
    options = read_options(TextOptions, config.model)
    name, answer = next(iter(config.rewards)), "the " * options.max_tokens
    texts = [answer + word for word in ("best", "end", "stop")]
    kind = find_objective(config.objective.name)
    texts = texts if getattr(kind, "answers", "") in ("triple", "list") else texts[1:]
    scores = dict.fromkeys([name, config.objective.options.get("score") or name])
    records = {
        **dict(zip(("rejected", "chosen", "reference"), texts[::-1], strict=False)), "stage": 1,
        "answers": [
            {"text": text, "scores": dict.fromkeys(scores, 1 - 0.4 * i)} for i, text in enumerate(texts)
        ],
        "margin": 1.0, "drift": 0.5,
    }  # fmt: skip
    text = "the " * max(1, options.prompt_tokens - 2)
    return name, [Prompt(f"{text}{number}", records) for number in range(count)]
