"""Train one expert: the Map of MapReduce LoRA for one reward in one round.

    each epoch:  sample groups of pictures -> score -> advantages -> a few updates -> (average)

Settings follow Flow-GRPO and DiffusionNFT. A checkpoint every few epochs, and one at the end; every epoch
draws from its own seeded generator, so stopping and going on changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import RunConfig
from ..files import METRICS, write_rows
from ..ops.advantages import best_and_worst, informative_groups
from ..ops.lowrank import LowRank
from ..plan import ExpertTask, derive_seed
from ..policies.adapters import attach_parents, attach_policy, fold, policy_deltas, swapped
from ..policies.flow import Trajectories, sample
from ..policies.quantize import is_quantized, open_to_train, quantize
from ..records import read_metrics
from .checkpoint import Stopped, TrainState, find_checkpoint, load_checkpoint, save_checkpoint
from .mixture import Mixture, Scores
from .objectives import Batch, Objective, make_objective
from .schedule import rate_share

Report = Callable[[dict[str, Any]], None]
__all__ = ["ExpertTrainer", "Stopped"]


@dataclass(frozen=True)
class Rollouts:
    """An epoch's samples. scores: raw, of P groups of G; index: [P] into the prompts."""

    trajectories: Trajectories
    scores: Scores
    index: torch.Tensor
    seconds_sample: float
    seconds_score: float


class ExpertTrainer:
    """One expert's policy, optimiser and position. `run` trains to the end and returns the adapter."""

    def __init__(
        self,
        config: RunConfig,
        task: ExpertTask,
        folder: Path,
        mixture: Mixture,
        parents: dict[str, LowRank] | None,
        device: str,
    ) -> None:
        self.config, self.task, self.folder = config, task, folder
        self.mixture = mixture
        self.settings = config.objective
        if task.objective is not None:
            self.settings = config.objective.model_copy(update={"name": task.objective})
        self.policy = open_to_train(config.model, device)
        self.policy.autocast = config.train.autocast
        guidance = config.model.guidance_scale > 1
        self.conditions = self.policy.encode([p.text for p in mixture.prompts], guidance)
        self.policy.free_text()
        transformer = self.policy.transformer
        apart = config.objective.anchor == "base" and mixture.kl > 0
        if parents and not apart:
            fold(transformer, parents)
        if is_quantized(config.model):
            quantize(self.policy)
        if parents and apart:
            attach_parents(transformer, parents)
        targets = config.lora.targets or self.policy.targets
        parameters = attach_policy(transformer, config.lora, targets, derive_seed(task.seed, "init"))
        transformer.to(self.policy.device)
        self.state = TrainState(
            parameters,
            torch.optim.AdamW(
                list(parameters.values()),
                lr=config.train.learning_rate,
                weight_decay=config.train.weight_decay,
            ),
            ema=_copy(parameters),
            old=_copy(parameters),
        )
        self.objective: Objective = make_objective(
            self.policy, self.settings, config.model, mixture.kl,
            config.train.micro_batch, parameters, self.state.old,
        )  # fmt: skip

    def resume(self, inputs: str, earlier: Path | None) -> None:
        """See `trainers.Trainer`."""
        self.state.inputs = inputs
        found = find_checkpoint(self.folder, inputs, earlier)
        if found is not None:
            load_checkpoint(found, self.state)

    def run(self, report: Report, should_stop: Callable[[], bool]) -> dict[str, LowRank]:
        """Train to the task's last epoch. Raises Stopped after a checkpoint when asked to."""
        metrics = self.folder / METRICS
        rows = [r for r in read_metrics(metrics) if r["update"] <= self.state.epoch]
        every = self.config.train.checkpoint_every
        while self.state.epoch < self.task.epochs:
            rows.append(self.epoch())
            write_rows(metrics, rows)
            report({"folder": self.task.folder, "epochs": self.task.epochs, **rows[-1]})
            last = self.state.epoch == self.task.epochs
            stop = should_stop() and not last
            if last or stop or self.state.epoch % every == 0:
                save_checkpoint(self.folder, self.state)
            if stop:
                raise Stopped
        write_rows(metrics, rows)
        values = self.state.ema if self.config.train.ema_decay > 0 else self.state.parameters
        return policy_deltas(self.policy.transformer, values)

    def epoch(self) -> dict[str, Any]:
        """Sample, score, update; returns the metrics row."""
        start = time.perf_counter()
        self._set_rate()
        generator = torch.Generator().manual_seed(derive_seed(self.task.seed, self.state.epoch))
        rollouts = self.rollout(generator)
        advantages = self.mixture.advantages(rollouts.scores, self.settings)
        begin = time.perf_counter()
        losses = self.update(rollouts, advantages, generator)
        self._average_old()
        self.state.epoch += 1
        now = time.perf_counter()
        return {
            "update": self.state.epoch,
            "reward": rollouts.scores.mean(),
            "reward_std": rollouts.scores.spread(),
            **losses,
            "seconds": now - start,
            "seconds_sample": rollouts.seconds_sample,
            "seconds_score": rollouts.seconds_score,
            "seconds_train": now - begin,
        }

    def rollout(self, generator: torch.Generator) -> Rollouts:
        """Draw `prompts_per_epoch` groups under the sampling weights and score them."""
        train, start = self.config.train, time.perf_counter()
        index = self.mixture.draw(train.prompts_per_epoch, generator)
        repeated = index.repeat_interleave(train.group_size)
        if self.settings.shared_noise:
            noise = self.policy.initial_noise(len(index), generator)
            noise = noise.repeat_interleave(train.group_size, dim=0)
        else:
            noise = self.policy.initial_noise(len(repeated), generator)
        with swapped(self.state.parameters, self.state.old):
            trajectories = sample(
                self.policy, self.conditions.select(repeated), noise, self.objective.sampling, generator
            )
        pictures = self.policy.decode(trajectories.clean)
        sampled = time.perf_counter()
        scores = self.mixture.score(pictures, index, self.config.executor.reward_timeout)
        scored = time.perf_counter()
        return Rollouts(trajectories, scores, index, sampled - start, scored - sampled)

    def update(
        self, rollouts: Rollouts, advantages: torch.Tensor, generator: torch.Generator
    ) -> dict[str, float]:
        """A few optimiser steps over the informative groups, each over a share of every noise level."""
        kept = informative_groups(advantages)
        if len(kept) == 0:  # every group agrees with itself: there is nothing to learn from
            return {"loss": 0.0, "kl": 0.0, "ratio": 1.0, "grad_norm": 0.0, "kept_groups": 0}
        group = advantages.shape[1]
        samples = (kept[:, None] * group + torch.arange(group)).flatten()
        if self.settings.name == "sft":
            samples = samples[advantages.flatten()[samples] > 0]
        elif self.config.train.keep is not None:
            samples = samples[best_and_worst(advantages, self.config.train.keep).flatten()[samples]]
        conditions = self.conditions.select(rollouts.index.repeat_interleave(group)[samples])
        groups = torch.unique(samples // group, return_inverse=True)[1]
        batch = Batch(
            _select(rollouts.trajectories, samples), advantages.flatten()[samples], conditions, groups
        )
        self.objective.begin_epoch(batch, generator)
        totals = {"loss": 0.0, "kl": 0.0, "ratio": 0.0, "grad_norm": 0.0}
        # A group is never torn apart: what its advantages have in common cancels only in the whole.
        order = torch.randperm(len(kept), generator=generator).chunk(self.config.train.updates_per_epoch)
        parts = [torch.isin(groups, own).nonzero().flatten() for own in order]
        for part in parts:
            for key, value in self._step(part).items():
                totals[key] += value / len(parts)
        return {**totals, "kept_groups": len(kept)}

    def _step(self, part: torch.Tensor) -> dict[str, float]:
        """One optimiser step, its gradient accumulated over slots and micro-batches."""
        train, objective = self.config.train, self.objective
        sums = {"loss": 0.0, "kl": 0.0, "ratio": 0.0}
        for slot in range(objective.slots):
            for index in part.split(train.micro_batch):
                share = len(index) / (len(part) * objective.slots)
                loss = objective.loss(index, slot)
                (loss.total * share).backward()
                sums["loss"] += float(loss.total.detach()) * share
                sums["kl"] += loss.kl * share
                sums["ratio"] += loss.ratio * share
        parameters = list(self.state.parameters.values())
        norm = torch.nn.utils.clip_grad_norm_(parameters, train.max_grad_norm)
        self.state.optimiser.step()
        self.state.optimiser.zero_grad()
        objective.first = False  # type: ignore[attr-defined]
        self.state.updates += 1
        if train.ema_decay > 0 and self.state.updates % train.ema_every == 0:
            t = self.state.updates // train.ema_every
            blend(self.state.ema, self.state.parameters, min((1 + t) / (10 + t), train.ema_decay))
        return {**sums, "grad_norm": float(norm)}

    def _set_rate(self) -> None:
        train, task = self.config.train, self.task
        share = rate_share(train.lr_scheduler, self.state.epoch, *task.schedule)
        for group in self.state.optimiser.param_groups:
            group["lr"] = train.learning_rate * share

    def _average_old(self) -> None:
        """The copy that samples is the trained one; NFT's follows it, and SFT's stays the round's model."""
        if self.settings.name != "sft":
            decay = self.settings.old_decay if self.settings.name == "nft" else 0.0
            blend(self.state.old, self.state.parameters, decay)


def _copy(parameters: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in parameters.items()}


@torch.no_grad()
def blend(
    average: dict[str, torch.Tensor], parameters: dict[str, torch.nn.Parameter], decay: float
) -> None:
    """average <- decay * average + (1 - decay) * parameters, in place."""
    for name, p in parameters.items():
        average[name].lerp_(p.detach(), 1 - decay)


def _select(t: Trajectories, index: torch.Tensor) -> Trajectories:
    parts = (t.clean, t.states, t.log_probs, t.means)
    return Trajectories(*(x[index] if x is not None else None for x in parts))  # type: ignore[arg-type]
