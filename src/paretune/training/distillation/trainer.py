"""The loop of distillation: the student draws, is compared with the experts, and makes one update a step.

Every step draws from a generator that is seeded for this step, and a checkpoint is written every few steps,
so a run that is stopped and resumed gives the same result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...files import write_rows
from ...models.lora import policy_deltas
from ...ops.dealing import deal
from ...ops.lowrank import LowRank
from ...planning.plan import derive_seed
from ...records.manifest import METRICS
from ...records.read import read_metrics
from ...samples.media import medium_of
from ..checkpoint import Stopped, TrainState, find_checkpoint, load_checkpoint, save_checkpoint
from ..loss_scale import grad_scaler, take_step
from .lesson import Pupils

Report = Callable[[dict[str, Any]], None]
EVERY = 10  # steps between two checkpoints
# Squared relative distance below which float32's rounding is all that parts student and experts. Adam would
# make whole steps of it. In narrower dtypes it is a tenth of the square of their rounding.
NOTHING = 1e-10


class Distiller:
    """The student, its optimiser and its position. `run` trains it and returns its change."""

    def __init__(self, pupils: Pupils, folder: Path, name: str, seed: int, device: str) -> None:
        """Load the model.

        Args:
            pupils: the student, the experts and the prompts.
            folder: where metrics and checkpoints are written.
            name: of the folder, for events.
            seed: of the prompts and the noise.
            device: by torch's name.
        """
        # Imported here, since one needs the library for pictures and the other that for language.
        if medium_of(pupils.config.model).name == "texts":
            from .text_lesson import TextLesson as Kind
        else:
            from .flow_lesson import FlowLesson as Kind
        self.pupils, self.settings = pupils, pupils.settings
        self.folder, self.name, self.seed = folder, name, seed
        self.lesson = Kind(pupils, device)
        parameters = self.lesson.parameters
        optimiser = torch.optim.AdamW(
            list(parameters.values()), lr=self.settings.learning_rate, weight_decay=0.0
        )
        scaler = grad_scaler(pupils.config.model.dtype, self.lesson.policy.device)
        self.state = TrainState(parameters, optimiser, ema={}, old={}, scaler=scaler)
        dtype = "bfloat16" if pupils.config.train.autocast else pupils.config.model.dtype
        self.nothing = max(NOTHING, torch.finfo(getattr(torch, dtype)).eps ** 2 / 10)
        self.lengths = torch.bincount(pupils.owner, minlength=len(pupils.experts)).tolist()

    def resume(self, inputs: str) -> None:
        """Load the last checkpoint, if there is one. inputs: a digest of all that determines the student."""
        self.state.inputs = inputs
        found = find_checkpoint(self.folder, inputs)
        if found is not None:
            load_checkpoint(found, self.state)

    def run(self, report: Report, should_stop: Callable[[], bool]) -> dict[str, LowRank]:
        """Train to the last step. Raises Stopped, after a checkpoint, when `should_stop` says so."""
        rows = [r for r in read_metrics(self.folder / METRICS) if r["update"] <= self.state.epoch]
        while self.state.epoch < self.settings.steps:
            start = time.perf_counter()
            told = self.step(self.state.epoch)
            self.state.epoch += 1
            rows.append({"update": self.state.epoch, **told, "seconds": time.perf_counter() - start})
            write_rows(self.folder / METRICS, rows)
            report({"folder": self.name, "epochs": self.settings.steps, **rows[-1]})
            last = self.state.epoch == self.settings.steps
            stop = should_stop() and not last
            if last or stop or self.state.epoch % EVERY == 0:
                save_checkpoint(self.folder, self.state)
            if stop:
                raise Stopped
        write_rows(self.folder / METRICS, rows)
        values = {name: p.detach() for name, p in self.state.parameters.items()}
        return policy_deltas(self.lesson.policy.transformer, values)

    def step(self, number: int) -> dict[str, float]:
        """One update on samples that the student draws for this step alone."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, number))
        index = self.draw(generator)
        batch, train = self.lesson.draw(index, generator), self.pupils.config.train

        distances, sizes = torch.zeros(2, len(self.pupils.names))

        def accumulate() -> dict[str, float]:
            loss = 0.0
            distances.zero_()
            sizes.zero_()
            for chosen in torch.arange(len(index)).split(train.micro_batch):
                for part in batch.parts(chosen):
                    self.state.scaler.scale(part.loss).backward()
                    loss += float(part.loss.detach())
                    distances.add_(part.distances)
                    sizes.add_(part.sizes)
            return {"loss": loss}

        first = accumulate()
        told = {**first, **self._told(distances, sizes)}
        if not self.settings.anchor and distances.sum() <= self.nothing * sizes.sum():
            self.state.optimiser.zero_grad()
            return {**told, "grad_norm": 0.0}
        self.state.updates += 1
        done = [first]  # its gradient is there already
        taken = take_step(self.state, lambda: done.pop() if done else accumulate(), train.max_grad_norm)
        return {**told, "grad_norm": taken["grad_norm"]}

    def _told(self, distances: torch.Tensor, sizes: torch.Tensor) -> dict[str, float]:
        """The squared relative distance to all experts, and to each that has prompts in the batch."""
        each = zip(self.pupils.names, distances.tolist(), sizes.tolist(), strict=True)
        named = {f"distance-{name}": distance / size for name, distance, size in each if size}
        size = float(sizes.sum())
        return {"distance": float(distances.sum()) / size if size else 0.0, **named}

    def draw(self, generator: torch.Generator) -> torch.Tensor:
        """The prompts of one step, [B], dealt evenly over the experts."""
        drawn, first = [], 0
        counts = deal(self.settings.batch, self.lengths, generator)
        for length, count in zip(self.lengths, counts, strict=True):
            drawn.append(first + torch.randperm(length, generator=generator)[:count])
            first += length
        return torch.cat(drawn)
