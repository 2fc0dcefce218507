"""One optimiser step, with the loss scaled where the base is float16.

A gradient that passes back through a float16 base vanishes where it is below 6e-8, and the gradient of a mean
over a sample's dimensions is often smaller. So losses are multiplied by a scale before their gradients are
taken, which are divided by it before they are clipped. torch's GradScaler does both, and halves the scale
when a gradient overflows. It would then skip the update; here the update is computed again instead, because a
run has few updates and none may be lost. Other dtypes have the range of float32 and are not scaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..types import Unfit
from .checkpoint import TrainState

FIRST_SCALE = 2.0**16
GROWTH = 200  # updates after which the scale doubles: one forward pass in 200 may have to be repeated
TRIES = 24  # the scale is then below 0.01, so the gradient itself overflows


def grad_scaler(dtype: str, device: torch.device) -> torch.amp.GradScaler:
    """The scaler for a base in a dtype of the recipe; one that does nothing unless it is float16."""
    return torch.amp.GradScaler(device.type, FIRST_SCALE, growth_interval=GROWTH, enabled=dtype == "float16")


def take_step(
    state: TrainState, accumulate: Callable[[], dict[str, float]], max_norm: float
) -> dict[str, float]:
    """Take one optimiser step.

    Args:
        state: the parameters, their optimiser and its scaler.
        accumulate: adds up the gradient of the scaled loss; it gives the same when it is called again.
        max_norm: to which the gradient is clipped.

    Returns:
        The result of `accumulate`, and grad_norm.

    Raises:
        Unfit: the gradient is not finite; that of a float16 base at no scale.
    """
    parameters, scaler = list(state.parameters.values()), state.scaler
    for _ in range(TRIES):
        facts = accumulate()
        scaler.unscale_(state.optimiser)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_norm))
        if not math.isfinite(norm) and not scaler.is_enabled():  # the step would make the weights NaN
            state.optimiser.zero_grad()
            raise Unfit(
                "training diverged: its gradient is no longer finite; begin anew with a lower learning rate"
            )
        scaler.step(state.optimiser)
        scaler.update()
        state.optimiser.zero_grad()
        if math.isfinite(norm):
            return {**facts, "grad_norm": norm}
    raise Unfit(
        "model.dtype: float16 is too narrow for this model: its gradients overflow; take bfloat16 or float32"
    )
