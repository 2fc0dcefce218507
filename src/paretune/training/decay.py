"""The optimiser of an expert: AdamW, whose weights decay to zero, or AdamR, where they decay to their start.

AdamW pulls a LoRA's A to 0 too, where the expert's change has no reason to be. AdamR (2410.09344, DAREx-L2)
pulls every parameter p to where it began, p0, by p <- p - rate * decay * (p - p0) / sqrt(v), before Adam's
own step. v is the mean over all entries of all parameters of the bias-corrected second moment, 1 if it is 0.
Small gradients make the published step larger than the way to p0; here it ends there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ..config import TrainConfig


class AdamR(torch.optim.AdamW):
    """See the module. start: parameter -> where it began; a checkpoint restores it in place."""

    def __init__(self, parameters: Iterable[Any], lr: float, decay: float) -> None:
        super().__init__(parameters, lr=lr, weight_decay=0.0)
        self.decay = decay
        self.start: dict[Tensor, Tensor] = {
            p: p.detach().clone() for group in self.param_groups for p in group["params"]
        }

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step: the decay, then Adam."""
        spread = self._second_moment() ** 0.5 or 1.0
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    share = min(group["lr"] * self.decay / spread, 1.0)  # never beyond the start
                    p.sub_(p - self.start[p], alpha=share)
        return super().step(closure)

    def _second_moment(self) -> float:
        """The mean of the bias-corrected second moments as this step will have them."""
        total, count = 0.0, 0
        for group in self.param_groups:
            beta = group["betas"][1]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state.get(p, {})
                steps = float(state.get("step", 0)) + 1
                before = state.get("exp_avg_sq")
                seen = (1 - beta) * float(p.grad.square().sum())
                seen += beta * float(before.sum()) if before is not None else 0.0
                total += seen / (1 - beta**steps)
                count += p.numel()
        return total / max(count, 1)


def optimiser_of(train: TrainConfig, parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """The optimiser that a recipe asks for. parameters: as torch's optimisers take them."""
    if train.decay == "start" and train.weight_decay:
        return AdamR(parameters, train.learning_rate, train.weight_decay)
    return torch.optim.AdamW(parameters, lr=train.learning_rate, weight_decay=train.weight_decay)
