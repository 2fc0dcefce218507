"""What judges have answered, on disk: the same question is paid for once."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from paretune.files import parse_json, write_text
from paretune.foreign.cache import cache_folder


class JudgeCache:
    """Answers by the hash of their whole question, pictures included. folder: None for paretune's cache.

    A file is written completely or not at all, so that several processes can share a folder. A damaged file
    is asked about again.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = cache_folder("judged") if folder is None else Path(folder)
        self._known: dict[str, dict[str, Any]] = {}

    @staticmethod
    def key(request: dict[str, Any]) -> str:
        """The hash of a question. The address and the key are no part of it."""
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()

    def __contains__(self, key: str) -> bool:
        if key in self._known:
            return True
        try:
            answer = parse_json(self._file(key).read_bytes())
        except (OSError, ValueError):
            return False
        if not isinstance(answer, dict) or "text" not in answer:
            return False
        self._known[key] = answer
        return True

    def __getitem__(self, key: str) -> dict[str, Any]:
        if key not in self:
            raise KeyError(key)
        return self._known[key]

    def __setitem__(self, key: str, answer: dict[str, Any]) -> None:
        if len(self._known) > 100_000:  # they are on disk
            self._known.clear()
        self._known[key] = answer
        write_text(self._file(key), json.dumps(answer))

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{os.path.basename(key)}.json"
