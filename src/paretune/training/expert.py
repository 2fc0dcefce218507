"""Train one expert of a flow model: the Map of MapReduce LoRA for one reward in one round.

    each epoch:  sample groups of pictures -> score -> advantages -> a few updates -> (average)

The settings follow Flow-GRPO and DiffusionNFT. A checkpoint is written every few epochs and at the end. Every
epoch draws from a generator that is seeded for this epoch, so a run that is stopped and resumed gives the
same result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

from ..config import RunConfig
from ..files import disk_errors, write_rows
from ..models.flow import joined, sample_parts
from ..models.lora import swapped
from ..models.quantize import open_to_train
from ..models.weighting import with_weights
from ..ops.lowrank import Changes, LowRank
from ..planning.plan import ExpertTask, derive_seed
from ..records.manifest import METRICS
from ..records.read import read_metrics
from ..samples.media import medium_of
from ..types import Samples, take
from .checkpoint import Stopped, TrainState, find_checkpoint, load_checkpoint, save_checkpoint
from .decay import optimiser_of
from .guard import Guard
from .learning_rate import rate_share
from .loss_scale import grad_scaler, take_step
from .mixture import Mixture
from .objectives.flow import Batch, FlowObjective, Rollouts, Setting
from .objectives.settings import read_options, settings_for
from .objectives.table import find_objective
from .overlap import draw_and_score
from .together.crew import ALONE, Crew
from .together.shard import shard_base
from .together.updates import accumulate_together
from .trained import train_adapter, train_whole
from .weighted import take_values, weighting_of

Report = Callable[[dict[str, Any]], None]
__all__ = ["ExpertTrainer", "Stopped"]
SHOWN = 4  # samples of an epoch that trackers show, of different prompts


class ExpertTrainer:
    """The policy, the optimiser and the position of one expert. `run` trains it and returns the adapter."""

    def __init__(
        self,
        config: RunConfig,
        task: ExpertTask,
        folder: Path,
        mixture: Mixture,
        parents: dict[str, LowRank] | list[Path] | None,
        device: str,
        crew: Crew = ALONE,
    ) -> None:
        """Load the model and put a fresh adapter on it. The arguments are those of `open_trainer`."""
        self.config, self.task, self.folder = config, task, folder
        self.mixture, self.crew = mixture, crew
        self.settings = settings_for(config.objective, task.objective)
        kind, options = find_objective(self.settings.name), read_options(self.settings)
        assert issubclass(kind, FlowObjective)
        divided = config.executor.shard == "full" and crew.size > 1
        self.policy = open_to_train(config.model, device, divided)
        self.policy.autocast = config.train.autocast
        guidance = config.model.guidance_scale > 1
        self.conditions = self.policy.encode(list(kind.captions(options, mixture)), guidance)
        self.policy.free_text()
        transformer = self.policy.transformer
        anchor, looks = self.settings.anchor, mixture.kl > 0 or kind.anchored(options)
        if config.lora is None:
            folders = cast("list[Path] | None", parents) or []
            self.trained = train_whole(self.policy, config, folders, looks, anchor)
        else:
            before, apart = cast("dict[str, LowRank] | None", parents), anchor == "base" and looks
            seed = derive_seed(task.seed, "init")
            self.trained = train_adapter(self.policy, config, seed, before, apart, anchor)
        self.trained, self.weighting = weighting_of(self.policy, self.trained, task)
        parameters = self.trained.parameters
        if divided:
            shard_base(transformer, crew, self.policy.device)
        else:
            transformer.to(self.policy.device)
        self.state = TrainState(
            parameters,
            optimiser_of(config.train, list(parameters.values())),
            ema={} if config.lora is None and config.train.ema_decay == 0 else _copy(parameters),
            old=_copy(parameters),
            scaler=grad_scaler(config.model.dtype, self.policy.device),
        )
        setting = Setting(
            self.policy, config.model, config.train, self.settings, mixture.kl,
            sampling_weights=lambda: swapped(self.state.parameters, self.state.old),
            reference_weights=lambda: swapped(self.state.parameters, self.state.ema)
            if anchor == "average" else self.trained.anchor(),
            scaled=self.state.scaler.scale,
        )  # fmt: skip
        self.objective: FlowObjective[Any] = kind(setting, options)
        self.shown: Samples | None = None
        self.guard = Guard(config.stop_when, task, self.state, config.train.ema_decay > 0)

    def resume(self, inputs: str, earlier: Path | None) -> None:
        """See `trainers.Trainer`."""
        self.state.inputs = inputs
        found = find_checkpoint(self.folder, inputs, earlier)
        if found is not None:
            load_checkpoint(found, self.state)

    def run(self, report: Report, should_stop: Callable[[], bool]) -> Changes:
        """Train to the task's last epoch. Raises Stopped, after a checkpoint, when `should_stop` says so."""
        metrics = self.folder / METRICS
        rows = [r for r in read_metrics(metrics) if r["update"] <= self.state.epoch]
        every = self.config.train.checkpoint_every
        self.guard.resume(rows)
        while self.state.epoch < self.task.epochs and not self.guard.stopped:
            self.guard.begin()
            rows.append(self.epoch())
            if self.crew.leader:
                write_rows(metrics, rows)
                self._write_shown()
            report({"folder": self.task.folder, "epochs": self.task.epochs, **rows[-1]})
            self.guard.look(rows, report, self.crew.agreed)
            last = self.state.epoch == self.task.epochs or bool(self.guard.stopped)
            stop = self.crew.agreed(should_stop()) and not last
            if self.crew.leader and (last or stop or self.state.epoch % every == 0):
                save_checkpoint(self.folder, self.state)
            if stop:
                raise Stopped
        if self.crew.leader:
            write_rows(metrics, rows)
        values = self.state.ema if self.config.train.ema_decay > 0 else self.state.parameters
        values = dict(self.guard.values(values))
        if self.weighting is not None:
            take_values(self.weighting.embedding, values)
        return self.trained.result(values)

    def epoch(self) -> dict[str, Any]:
        """Train one epoch: collect samples and update. Returns the row of metrics."""
        start, judging = time.perf_counter(), self.mixture.judging
        if judging is not None:
            judging.begin(self.state.epoch)
        self._set_rate()
        generator = torch.Generator().manual_seed(derive_seed(self.task.seed, self.state.epoch))
        collected = self.objective.collect(self, generator)
        begin = time.perf_counter()
        losses = {**self.update(collected.batch, generator), **self.objective.end_epoch()}
        if self.objective.sampling_decay is not None:
            blend(self.state.old, self.state.parameters, self.objective.sampling_decay)
        self.state.epoch += 1
        now = time.perf_counter()
        seconds = {"seconds": now - start, "seconds_train": now - begin}
        judged = {} if judging is None else judging.told
        return {"update": self.state.epoch, **collected.facts, **losses, **judged, **seconds}

    def rollout(self, generator: torch.Generator) -> Rollouts:
        """Draw the epoch's groups of samples with the sampling weights, and score them."""
        train, start = self.config.train, time.perf_counter()
        index = self.mixture.draw(train.prompts_per_epoch * self.task.width, generator)
        weights = self.mixture.draw_weights(index, generator)
        size, dealt = train.group_size, self.crew.deal(len(index))
        repeated = index.repeat_interleave(size)
        if self.settings.shared_noise or self.objective.shared_noise:
            noise = self.policy.initial_noise(len(index), generator)
            noise = noise.repeat_interleave(train.group_size, dim=0)
        else:
            noise = self.policy.initial_noise(len(repeated), generator)
        given = None if weights is None else weights.repeat_interleave(size, dim=0)
        conditions = with_weights(self.conditions.select(repeated), given)
        scoring = self.mixture.begin_scoring(index[dealt.own], size, self.config.executor.reward_timeout)
        with swapped(self.state.parameters, self.state.old):
            parts = sample_parts(
                self.policy, conditions, noise, self.objective.sampling, generator,
                _members(dealt.all, size),
            )  # fmt: skip
            if self.config.executor.overlap:
                drawn = draw_and_score(parts, self.policy.decode, scoring)
            else:
                drawn = joined(list(parts))
        if len(dealt.filler):
            drawn = drawn.select(torch.arange(len(dealt.own) * size))
        if len(dealt.own) and not self.config.executor.overlap:
            scoring.add(self.policy.decode(drawn.clean))
        seconds = time.perf_counter() - start
        own = scoring.scores().raw.transpose(0, 1)
        self.show(scoring.samples, size)
        scores = self.mixture.joined(self.crew.gather(own, 1, len(index)), index, weights)
        trajectories = drawn.map(lambda x: self.crew.gather(x, size, len(index)))
        return Rollouts(trajectories, scores, index, noise, seconds - scoring.seconds, scoring.seconds)

    def update(self, batch: Batch | None, generator: torch.Generator) -> dict[str, float]:
        """A few optimiser steps, each on some of the groups of a batch; returns means for the metrics."""
        if batch is None:  # no group of the epoch differs in its scores
            return {"loss": 0.0, "kl": 0.0, "ratio": 1.0, "grad_norm": 0.0, "kept_groups": 0}
        self.objective.begin_epoch(batch, generator)
        groups = int(batch.group.max()) + 1
        totals: dict[str, float] = {}
        # A group is never divided: what its advantages have in common cancels only over the whole group.
        order = torch.randperm(groups, generator=generator).chunk(self.config.train.updates_per_epoch)
        parts = [torch.isin(batch.group, groups_of_step).nonzero().flatten() for groups_of_step in order]
        for part in parts:
            for key, value in self._step(part).items():
                totals[key] = totals.get(key, 0.0) + value / len(parts)
        return {**totals, "kept_groups": groups}

    def _step(self, part: torch.Tensor) -> dict[str, float]:
        """One optimiser step on the samples in `part`."""
        train, parameters = self.config.train, list(self.state.parameters.values())

        def accumulate() -> dict[str, float]:
            return accumulate_together(
                self.crew, self.objective.accumulate, part, self.objective.batch.group, parameters
            )

        self.objective.begin_update(part, self.crew)
        facts = take_step(self.state, accumulate, train.max_grad_norm)
        self.objective.end_update()
        self.state.updates += 1
        if train.ema_decay > 0 and self.state.updates % train.ema_every == 0:
            t = self.state.updates // train.ema_every
            blend(self.state.ema, self.state.parameters, min((1 + t) / (10 + t), train.ema_decay))
        return facts

    def show(self, samples: Samples, group: int) -> None:
        """See `Learner.show`: some samples, each of another prompt."""
        if self.config.trackers:
            self.shown = take(samples, torch.arange(0, len(samples), group)[:SHOWN])

    def _write_shown(self) -> None:
        """Write the samples that were kept, every so many epochs and at the last."""
        due = self.state.epoch % self.config.samples_every == 0 or self.state.epoch == self.task.epochs
        if self.shown is not None and due:
            medium, folder = medium_of(self.config.model), self.folder / "shown"
            with disk_errors(folder):
                folder.mkdir(exist_ok=True)
                for i in range(len(self.shown)):
                    medium.save(self.shown, i, folder / f"epoch-{self.state.epoch:04d}-{i}")
        self.shown = None

    def _set_rate(self) -> None:
        train, task = self.config.train, self.task
        share = rate_share(train.lr_scheduler, self.state.epoch, *task.rate_epochs)
        for group in self.state.optimiser.param_groups:
            group["lr"] = train.learning_rate * share


def _members(groups: torch.Tensor, size: int) -> torch.Tensor:
    """The numbers of the samples of some groups."""
    return (groups[:, None] * size + torch.arange(size)).flatten()


def _copy(parameters: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in parameters.items()}


@torch.no_grad()
def blend(
    average: dict[str, torch.Tensor], parameters: dict[str, torch.nn.Parameter], decay: float
) -> None:
    """average <- decay * average + (1 - decay) * parameters, in place."""
    for name, p in parameters.items():
        average[name].lerp_(p.detach(), 1 - decay)
