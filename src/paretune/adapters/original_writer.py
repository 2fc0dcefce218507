"""Writing an adapter with the key names of the models' original code, for ComfyUI and for kohya's tools.

If the original code joins several modules in one weight, their factors are joined: A stacked, B as a block
matrix. So ΔW is exact, and the rank is the sum of the ranks.
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

# The factor names in each tool's files. Both tools read both, but diffusers requires these.
_DOWN_UP, _A_B = ("lora_down", "lora_up"), ("lora_A", "lora_B")
COMFYUI = {"flux": _DOWN_UP, "hunyuan_video": _A_B, "sd3": _A_B, "wan": _A_B}


@dataclass(frozen=True)
class Fused:
    """A module of the original model, and the diffusers modules that it holds (None: not adapted)."""

    name: str
    original: Original
    parts: tuple[str | None, ...]


def fused_names(modules: Mapping[str, LowRank], family: str) -> list[Fused]:
    """The original modules that hold these. Raises ParetuneError for a module that is not in the table."""
    table = [
        (matcher(target), original, place)
        for original in TABLES[family]
        for place, target in enumerate(original.targets)
    ]
    fused: dict[str, tuple[Original, dict[int, str]]] = {}
    for module in modules:
        hits = ((m, o, place) for pattern, o, place in table if (m := pattern.match(module)))
        match, original, place = next(hits, (None, None, 0))
        if match is None or original is None:
            raise ParetuneError(f"{module} has no name in {family}'s original code; write peft or diffusers")
        name = spelled(original.name, match.groupdict().get("i") or "")
        fused.setdefault(name, (original, {}))[1][place] = module
    return [
        Fused(name, original, tuple(parts.get(i) for i in range(len(original.targets))))
        for name, (original, parts) in fused.items()
    ]


def fuse(deltas: Mapping[str, LowRank], module: Fused) -> LowRank:
    """The ΔW of an original module: the rows of its parts one below the other, zero for a missing part."""
    parts = [None if name is None else deltas[name] for name in module.parts]
    shares = module.original.shares
    present = [(part, share) for part, share in zip(parts, shares, strict=True) if part is not None]
    first, first_share = present[0]
    unit = first.shape[0] // first_share
    for part, share in present:
        if part.shape != (unit * share, first.shape[1]):
            shapes = f"{first.shape} and {part.shape}"
            raise ParetuneError(f"the parts of {module.name} do not fit together: {shapes}")
    if len(parts) > 1:
        rows, rank = [], sum(part.rank for part, _ in present)
        column = 0
        for part, share in zip(parts, shares, strict=True):
            block = first.B.new_zeros(unit * share, rank)
            if part is not None:
                block[:, column : column + part.rank] = part.B
                column += part.rank
            rows.append(block)
        first = LowRank(torch.cat(rows), torch.cat([part.A for part, _ in present]))
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
    """Write an adapter's file with original key names.

    Args:
        path: the file.
        deltas: module name in diffusers -> ΔW.
        layouts: of the modules that are not linear.
        form: "comfyui" or "kohya".
        family: a key of TABLES.
        metadata: of the file's header.
    """
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
    if down == "lora_down":  # these tools divide alpha by the rank, so alpha = rank gives scale 1
        yield f"{stem}.alpha", torch.tensor(float(delta.rank))
