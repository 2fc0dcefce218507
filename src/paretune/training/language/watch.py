"""A callback for TRL's loop, which uses our seeds, metrics, averages, checkpoints and stops."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from ...config import TrainConfig
from ...files import write_rows
from ...planning.plan import ExpertTask, derive_seed
from ...records.manifest import METRICS
from ...records.read import read_metrics
from ..checkpoint import TrainState, save_checkpoint
from ..expert import blend
from ..guard import Guard
from ..judging import Judging
from ..together.crew import ALONE, Crew

# Key of our metrics -> TRL's names for it; the first of them that TRL logs is taken.
NAMES = {
    "loss": ("loss",), "grad_norm": ("grad_norm",), "kl": ("kl",), "entropy": ("entropy",),
    "length": ("completions/mean_length",), "clipped": ("clip_ratio/region_mean",),
    "same_groups": ("frac_reward_zero_std",), "accuracy": ("rewards/accuracies",),
    "margin": ("rewards/margins",),
}  # fmt: skip


@dataclass
class EpochFacts:
    """What scoring knows of an epoch: the mean reward, the spread within a group, and the seconds.

    diversity: the share of a group's answers that differ from each other.
    """

    reward: float | None = None
    spread: float | None = None
    diversity: float | None = None
    scored_at: float | None = None
    seconds_score: float = 0.0


@dataclass
class Watch:
    """The state of one expert, which the callback keeps beside TRL's trainer.

    updates: of one epoch. after_update: called after every update with the number of the expert's updates.
    crew: the processes that train it; the leader writes.
    """

    task: ExpertTask
    train: TrainConfig
    folder: Path
    updates: int
    state: TrainState
    report: Callable[[dict[str, Any]], None]
    should_stop: Callable[[], bool]
    facts: EpochFacts = field(default_factory=EpochFacts)
    stopped: bool = False
    guard: Guard | None = None
    judging: Judging | None = None
    after_update: Callable[[int], None] = lambda updates: None
    crew: Crew = ALONE


class Bridge(TrainerCallback):
    """Passes TRL's events on to `Watch`. An epoch is `updates` optimiser steps; the first draws samples."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.metrics = watch.folder / METRICS
        self.rows = [r for r in read_metrics(self.metrics) if r["update"] <= watch.state.epoch]
        self.sums: dict[str, list[float]] = defaultdict(list)
        self.begun = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seed the epoch, so that training that continues draws what it would have drawn without a stop."""
        watch = self.watch
        if state.global_step % watch.updates == 0:
            torch.manual_seed(derive_seed(watch.task.seed, watch.state.epoch))
            watch.facts, self.begun = EpochFacts(), time.perf_counter()
            self.sums.clear()
            if watch.guard is not None:
                watch.guard.begin()
            if watch.judging is not None:
                watch.judging.begin(watch.state.epoch)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Update the averaged weights if the recipe asks for them."""
        expert, train = self.watch.state, self.watch.train
        expert.updates += 1
        if train.ema_decay > 0 and expert.updates % train.ema_every == 0:
            t = expert.updates // train.ema_every
            blend(expert.ema, expert.parameters, min((1 + t) / (10 + t), train.ema_decay))
        self.watch.after_update(expert.updates)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Collect the figures of an update. After the last of an epoch, write a row and a checkpoint."""
        if not logs or "loss" not in logs:  # the summary at the end of training
            return
        for name, keys in NAMES.items():
            found = next((logs[k] for k in keys if k in logs), None)
            if found is not None:
                self.sums[name].append(float(found))
        if state.global_step % self.watch.updates == 0:
            self._end_epoch(control)

    def _end_epoch(self, control: Any) -> None:
        watch, expert = self.watch, self.watch.state
        expert.epoch += 1
        self.rows.append(self._row())
        if watch.crew.leader:
            write_rows(self.metrics, self.rows)
        watch.report({"folder": watch.task.folder, "epochs": watch.task.epochs, **self.rows[-1]})
        ended = False
        if watch.guard is not None:
            watch.guard.look(self.rows, watch.report, watch.crew.agreed)
            ended = bool(watch.guard.stopped)
        last = expert.epoch == watch.task.epochs or ended
        watch.stopped = watch.crew.agreed(watch.should_stop()) and not last
        due = last or watch.stopped or expert.epoch % watch.train.checkpoint_every == 0
        if due and watch.crew.leader:
            save_checkpoint(watch.folder, expert)
        if watch.stopped or ended:
            control.should_training_stop = True

    def _row(self) -> dict[str, Any]:
        facts, now = self.watch.facts, time.perf_counter()
        means = {name: sum(values) / len(values) for name, values in self.sums.items()}
        reward = means.get("margin") if facts.reward is None else facts.reward
        row: dict[str, Any] = {"update": self.watch.state.epoch, "reward": reward, "kl": 0.0, **means}
        if facts.spread is not None:
            row["reward_std"] = facts.spread
        if facts.diversity is not None:
            row["diversity"] = facts.diversity
        row |= {} if self.watch.judging is None else self.watch.judging.told
        row["seconds"] = now - self.begun
        if facts.scored_at is not None:
            row["seconds_sample"] = facts.scored_at - facts.seconds_score - self.begun
            row["seconds_score"] = facts.seconds_score
            row["seconds_train"] = now - facts.scored_at
        return row
