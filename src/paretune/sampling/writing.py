"""Write what `paretune sample` makes: samples with their settings, a grid, the scores. All or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..files import check_room, disk_errors, partial_folder, write_bytes, write_json, write_rows
from ..inputs.pictures import KEY, open_picture, picture_of
from ..samples.files import fitted
from ..samples.stamped import stamped_png
from ..types import ParetuneError, Prompt, Samples
from .request import Request
from .sampler import Drawn, Sampler


def sample_to(
    sampler: Sampler, requests: Sequence[Request], count: int, out: Path,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Draw `count` samples of each request into the new folder `out`; returns the content of sample.json.

    more: further entries of sample.json.
    """
    check_place(out)
    drawn = [sampler.draw_scored(request, count) for request in requests]
    return write_samples(sampler, requests, drawn, out, more)


def check_new(out: Path) -> None:
    """Raise ParetuneError if `out` exists."""
    with disk_errors(out):
        if out.exists() or out.is_symlink():
            raise ParetuneError(f"{out} exists; give a new folder")


def check_place(out: Path) -> None:
    """Raise ParetuneError if no new folder can be made at `out`. It is called before anything is drawn."""
    check_new(out)
    check_room(out)


def write_samples(
    sampler: Sampler, requests: Sequence[Request], drawn: Sequence[Drawn], out: Path,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write pictures/ (or clips/, texts/), inputs/, prompts.jsonl, grid.png and sample.json.

    Args:
        sampler: which drew the samples.
        requests: what was asked for.
        drawn: the samples of each request.
        out: the new folder.
        more: further entries of sample.json.

    Returns:
        The content of sample.json.
    """
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_folder(out)
        try:
            table = _fill(partial, sampler, requests, drawn, more or {})
            check_new(out)  # another process may have made it in the meantime
            os.replace(partial, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return table


def _fill(
    folder: Path, sampler: Sampler, requests: Sequence[Request], drawn: Sequence[Drawn],
    more: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    rows: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    medium = sampler.medium
    for number, (request, done) in enumerate(zip(requests, drawn, strict=True)):
        settings, beside = sampler.settings(request), _copy_input(folder, number, done.prompt)
        for index, scores in enumerate(done.scores):
            name = f"{medium.name}/{number:03d}-{index:03d}{medium.suffix}"
            write_bytes(folder / name, medium.content(done.samples, index, {**settings, "index": index}))
            rows.append({
                "file": name, "request": number, "prompt": done.prompt.text, "seed": request.seed,
                "index": index, **_revision(request, index), **medium.entry(done.samples, index),
                "scores": scores, "left_out": dict(done.left_out), **beside,
            })  # fmt: skip
            records.append({**done.prompt.metadata, "prompt": done.prompt.text, **beside})
    everything = [sampler.settings(request) for request in requests]
    sheet = medium.sheet([_with_input(done) for done in drawn])
    if sheet is not None:
        write_bytes(folder / "grid.png", stamped_png(sheet, {"rows": everything}))
    write_rows(folder / "prompts.jsonl", records)
    table = {
        "made": medium.name, "grid": None if sheet is None else "grid.png",
        "rewards": list(sampler.source.rewards), "requests": everything, medium.name: rows,
        "cut": sampler.cuts([request.prompt for request in requests]), **more,
    }  # fmt: skip
    write_json(folder / "sample.json", table)
    return table


def _revision(request: Request, index: int) -> dict[str, int]:
    """Which answer a row revises, and for how many times; {} where nothing is revised."""
    if not request.revisions:
        return {}
    sample, revision = divmod(index, request.revisions + 1)
    return {"sample": sample, "revision": revision}


def _copy_input(folder: Path, number: int, prompt: Prompt) -> dict[str, str]:
    """Copy a request's input picture to inputs/; its entry in a record, or {} if there is none."""
    image = picture_of(prompt.text)
    if image is None:
        return {}
    name = f"inputs/{number:03d}{Path(image).suffix.lower()}"
    write_bytes(folder / name, Path(image).read_bytes())
    return {KEY: name}


def _with_input(done: Drawn) -> Samples:
    """The samples for the overview: pictures follow the input picture, at their size."""
    image, samples = picture_of(done.prompt.text), done.samples
    if image is None or not isinstance(samples, torch.Tensor) or samples.dim() != 4:
        return samples
    return torch.cat([fitted(open_picture(image), *samples.shape[-2:])[None], samples])
