"""The state of one expert in training, saved so that training continues bit for bit.

A checkpoint holds the adapter, the averaged copies and the optimiser's moments, as safetensors, and the
position. The state of random generators is not saved, because every epoch draws from a generator that is
seeded with the seed of the task and the number of the epoch.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from ..files import digest, disk_errors, read_json, sha256, write_bytes, write_json
from ..records.manifest import read_manifest
from ..types import ParetuneError, Stopped

__all__ = ["Checkpoint", "Stopped", "TrainState", "find_checkpoint", "latest_checkpoint", "load_checkpoint",
           "save_checkpoint"]  # fmt: skip
Tensors = dict[str, torch.Tensor]
_OWN = re.compile(r"epoch-\d+\Z|\.epoch-\d+\.\d+\.tmp\Z")  # a copy that a user made has another name


@dataclass
class TrainState:
    """The state of training.

    parameters: of the adapter in training. ema, old: averaged copies of them. epoch, updates: how many are
    done. inputs: a digest of everything that determines the result; a checkpoint with another digest is
    refused. best: the weights to go back to, where training may be stopped; see `guard`. scaler: of the loss;
    see `loss_scale`.
    """

    parameters: dict[str, torch.nn.Parameter]
    optimiser: torch.optim.Optimizer
    ema: Tensors
    old: Tensors
    epoch: int = 0
    updates: int = 0
    inputs: str = ""
    best: Tensors = field(default_factory=dict[str, torch.Tensor])
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler("cpu", enabled=False))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint to continue from, and the digest of inputs that it must carry."""

    path: Path
    inputs: str

    @property
    def epoch(self) -> int:
        """The number of finished epochs, read from its name."""
        return int(self.path.name.removeprefix("epoch-"))


def save_checkpoint(folder: Path, state: TrainState) -> None:
    """Write checkpoints/epoch-NNNN, then delete the earlier ones. There is a complete one at every moment."""
    final = folder / "checkpoints" / f"epoch-{state.epoch:04d}"
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    tensors: Tensors = {f"parameters/{n}": p.data for n, p in state.parameters.items()}
    tensors |= {f"ema/{n}": t for n, t in state.ema.items()}
    tensors |= {f"old/{n}": t for n, t in state.old.items()}
    tensors |= {f"best/{n}": t for n, t in state.best.items()}
    for name, parameter in state.parameters.items():
        for key, value in state.optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser/{key}/{name}"] = value
    cpu = {k: t.detach().cpu().clone().contiguous() for k, t in tensors.items()}
    write_bytes(temporary / "state.safetensors", save(cpu))
    position = {
        "epoch": state.epoch,
        "updates": state.updates,
        "inputs": state.inputs,
        "sha256": sha256(temporary / "state.safetensors"),
    }
    if state.scaler.is_enabled():
        position["scaler"] = state.scaler.state_dict()
    write_json(temporary / "position.json", {**position, "seal": digest(position)})
    with disk_errors(final):
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
        for other in final.parent.iterdir():
            if other != final and _OWN.match(other.name):
                shutil.rmtree(other, ignore_errors=True)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in the folder of an expert, or None."""
    found = [path for path in (folder / "checkpoints").glob("epoch-*") if path.name[6:].isdecimal()]
    return max(found, key=lambda path: int(path.name[6:]), default=None)


def find_checkpoint(folder: Path, inputs: str, earlier: Path | None = None) -> Checkpoint | None:
    """The checkpoint that an expert continues from, or None.

    Args:
        folder: of the expert.
        inputs: the digest of the expert's inputs.
        earlier: the folder of the finished expert that this one continues. Its last checkpoint is taken where
            the expert has none yet.
    """
    if (newest := latest_checkpoint(folder)) is not None:
        return Checkpoint(newest, inputs)
    if earlier is not None and (last := latest_checkpoint(earlier)) is not None:
        return Checkpoint(last, read_manifest(earlier).get("inputs", ""))
    return None


def load_checkpoint(found: Checkpoint, state: TrainState) -> None:
    """Fill `state` in place. Raises ParetuneError for damaged files, and for those of other inputs."""
    path, file = found.path, found.path / "state.safetensors"
    position = read_json(path / "position.json")
    sealed = isinstance(position, dict) and position.pop("seal", None) == digest(position)
    if not sealed or not file.exists() or sha256(file) != position["sha256"]:
        raise ParetuneError(f"{file} was changed or damaged (its hash differs); delete {path} and resume")
    if position["inputs"] != found.inputs:
        raise ParetuneError(
            f"{path} was made of other inputs (the prompts, a reward's file or the round before changed); "
            f"delete {path.parent.parent} and resume"
        )
    tensors = load_file(file)
    state.epoch, state.updates = position["epoch"], position["updates"]
    if "scaler" in position:
        state.scaler.load_state_dict(position["scaler"])
    device = next(iter(state.parameters.values())).device
    for name, parameter in state.parameters.items():
        parameter.data.copy_(tensors[f"parameters/{name}"])
        moments = {
            key.split("/")[1]: tensors[key].to(device if "exp" in key else "cpu")
            for key in tensors
            if key.startswith("optimiser/") and key.endswith(f"/{name}")
        }
        if moments:
            state.optimiser.state[parameter] = moments
    for copies, kind in ((state.ema, "ema"), (state.old, "old"), (state.best, "best")):
        copies.update(_part(tensors, kind, device))


def _part(tensors: Mapping[str, torch.Tensor], kind: str, device: torch.device) -> Tensors:
    prefix = f"{kind}/"
    return {k.removeprefix(prefix): t.to(device) for k, t in tensors.items() if k.startswith(prefix)}
