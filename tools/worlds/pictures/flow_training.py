"""What the training programs of the small FLUX and HunyuanVideo share: one loop that counts processor time.

A phase that was cut off goes on from its last checkpoint when it is called again.
"""
# pyright: reportPrivateImportUsage=false
# torch does not list `_foreach_lerp_` among its public names.

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from .muon import Muon

EVERY = 50  # steps between two rows of the log, and between two checkpoints


@dataclass(frozen=True)
class Settings:
    """minutes: of processor time. decay: the share of them in which the rates fall. rates: of Muon, AdamW."""

    minutes: float
    batch: int
    rates: tuple[float, float]
    decay: float
    ema: float
    seed: int
    phase: str

    @classmethod
    def read(cls, args: argparse.Namespace) -> Settings:
        """From the arguments that `arguments` adds."""
        rates = (args.muon_lr, args.lr)
        return cls(args.minutes, args.batch, rates, args.decay, args.ema, args.seed, args.phase)


def arguments(parser: argparse.ArgumentParser, batch: int, shift: float) -> None:
    """The flags of every such program."""
    parser.add_argument("--minutes", type=float, required=True, help="of processor time")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--muon-lr", type=float, default=5e-3)
    parser.add_argument("--decay", type=float, default=0.4, help="share of the time that decays lr")
    parser.add_argument("--ema", type=float, default=0.995)
    parser.add_argument("--shift", type=float, default=shift, help="> 1 trains more on high noise")
    parser.add_argument("--seed", type=int, default=0)


def train(
    parts: nn.ModuleList,
    examples: int,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    settings: Settings,
    out: Path,
) -> None:
    """Train `parts` in place, the transformer first; at the end they hold their moving average.

    examples: how many there are. loss_of: from indices of a batch [B] to its loss.
    """
    optimisers = _optimisers(parts, settings)
    average = [p.detach().clone() for p in parts.parameters()]
    step, spent = _load(out, parts, average)
    generator = torch.Generator().manual_seed(settings.seed + step)
    start, losses, budget = time.process_time() - spent, [], settings.minutes * 60
    while (spent := time.process_time() - start) < budget:
        for optimiser, rate in zip(optimisers, settings.rates, strict=True):
            optimiser.param_groups[0]["lr"] = rate * schedule(step, spent / budget, settings.decay)
        loss = loss_of(torch.randint(examples, (settings.batch,), generator=generator))
        loss.backward()
        nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        with torch.no_grad():
            decay = min(settings.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(average, list(parts.parameters()), 1 - decay)
        losses.append(loss.item())
        step += 1
        if step % EVERY == 0:
            seconds = time.process_time() - start
            row = {"phase": settings.phase, "step": step, "loss": round(sum(losses) / len(losses), 5),
                   "seconds": round(seconds, 1)}
            with (out / "log.jsonl").open("a") as log:
                print(json.dumps(row), file=log)
            losses = []
            _save(out, parts, average, step, seconds)
    with torch.no_grad():
        for p, a in zip(parts.parameters(), average, strict=True):
            p.copy_(a)


def shifted_sigma(count: int, shift: float) -> torch.Tensor:
    """Logit-normal times [count], moved to higher noise, where a caption decides what is drawn."""
    sigma = torch.sigmoid(torch.randn(count))
    return shift * sigma / (1 + (shift - 1) * sigma)


def schedule(step: int, share: float, decay: float) -> float:
    """Linear warm-up over 50 steps, flat, then a cosine to zero over the last share `decay` of the time."""
    warm = min(1.0, (step + 1) / 50)
    past = max(0.0, share - (1 - decay)) / max(decay, 1e-9)
    return warm * 0.5 * (1 + math.cos(math.pi * min(past, 1.0)))


def _optimisers(parts: nn.ModuleList, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon for the transformer's hidden matrices, AdamW for the rest."""
    hidden = [
        p for n, p in parts[0].named_parameters()
        if p.ndim == 2 and "transformer_blocks" in n and ".norm" not in n
    ]
    ids = {id(p) for p in hidden}
    other = [p for p in parts.parameters() if id(p) not in ids]
    muon, adam = settings.rates
    return [Muon(hidden, lr=muon), torch.optim.AdamW(other, lr=adam, betas=(0.9, 0.98), weight_decay=0.01)]


def _save(
    out: Path, parts: nn.ModuleList, average: list[torch.Tensor], step: int, seconds: float
) -> None:
    """The weights and their average; the optimisers' moments are made anew after a cut."""
    names = [n for n, _ in parts.named_parameters()]
    tensors = {f"now/{n}": p.detach() for n, p in parts.named_parameters()}
    tensors |= {f"average/{n}": a for n, a in zip(names, average, strict=True)}
    place = out / "checkpoint.safetensors"
    save_file(tensors, place.with_suffix(".part"), metadata={"step": str(step), "seconds": str(seconds)})
    place.with_suffix(".part").replace(place)
    (out / "position.json").write_text(json.dumps({"step": step, "seconds": seconds}))


def _load(out: Path, parts: nn.ModuleList, average: list[torch.Tensor]) -> tuple[int, float]:
    """Go on from a checkpoint; (0, 0) where there is none."""
    if not (out / "checkpoint.safetensors").exists():
        return 0, 0.0
    tensors = load_file(out / "checkpoint.safetensors")
    position = json.loads((out / "position.json").read_text())
    with torch.no_grad():
        for (name, parameter), mean in zip(parts.named_parameters(), average, strict=True):
            parameter.copy_(tensors[f"now/{name}"])
            mean.copy_(tensors[f"average/{name}"])
    return position["step"], position["seconds"]
