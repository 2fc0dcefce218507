"""Train one reward token (RaTE, 2511.20629): a few vectors beside the model's embeddings. All else is frozen.

    once          the expert draws samples each step     move the vectors so that the base with the token does
    better what the expert did validation    every `every` steps: draw samples of held-out training prompts
    with the token, and score them

The vectors of the best validation are kept. Every step draws from a generator that is seeded for this step,
and every validation writes a checkpoint, so a run that is stopped and resumed gives the same result. Only the
student knows what a sample is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...config import RunConfig, TokensConfig
from ...files import write_rows
from ...ops.lowrank import LowRank
from ...planning.plan import TokenTask, derive_seed
from ...records.manifest import METRICS
from ...records.read import read_metrics
from ...reward_tokens.files import Token
from ...rewards.base import oriented, score_samples
from ...types import Prompt, Reward
from ..checkpoint import Stopped, TrainState, find_checkpoint, load_checkpoint, save_checkpoint
from ..loss_scale import grad_scaler, take_step
from ..trainers import open_student

Report = Callable[[dict[str, Any]], None]
LAST_RATE = 0.1  # the share of its first value to which the learning rate falls, along a cosine


class TokenTrainer:
    """The vectors, the optimiser and the position of one token. `run` trains them and returns the best."""

    def __init__(
        self,
        config: RunConfig,
        task: TokenTask,
        folder: Path,
        reward: Reward,
        prompts: Sequence[Prompt],
        expert: Mapping[str, LowRank],
        inputs: str,
        device: str,
    ) -> None:
        self.config, self.task, self.folder, self.inputs = config, task, folder, inputs
        assert config.tokens is not None
        self.settings: TokensConfig = config.tokens
        self.reward = reward
        self.prompts, self.held_out = split(prompts, self.settings.options.validation, task.seed)
        self.student = open_student(config, task, expert, device)
        parameters: dict[str, Any] = dict(self.student.token.vectors)
        # Relative to the encoder's embeddings, a step has the same length in every encoder.
        unit = self.student.units()
        rate = self.settings.options.learning_rate
        groups = [{"params": [p], "lr": rate * unit[n]} for n, p in parameters.items()]
        best = {n: p.detach().clone() for n, p in parameters.items()}
        optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
        self.rates = [group["lr"] for group in optimiser.param_groups]
        scaler = grad_scaler(config.model.dtype, self.student.policy.device)
        self.state = TrainState(parameters, optimiser, ema=best, old={}, scaler=scaler)
        self.rows: list[dict[str, Any]] = []
        self.samples = 0

    def resume(self, inputs: str) -> None:
        """Load the last checkpoint, if there is one. inputs: a digest of all that determines the vectors."""
        self.state.inputs = inputs
        found = find_checkpoint(self.folder, inputs)
        if found is not None:
            load_checkpoint(found, self.state)
            rows = read_metrics(self.folder / METRICS)
            self.rows = [row for row in rows if row["update"] <= self.state.epoch]

    def run(self, report: Report, should_stop: Callable[[], bool]) -> Token:
        """Train until the last step, or until validation no longer improves.

        Raises Stopped, after a checkpoint, when `should_stop` says so.
        """
        options = self.settings.options
        self.samples = self.student.learn_from(
            self.prompts, self.folder / "teacher", self.inputs, should_stop
        )
        while self.state.epoch < self.settings.steps and not self.exhausted():
            start = time.perf_counter()
            last = min(self.state.epoch + options.every, self.settings.steps)
            totals = {"loss": 0.0, "grad_norm": 0.0}
            steps = last - self.state.epoch
            for step in range(self.state.epoch, last):
                for key, value in self.step(step).items():
                    totals[key] += value / steps
            self.state.epoch = self.state.updates = last
            value = self.validate()
            if value > self.best():
                self.state.ema.update({n: p.detach().clone() for n, p in self.state.parameters.items()})
            seconds = time.perf_counter() - start
            self.rows.append({"update": last, **totals, "reward": value, "seconds": seconds})
            # Rows are written before the checkpoint: a resume removes a row too many, but cannot restore one.
            write_rows(self.folder / METRICS, self.rows)
            save_checkpoint(self.folder, self.state)
            report({"folder": self.task.folder, "epochs": self.settings.steps, **self.rows[-1]})
            if should_stop() and last < self.settings.steps and not self.exhausted():
                raise Stopped
        return Token(self.task.reward, self.state.ema)

    def best(self) -> float:
        """The best mean reward of a validation so far, oriented so that greater is better."""
        return max((row["reward"] for row in self.rows), default=-math.inf)

    def exhausted(self) -> bool:
        """Whether the last `patience` validations brought no new best."""
        values = [row["reward"] for row in self.rows]
        patience = self.settings.options.patience
        return len(values) > patience and max(values[-patience:]) <= max(values[:-patience])

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step on a batch of the teacher's samples that is drawn for this step alone."""
        options, train = self.settings.options, self.config.train
        generator = torch.Generator().manual_seed(derive_seed(self.task.seed, "step", step))
        chosen = torch.randperm(self.samples, generator=generator)[: options.batch_size]
        losses = self.student.batch(chosen, generator)
        for group, rate in zip(self.state.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * cosine(step / self.settings.steps)

        def accumulate() -> dict[str, float]:
            total = 0.0
            for part in torch.arange(len(chosen)).split(train.micro_batch):
                loss = losses(part)
                share = len(part) / len(chosen)
                self.state.scaler.scale(loss * share).backward()
                total += float(loss.detach()) * share
            return {"loss": total}

        # Adam does not depend on the gradient's overall length, but outliers among the steps do matter to it.
        return take_step(self.state, accumulate, train.max_grad_norm)

    @torch.no_grad()
    def validate(self) -> float:
        """The mean reward of the held-out training prompts with the token, always with the same seed."""
        drawn = self.student.draw(self.held_out, derive_seed(self.task.seed, "validation"))
        timeout = self.config.executor.reward_timeout
        scores = score_samples(self.reward, drawn, self.held_out, timeout=timeout)
        return float(oriented(self.reward, scores).mean())


def split(
    prompts: Sequence[Prompt], count: int, seed: int
) -> tuple[list[Prompt], list[Prompt]]:
    """Divide prompts into those to train on and `count` that are held out, at most a third of them.

    If there are too few to hold one out, all prompts are in the first part, and the first `count` in the
    second too.
    """
    order = torch.randperm(
        len(prompts), generator=torch.Generator().manual_seed(derive_seed(seed, "split"))
    ).tolist()
    held = min(count, len(prompts) // 3)
    if held == 0:
        return list(prompts), list(prompts)[:count]
    return [prompts[i] for i in sorted(order[held:])], [prompts[i] for i in sorted(order[:held])]


def cosine(progress: float) -> float:
    """The share of its first value that the learning rate has at a progress from 0 to 1."""
    return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * progress)) / 2
