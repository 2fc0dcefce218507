"""Train one reward token (RaTE, 2511.20629): a few vectors beside the model's embeddings. All else is frozen.

    once          the expert draws samples
    each step     move the vectors so that the base with the token does what the expert did
    afterwards    for `reinforce` steps: draw samples with the token, score them, and move the vectors towards
                  those that the reward likes better than the others of their prompt
    validation    every `every` steps: draw samples of held-out training prompts with the token, and score
                  them

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
from ...ops.advantages import group_advantages
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
from .student import Losses

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
        if not any(row.get("reinforced") for row in self.rows):
            self._until(self.settings.steps, self.step, report, should_stop, reinforce=False)
        if options.reinforce:
            end = self._distilled() + options.reinforce
            self._until(end, self.reinforce, report, should_stop, reinforce=True)
        return Token(self.task.reward, self.state.ema)

    def _distilled(self) -> int:
        """The steps of distillation that were made: fewer than the recipe's where validation stood still."""
        return max((row["update"] for row in self.rows if not row.get("reinforced")), default=0)

    def _until(
        self, end: int, take: Callable[[int], dict[str, float]], report: Report,
        should_stop: Callable[[], bool], reinforce: bool,
    ) -> None:  # fmt: skip
        """Take steps up to `end`, or until validation no longer improves.

        Raises Stopped, after a checkpoint, when `should_stop` says so.
        """
        options = self.settings.options
        while self.state.epoch < end and not self.exhausted(reinforce):
            start = time.perf_counter()
            last = min(self.state.epoch + options.every, end)
            totals = {"loss": 0.0, "grad_norm": 0.0}
            steps = last - self.state.epoch
            if reinforce and self.state.epoch == self._distilled():
                self._begin_again()
            for step in range(self.state.epoch, last):
                for key, value in take(step).items():
                    totals[key] += value / steps
            self.state.epoch = self.state.updates = last
            value = self.validate()
            if value > self.best():
                self.state.ema.update({n: p.detach().clone() for n, p in self.state.parameters.items()})
            seconds = time.perf_counter() - start
            told = {"reinforced": True} if reinforce else {}
            self.rows.append({"update": last, **totals, "reward": value, "seconds": seconds, **told})
            # Rows are written before the checkpoint: a resume removes a row too many, but cannot restore one.
            write_rows(self.folder / METRICS, self.rows)
            save_checkpoint(self.folder, self.state)
            whole = self.settings.steps + options.reinforce
            report({"folder": self.task.folder, "epochs": whole, **self.rows[-1]})
            if should_stop() and last < end and not self.exhausted(reinforce):
                raise Stopped
        if should_stop() and not reinforce and options.reinforce:
            raise Stopped

    def _begin_again(self) -> None:
        """Go on from the best vectors. The optimiser's moments were made of other gradients, and go."""
        self.state.optimiser.state.clear()
        with torch.no_grad():
            for name, kept in self.state.ema.items():
                self.state.parameters[name].copy_(kept)

    def best(self) -> float:
        """The best mean reward of a validation so far, oriented so that greater is better."""
        return max((row["reward"] for row in self.rows), default=-math.inf)

    def exhausted(self, reinforce: bool = False) -> bool:
        """Whether the last `patience` validations, of distillation or afterwards, brought no new best."""
        values = [row["reward"] for row in self.rows if bool(row.get("reinforced")) == reinforce]
        patience = self.settings.options.patience
        return len(values) > patience and max(values[-patience:]) <= max(values[:-patience])

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step on a batch of the teacher's samples that is drawn for this step alone."""
        options = self.settings.options
        generator = torch.Generator().manual_seed(derive_seed(self.task.seed, "step", step))
        chosen = torch.randperm(self.samples, generator=generator)[: options.batch_size]
        return self._update(len(chosen), self.student.batch(chosen, generator), step / self.settings.steps)

    def reinforce(self, step: int) -> dict[str, float]:
        """One optimiser step on own samples, in groups that the reward compares within a prompt."""
        options = self.settings.options
        generator = torch.Generator().manual_seed(derive_seed(self.task.seed, "reinforce", step))
        count, group = options.groups(self.config.train.group_size)
        index = torch.randperm(len(self.prompts), generator=generator)[:count]
        chosen = [self.prompts[int(i)] for i in index]
        drawn, losses = self.student.explore(chosen, group, generator)
        prompts = [prompt for prompt in chosen for _ in range(group)]
        scores = score_samples(self.reward, drawn, prompts, timeout=self.config.executor.reward_timeout)
        better = oriented(self.reward, scores).view(-1, group)
        settings = self.config.objective
        advantages = group_advantages(better, settings.advantage_std, settings.advantage_clip).flatten()
        if not bool(advantages.any()):  # all scores of each prompt are equal: there is nothing to learn
            return {"loss": 0.0, "grad_norm": 0.0}
        done = (step - self._distilled()) / options.reinforce
        return self._update(len(prompts), lambda part: losses(part, advantages[part]), done)

    def _update(self, count: int, losses: Losses, done: float) -> dict[str, float]:
        """One optimiser step on `count` samples, one micro-batch after the other.

        losses: the mean loss of some of the samples. done: the share of the steps before this one, along
        which the learning rate falls.
        """
        train = self.config.train
        for group, rate in zip(self.state.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * cosine(done)

        def accumulate() -> dict[str, float]:
            total = 0.0
            for part in torch.arange(count).split(train.micro_batch):
                loss = losses(part)
                share = len(part) / count
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
