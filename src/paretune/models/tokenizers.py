"""A pipeline's tokenizers without its models: to measure prompts, and to find texts that it cannot read."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..config import ModelConfig
from ..foreign.loading import load
from .detect import family_of, resolve_path


@functools.lru_cache(maxsize=16)
def open_tokenizer(place: str, part: str) -> Any:
    """A pipeline's tokenizer; None if it is not on this machine or does not load, which opening reports."""
    from importlib import import_module

    folder = Path(place)
    if folder.is_dir() and not (folder / part).is_dir():
        return None
    kind = import_module("transformers").AutoTokenizer
    try:
        return load(kind, place, place, subfolder=part, local_files_only=True)
    except Exception:  # a damaged tokenizer may raise anything
        return None


def unreadable_word(model: ModelConfig, texts: Iterable[str]) -> tuple[str, str] | None:
    """The first text that the model cannot read, and a word of it that no tokenizer knows, or None.

    A text cannot be read if half of its words or more have characters that every tokenizer of the model maps
    to its token for the unknown. A tokenizer of bytes knows all characters.
    """
    place = resolve_path(model.path)
    found = [open_tokenizer(place, limit.tokenizer) for limit in family_of(model.path).limits(model)]
    tokenizers = [tokenizer for tokenizer in found if tokenizer is not None]
    if not tokenizers:
        return None
    known: dict[str, bool] = {}
    for text in texts:
        words = text.split()
        for word in words:
            if word not in known:
                known[word] = any(_knows(tokenizer, word) for tokenizer in tokenizers)
        unknown = [word for word in words if not known[word]]
        if unknown and 2 * len(unknown) >= len(words):
            return text, unknown[0]
    return None


def _knows(tokenizer: Any, word: str) -> bool:
    unknown = tokenizer.unk_token_id
    return unknown is None or unknown not in tokenizer(word, add_special_tokens=False)["input_ids"]
