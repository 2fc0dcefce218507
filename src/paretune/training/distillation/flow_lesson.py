"""Distillation of flow models: velocities on the states of the student's own sampling path (Flow-OPD).

The student draws a sample from noise by the ODE, as experts do in training. At a few states x of that path
the expert of the prompt's reward gives its velocity, and the loss is the mean of

    w (|v_student(x, σ) - v_expert(x, σ)|² + anchor |v_student(x, σ) - v_start(x, σ)|²)

w is the length of the step that the path takes from x, over the mean length, so that the loss is a distance
along the whole path. A schedule's last step may be a hundredth of the others: what a student does there
hardly changes the sample, and models may differ there most.

Shapes: B samples, T states of each, x [B, T, ...].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ...models.flow import Conditions, FlowPolicy, Schedule
from ...models.lora import fold
from ...models.quantize import is_quantized, open_to_train, quantize
from ...ops.flow_sde import euler_step
from .lesson import Part, Pupils, as_expert, attach


class FlowLesson:
    """See `lesson.Lesson`. parameters: of the student."""

    def __init__(self, pupils: Pupils, device: str) -> None:
        self.pupils, self.config = pupils, pupils.config
        model = self.config.model
        self.policy: FlowPolicy = open_to_train(model, device)
        self.policy.autocast = self.config.train.autocast
        self.guidance = model.guidance_scale
        self.conditions = self.policy.encode([p.text for p in pupils.prompts], self.guidance > 1)
        self.policy.free_text()
        if pupils.parents:
            fold(self.policy.transformer, pupils.parents)
        if is_quantized(model):
            quantize(self.policy)
        self.parameters = attach(self.policy.transformer, pupils)
        self.policy.transformer.to(self.policy.device)

    def draw(self, index: torch.Tensor, generator: torch.Generator) -> FlowBatch:
        """See `lesson.Lesson`."""
        policy, steps = self.policy, self.config.model.steps
        noise = policy.initial_noise(len(index), generator)
        count = min(self.pupils.settings.times, steps)
        kept = torch.stack([torch.randperm(steps, generator=generator)[:count] for _ in index])
        parts = [
            self._path(noise[rows], self.conditions.select(index[rows]), kept[rows])
            for rows in torch.arange(len(index)).split(self.config.train.micro_batch)
        ]
        schedule = policy.schedule(steps)
        return FlowBatch(
            self, torch.cat(parts), torch.tensor(schedule.sigmas)[kept],
            step_weights(schedule)[kept], self.conditions.select(index), self.owners(index),
        )  # fmt: skip

    def owners(self, index: torch.Tensor) -> torch.Tensor:
        """The experts of some prompts."""
        return self.pupils.owner[index]

    @torch.no_grad()
    def _path(self, noise: torch.Tensor, conditions: Conditions, kept: torch.Tensor) -> torch.Tensor:
        """The states before the steps `kept`, [B, T], of the student's path; on the CPU."""
        schedule = self.policy.schedule(self.config.model.steps)
        x, states = noise.to(self.policy.device), list[torch.Tensor]()
        for i in range(schedule.steps):
            states.append(x.cpu())
            if i == int(kept.max()):
                break
            sigma = torch.full((len(x),), schedule.sigmas[i], device=x.device)
            x = euler_step(x, self.policy.velocity(x, sigma, conditions, self.guidance), schedule.dts[i])
        return torch.stack(states, dim=1)[torch.arange(len(kept))[:, None], kept]


def step_weights(schedule: Schedule) -> torch.Tensor:
    """The length of every step of a path over their mean, [N]."""
    lengths = torch.tensor(schedule.dts).abs()
    return lengths / lengths.mean()


@dataclass(frozen=True)
class FlowBatch:
    """States of B samples: x [B, T, ...], noise levels and weights [B, T], the experts of the prompts [B]."""

    lesson: FlowLesson
    x: torch.Tensor
    sigmas: torch.Tensor
    weights: torch.Tensor
    conditions: Conditions
    owner: torch.Tensor

    def parts(self, chosen: torch.Tensor) -> Iterator[Part]:
        """See `lesson.Batch`: one part a state."""
        return (self._part(chosen, slot) for slot in range(self.x.shape[1]))

    def _part(self, chosen: torch.Tensor, slot: int) -> Part:
        anchor, owner = self.lesson.pupils.settings.anchor, self.owner[chosen]
        target = torch.empty_like(self.x[chosen, slot], device=self.lesson.policy.device)
        for number in owner.unique().tolist():
            rows = (owner == number).nonzero().flatten()
            with torch.no_grad(), as_expert(self.lesson.policy, number):
                target[rows.to(target.device)] = self._velocity(chosen[rows], slot)
        start = None
        if anchor:
            with torch.no_grad(), as_expert(self.lesson.policy, None):
                start = self._velocity(chosen, slot)
        velocity = self._velocity(chosen, slot)
        along = self.weights[chosen, slot].to(velocity.device) / (len(self.x) * self.x.shape[1])
        apart = along * (velocity - target).square().flatten(1).mean(1)
        loss = apart.sum()
        if start is not None:
            loss = loss + anchor * (along * (velocity - start).square().flatten(1).mean(1)).sum()
        size, by_expert = along * target.square().flatten(1).mean(1), self.lesson.pupils.by_expert
        return Part(loss, by_expert(apart, owner), by_expert(size, owner))

    def _velocity(self, rows: torch.Tensor, slot: int) -> torch.Tensor:
        """The velocity of whichever adapter is active."""
        policy = self.lesson.policy
        x, sigma = self.x[rows, slot].to(policy.device), self.sigmas[rows, slot].to(policy.device)
        return policy.velocity(x, sigma, self.conditions.select(rows), self.lesson.guidance)
