"""Conversations that TRL renders itself, looked at before it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...foreign.chat import render_chats


def check_chats(tokenizer: Any, rows: Sequence[dict[str, Any]], what: str) -> None:
    """Render conversations where a template without end can be stopped, before TRL renders them itself.

    Raises ParetuneError that begins with `what`.
    """
    answers = [(row["prompt"], row[key]) for row in rows
               for key in ("chosen", "rejected", "completion") if key in row]  # fmt: skip
    render_chats(tokenizer, [[*prompt, *answer] for prompt, answer in answers], what)
