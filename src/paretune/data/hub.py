"""Prompt sets that are datasets of the Hugging Face hub: "hf:OWNER/NAME/FOLDER@SPLIT".

The rows of a dataset are records, as in files (see `records`). Anthropic's hh-rlhf has no prompts but two
dialogues with the same beginning: everything up to the last "Assistant:" is the prompt, and the rest of each
dialogue is the preferred answer and the other one.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from paretune.foreign.hub_errors import refusal
from paretune.types import ParetuneError, Prompt

from .hub_pictures import with_picture_files
from .records import as_prompt

PREFIX = "hf:"


@functools.lru_cache(maxsize=8)
def load_hub(spec: str) -> tuple[Prompt, ...]:
    """The prompts of a spec, downloaded once on each machine. Raises ParetuneError if there are none.

    A local folder of JSONL or Parquet files may take the place of OWNER/NAME. SPLIT may be a slice:
    train[:2000]. The column of the prompts may follow, as in train[:2000]:caption; it is "prompt" otherwise.
    """
    place, _, split = spec.removeprefix(PREFIX).partition("@")
    split, column = _column(split)
    if not place or not split:
        raise ParetuneError(f"prompts {spec}: write it as hf:OWNER/NAME@SPLIT or hf:OWNER/NAME/FOLDER@SPLIT")
    try:
        from datasets import disable_progress_bars, load_dataset
    except ImportError as error:
        raise ParetuneError(f"prompts {spec} need datasets: pip install 'paretune[language]'") from error
    disable_progress_bars()
    name, folder = place, None
    if not Path(place).exists() and place.count("/") > 1:
        owner, dataset, folder = place.split("/", 2)
        name = f"{owner}/{dataset}"
    try:
        rows: Any = load_dataset(name, data_dir=folder, split=split, trust_remote_code=False)
        if column and column not in rows.column_names:
            known = ", ".join(rows.column_names)
            raise ParetuneError(f"prompts {spec}: there is no column {column!r}; its columns: {known}")
        prompts = tuple(
            as_prompt(row, f"{spec}, row {i}", column or "prompt", Path(place))
            for i, row in enumerate(with_picture_files(rows))
        )
    except ParetuneError:
        raise
    except Exception as error:  # the library raises exceptions of many kinds
        empty = _empty_file(Path(place), split.partition("[")[0])
        if empty is not None:
            raise ParetuneError(f"prompts {spec}: {empty} is empty") from error
        first = (str(error).strip() or type(error).__name__).split("\n")[0]
        reason = refusal(error, name) or first
        raise ParetuneError(f"prompts {spec} cannot be loaded: {reason}") from error
    if not prompts:
        raise ParetuneError(f"prompts {spec} is an empty dataset")
    return prompts


def _column(split: str) -> tuple[str, str]:
    """A split and the column behind it, "" where none is named; the colon of a slice names none."""
    before, colon, after = split.rpartition(":")
    return (before, after) if colon and "]" not in after else (split, "")


def _empty_file(folder: Path, split: str) -> Path | None:
    """A local file of the split that has no row; the library's message does not mention it."""
    for path in sorted(folder.glob(f"{split}*")):
        if path.is_file() and path.stat().st_size < 4096 and not path.read_bytes().strip():
            return path
    return None
