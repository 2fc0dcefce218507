"""What `paretune sample` leaves: pictures that carry their settings, a grid, the scores; all or nothing."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..files import disk_errors, partial_folder, write_bytes, write_json, write_rows
from ..types import ParetuneError
from .request import Request
from .sampler import Drawn, Sampler

KEY = "paretune"
SMALL = 128  # a picture with a shorter side is shown enlarged in the grid
GAP = 4


def sample_to(sampler: Sampler, requests: Sequence[Request], count: int, out: Path) -> dict[str, Any]:
    """Draw `count` pictures of each request into a new folder; returns what sample.json holds."""
    check_new(out)
    drawn = [sampler.draw_scored(request, count) for request in requests]
    return write_samples(sampler, requests, drawn, out)


def check_new(out: Path) -> None:
    """ParetuneError if there is something at `out`."""
    if out.exists() or out.is_symlink():
        raise ParetuneError(f"{out} exists; give a new folder")


def write_samples(
    sampler: Sampler, requests: Sequence[Request], drawn: Sequence[Drawn], out: Path
) -> dict[str, Any]:
    """Write pictures/, prompts.jsonl (a record a picture, for `paretune score`), grid.png and sample.json."""
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_folder(out)
        try:
            table = _fill(partial, sampler, requests, drawn)
            check_new(out)  # another process may have made it meanwhile
            os.replace(partial, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return table


def _fill(
    folder: Path, sampler: Sampler, requests: Sequence[Request], drawn: Sequence[Drawn]
) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for number, (request, done) in enumerate(zip(requests, drawn, strict=True)):
        settings = sampler.settings(request)
        for index, (pixels, scores) in enumerate(zip(done.pixels, done.scores, strict=True)):
            name = f"pictures/{number:03d}-{index:03d}.png"
            write_bytes(folder / name, png_bytes(pixels, {**settings, "index": index}))
            rows.append({
                "file": name, "request": number, "prompt": request.prompt, "seed": request.seed,
                "index": index, "scores": scores, "left_out": dict(done.left_out),
            })  # fmt: skip
            records.append({**done.prompt.metadata, "prompt": done.prompt.text})
    everything = [sampler.settings(request) for request in requests]
    write_bytes(folder / "grid.png", png_bytes(grid([d.pixels for d in drawn]), {"rows": everything}))
    write_rows(folder / "prompts.jsonl", records)
    table = {"rewards": list(sampler.source.rewards), "requests": everything, "pictures": rows}
    write_json(folder / "sample.json", table)
    return table


def png_bytes(pixels: torch.Tensor, settings: dict[str, Any]) -> bytes:
    """uint8 [H, W, 3] as a PNG with its settings as JSON under `paretune`; equal input gives equal bytes."""
    info = PngInfo()
    info.add_text(KEY, json.dumps(settings))  # ASCII, as tEXt wants
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that a picture carries."""
    with Image.open(path) as image:
        text = image.info.get(KEY)
    if not isinstance(text, str):
        raise ParetuneError(f"{path} carries no settings of paretune")
    return json.loads(text)


def grid(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """A row a request, uint8 [N, H, W, 3] each -> uint8 [H', W', 3], white between; small ones enlarged."""
    side = min(rows[0].shape[1:3])
    times = max(1, -(-SMALL // side))
    bands = []
    for pixels in rows:
        large = pixels.repeat_interleave(times, 1).repeat_interleave(times, 2)
        framed = torch.nn.functional.pad(large, (0, 0, GAP, GAP, GAP, GAP), value=255)
        bands.append(torch.cat(list(framed), dim=1))
    return torch.cat(bands)
