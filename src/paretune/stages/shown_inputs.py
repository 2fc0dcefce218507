"""The prompts whose samples the report shows, with small copies of their input pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..data.prompts import load_prompts
from ..files import disk_errors, write_bytes
from ..inputs.pictures import open_picture, picture_hash, picture_of
from ..records.names import input_file

LONGEST = 512  # pixels of a side of a copy


def shown_prompts(config: RunConfig, folder: Path, most: int) -> list[dict[str, Any]]:
    """The entries of samples/index.json: the first `most` held-out prompts of every reward.

    Their input pictures are written to `folder`, and those of an earlier evaluation are removed.
    """
    entries: list[dict[str, Any]] = []
    for name, reward_config in config.rewards.items():
        with disk_errors(folder):
            for old in folder.glob("*-input.png"):
                if old.name in {input_file(name, i) for i in range(most)} and not old.is_symlink():
                    old.unlink()
        for i, prompt in enumerate(load_prompts(reward_config.eval_prompts)[:most]):
            entry: dict[str, Any] = {"set": name, "index": i, "text": prompt.text}
            image = picture_of(prompt.text)
            if image is not None:
                write_bytes(folder / input_file(name, i), _small(image))
                entry["image"] = picture_hash(image)
            entries.append(entry)
    return entries


def _small(image: str) -> bytes:
    """A picture as a PNG of at most LONGEST pixels a side."""
    picture, file = open_picture(image), io.BytesIO()
    picture.thumbnail((LONGEST, LONGEST))
    picture.save(file, "PNG")
    return file.getvalue()
