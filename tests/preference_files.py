"""Files of preferences for tests: pictures on disk, records, and datasets in the layout of published ones."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

CAPTIONS = ("a red circle", "two blue squares", "a sign saying kite", "a green star")


def picture(shade: int, size: int = 16) -> bytes:
    """A PNG of one colour, the same for the same shade."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), (shade % 256, 40, 255 - shade % 256)).save(file, "PNG")
    return file.getvalue()


def make_pictures(folder: Path, count: int, size: int = 16) -> list[str]:
    """Pictures p0.png, p1.png, .. in a folder; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"p{i}.png" for i in range(count)]
    for i, name in enumerate(names):
        (folder / name).write_bytes(picture(20 * i, size))
    return names


def write_records(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def make_pairs(folder: Path, **more: Any) -> Path:
    """Four pairs of pictures."""
    names = make_pictures(folder, 8)
    return write_records(folder / "pairs.jsonl", [
        {"prompt": caption, "chosen": names[2 * i], "rejected": names[2 * i + 1], **more}
        for i, caption in enumerate(CAPTIONS)
    ])  # fmt: skip


def make_ranked(folder: Path, size: int = 3) -> Path:
    """Four lists of pictures with scores."""
    names = make_pictures(folder, 4 * size)
    return write_records(folder / "ranked.jsonl", [
        {"prompt": caption, "samples": names[size * i : size * (i + 1)],
         "scores": [(j * 7 + i) % 5 / 5 for j in range(size)]}
        for i, caption in enumerate(CAPTIONS)
    ])  # fmt: skip


def make_pickapic(folder: Path) -> Path:
    """A parquet file with the columns of Pick-a-Pic v2: three pairs, of which one is a tie."""
    from datasets import Dataset

    folder.mkdir(parents=True, exist_ok=True)
    labels = (1.0, 0.0, 0.5)
    Dataset.from_dict({
        "caption": list(CAPTIONS[:3]),
        "jpg_0": [picture(20 * i) for i in range(3)],
        "jpg_1": [picture(20 * i + 100) for i in range(3)],
        "label_0": list(labels), "label_1": [1 - label for label in labels],
        "has_label": [True] * 3,
    }).to_parquet(str(folder / "train.parquet"))  # fmt: skip
    return folder


def make_hpd(folder: Path) -> Path:
    """A JSON lines dataset with the columns of HPDv2's training set, with its pictures beside it."""
    names = make_pictures(folder, 4)
    write_records(folder / "train.jsonl", [
        {"prompt": CAPTIONS[i], "image_path": names[2 * i : 2 * i + 2], "human_preference": [i, 1 - i]}
        for i in range(2)
    ])  # fmt: skip
    return folder
