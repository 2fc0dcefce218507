"""Write an adapter in the key names of the models' original code, for ComfyUI and for kohya's tools.

What the original keeps in one weight becomes one module: the parts' factors side by side, B block by
block, so ΔW is exactly theirs and the rank is the sum of the ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..ops.lowrank import LowRank
from ..types import ParetuneError
from .layout import Layout
from .original_names import TABLES, Original, matcher, spelled
from .tensors import TensorSpool

# Which factor names each tool's own files have; both are read by both, diffusers insists on these.
_DOWN_UP, _A_B = ("lora_down", "lora_up"), ("lora_A", "lora_B")
COMFYUI = {"flux": _DOWN_UP, "hunyuan_video": _A_B, "sd3": _A_B, "wan": _A_B}


@dataclass(frozen=True)
class Fused:
    """A module of the original model: its name, and diffusers' modules that it holds (None: not adapted)."""

    name: str
    original: Original
    parts: tuple[str | None, ...]


def fused_names(modules: Mapping[str, LowRank], family: str) -> list[Fused]:
    """The original modules that hold these. Raises ParetuneError for one that the family has not."""
    table = [
        (matcher(target), original, place)
        for original in TABLES[family]
        for place, target in enumerate(original.targets)
    ]
    found: dict[str, tuple[Original, dict[int, str]]] = {}
    for module in modules:
        hits = ((m, o, place) for pattern, o, place in table if (m := pattern.match(module)))
        match, original, place = next(hits, (None, None, 0))
        if match is None or original is None:
            raise ParetuneError(f"{module} has no name in {family}'s original code; write peft or diffusers")
        name = spelled(original.name, match.groupdict().get("i") or "")
        found.setdefault(name, (original, {}))[1][place] = module
    return [
        Fused(name, original, tuple(parts.get(i) for i in range(len(original.targets))))
        for name, (original, parts) in found.items()
    ]


def fuse(deltas: Mapping[str, LowRank], module: Fused) -> LowRank:
    """The module's ΔW as one: the parts' rows under one another, zero where there is no part."""
    parts = [None if name is None else deltas[name] for name in module.parts]
    shares = module.original.shares
    there = [(part, share) for part, share in zip(parts, shares, strict=True) if part is not None]
    first, share = there[0]
    unit = first.shape[0] // share
    for part, own in there:
        if part.shape != (unit * own, first.shape[1]):
            shapes = f"{first.shape} and {part.shape}"
            raise ParetuneError(f"the parts of {module.name} do not fit together: {shapes}")
    if len(parts) > 1:
        rows, rank = [], sum(part.rank for part, _ in there)
        column = 0
        for part, own in zip(parts, shares, strict=True):
            block = first.B.new_zeros(unit * own, rank)
            if part is not None:
                block[:, column : column + part.rank] = part.B
                column += part.rank
            rows.append(block)
        first = LowRank(torch.cat(rows), torch.cat([part.A for part, _ in there]))
    swap = module.original.swap
    if swap == "always" or (swap == "halves" and first.shape[0] == 2 * first.shape[1]):
        first = LowRank(first.B.roll(first.shape[0] // 2, dims=0), first.A)
    return first


def write_original(
    path: Path,
    deltas: Mapping[str, LowRank],
    layouts: Mapping[str, Layout],
    form: str,
    family: str,
    metadata: Mapping[str, str],
) -> None:
    """Write the file. form: "comfyui" or "kohya". layouts: of the modules that are not linear."""
    spool = TensorSpool(path.parent)
    try:
        for module in fused_names(deltas, family):
            layout = layouts.get(module.parts[0] or "", Layout())
            for name, tensor in _tensors(module.name, fuse(deltas, module), layout, form, family):
                spool.add(name, tensor)
        spool.write(path, metadata)
    finally:
        spool.close()


def _tensors(
    name: str, delta: LowRank, layout: Layout, form: str, family: str
) -> Iterator[tuple[str, Tensor]]:
    if layout.kind == "embedding":
        raise ParetuneError(f"{name} is an embedding, which {form} cannot hold")
    a, b = delta.A.float(), delta.B.float()
    if layout.kind == "conv":
        a = a.reshape(delta.rank, -1, *layout.kernel)
        b = b.reshape(*b.shape, *(1 for _ in layout.kernel))
    kohya = form == "kohya"
    down, up = _DOWN_UP if kohya else COMFYUI[family]
    stem = f"lora_unet_{name.replace('.', '_')}" if kohya else f"diffusion_model.{name}"
    yield f"{stem}.{down}.weight", a
    yield f"{stem}.{up}.weight", b
    if down == "lora_down":  # these tools divide by the rank: alpha = rank is a scale of 1
        yield f"{stem}.alpha", torch.tensor(float(delta.rank))
