"""Lists of samples that are comparable: what a preference objective trains on.

Shapes: M samples in L lists of K, list-major: sample m is in list m // K. A pair is a list of two. S cells.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from ...files import read_json, sha256, write_bytes, write_json
from ...types import ParetuneError


@dataclass(frozen=True)
class PreferenceSet:
    """See the module.

    size: K. clean: [M, ..] latents. caption: [M], indices into the conditions of the objective's captions.
    prompt: [L], those of the lists' prompts, from which captions may differ.
    score: [M, S], greater is better; S is 1, or the number of cells that have scores of their own. weight:
    [L], of the lists, or None. noise: [M, ..], the noise that the samples were drawn from. quality: [M, S],
    the weights of a fit. Of the path of the policy that each list is held against: path_x, path_u [L, R, ..],
    states and the velocities there, and path_sigma [L, R]. Of single steps: before, after [M, ..], the states
    around a stochastic step, and step [L], its number.
    """

    size: int
    clean: torch.Tensor
    caption: torch.Tensor
    score: torch.Tensor
    prompt: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    quality: torch.Tensor | None = None
    path_x: torch.Tensor | None = None
    path_u: torch.Tensor | None = None
    path_sigma: torch.Tensor | None = None
    before: torch.Tensor | None = None
    after: torch.Tensor | None = None
    step: torch.Tensor | None = None

    def __len__(self) -> int:
        """The number of lists, L."""
        return len(self.caption) // self.size

    def lists(self, values: torch.Tensor) -> torch.Tensor:
        """Values of the samples, [M, ..] -> [L, K, ..]."""
        return values.view(len(self), self.size, *values.shape[1:])

    def select(self, lists: torch.Tensor) -> PreferenceSet:
        """The set of some of its lists, which are given by their numbers."""
        samples = (lists[:, None] * self.size + torch.arange(self.size)).flatten()
        own = {"prompt", "weight", "step", "path_x", "path_u", "path_sigma"}
        kept: dict[str, Any] = {}
        for name, value in self.tensors().items():
            kept[name] = value[lists if name in own else samples]
        return replace(self, **kept)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors that it has, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "size"}
        return {name: value for name, value in named.items() if value is not None}


def save_set(lists: PreferenceSet | None, folder: Path, epoch: int) -> None:
    """Write a set that later epochs use too, with its hash. None: there was nothing to learn."""
    file = _file(folder, epoch)
    if lists is None:
        write_json(file.with_suffix(".json"), {"size": 0})
        return
    write_bytes(file, save({name: t.contiguous() for name, t in lists.tensors().items()}))
    write_json(file.with_suffix(".json"), {"size": lists.size, "sha256": sha256(file)})


def load_set(folder: Path, epoch: int) -> PreferenceSet | None:
    """Read the set that was made in an epoch, or None. Raises ParetuneError if it is missing or damaged."""
    file = _file(folder, epoch)
    facts = read_json(file.with_suffix(".json"))
    if facts == {"size": 0}:
        return None
    if not file.is_file() or not isinstance(facts, dict) or sha256(file) != facts.get("sha256"):
        raise ParetuneError(f"{file} was changed or damaged (its hash differs); delete {folder} and resume")
    return PreferenceSet(facts["size"], **load(file.read_bytes()))


def forget_sets(folder: Path, before: int) -> None:
    """Delete the sets of epochs before a given one."""
    for file in (folder / "preferences").glob("set-*"):
        number = file.stem.removeprefix("set-")
        if number.isdecimal() and int(number) < before:
            file.unlink(missing_ok=True)


def _file(folder: Path, epoch: int) -> Path:
    return folder / "preferences" / f"set-{epoch:05d}.safetensors"
