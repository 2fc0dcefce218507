"""Check conversations before TRL renders them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...foreign.chat import render_chats


def check_chats(tokenizer: Any, rows: Sequence[dict[str, Any]], what: str) -> None:
    """Render conversations in a way that can be stopped, in case a chat template never ends.

    Args:
        tokenizer: with the chat template.
        rows: the rows that TRL will render.
        what: the beginning of the message of a ParetuneError.

    Raises:
        ParetuneError: if the template cannot render them.
    """
    answers = [(row["prompt"], row[key]) for row in rows
               for key in ("chosen", "rejected", "completion") if key in row]  # fmt: skip
    render_chats(tokenizer, [[*prompt, *answer] for prompt, answer in answers], what)
