"""What the training programs of the reward models share: augmentation, the schedule, saving."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from paretune.worlds import pictures

WEIGHTS = Path(str(pictures.__file__)).parent / "weights"


def blurred(pictures: torch.Tensor, times: int = 1) -> torch.Tensor:
    """Pictures [B, 3, 32, 32] under a 3x3 binomial filter, applied so many times."""
    kernel = torch.tensor([1.0, 2.0, 1.0])
    kernel = (kernel[:, None] * kernel / 16).repeat(3, 1, 1, 1)
    for _ in range(times):
        padded = nn.functional.pad(pictures, (1, 1, 1, 1), mode="replicate")
        pictures = nn.functional.conv2d(padded, kernel, groups=3)
    return pictures


def jittered(pictures: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Mild flaws that change no fact: blur, noise, contrast, tint, each picture its own."""
    shape = (len(pictures), 1, 1, 1)

    def uniform(low: float, high: float, size: tuple[int, ...] = shape) -> torch.Tensor:
        return low + (high - low) * torch.rand(size, generator=rng)

    soft = uniform(-0.4, 0.6).clamp(min=0)
    pictures = (1 - soft) * pictures + soft * blurred(pictures)
    middle = pictures.mean((2, 3), keepdim=True)
    pictures = middle + (pictures - middle) * uniform(0.8, 1.15)
    pictures = pictures + uniform(-0.06, 0.06, (len(pictures), 3, 1, 1))
    noise = torch.randn(pictures.shape, generator=rng) * uniform(-0.03, 0.07).clamp(min=0)
    return (pictures + noise).clamp(0, 1)


def fit(optimizer: torch.optim.Optimizer, steps: int, loss_of: Callable[[], torch.Tensor], name: str) -> None:
    """So many steps down `loss_of`, which draws its own batch, under `schedule`; tells how it goes."""
    rate, started = schedule(optimizer, steps), time.monotonic()
    for step in range(steps):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        if step % 100 == 0:
            print(f"{name} {step}: loss {loss.item():.4f}, {time.monotonic() - started:.0f} s", flush=True)


def schedule(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """A warm-up of 5 % of the steps, then a cosine to zero."""
    warm = max(steps // 20, 1)

    def factor(step: int) -> float:
        rest = (step - warm) / max(steps - warm, 1)
        return min(step / warm, 0.5 + 0.5 * math.cos(math.pi * min(max(rest, 0.0), 1.0)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def save_weights(
    name: str, weights: Mapping[str, torch.Tensor], log: Mapping[str, Any]
) -> None:
    """Write NAME.safetensors (half precision) and NAME.log.json into the world's `weights`."""
    WEIGHTS.mkdir(exist_ok=True)
    halved = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in weights.items()
    }
    save_file(halved, WEIGHTS / f"{name}.safetensors")
    (WEIGHTS / f"{name}.log.json").write_text(json.dumps(dict(log), indent=2) + "\n")
