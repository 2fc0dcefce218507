"""Preference pairs: prompts whose records hold `chosen` and `rejected` answers, as TRL reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...chat import render_chats
from ...types import ParetuneError, Prompt


def pair_rows(
    objective: str, prompts: Sequence[Prompt], texts: Sequence[str], index: Sequence[int], chats: bool = False
) -> list[dict[str, Any]]:
    """The rows of the pairs at `index`, in its order. texts: the prompts as the model reads them.

    chats: they are rendered by a chat template; then rows are conversations, whose answers TRL ends as the
    template does, and not with the tokenizer's end. KTO wants single answers, each with its label. Raises
    ParetuneError for a prompt without a pair.
    """
    rows: list[dict[str, Any]] = []
    for i in index:
        answers = [prompts[i].metadata.get(key) for key in ("chosen", "rejected")]
        if not all(isinstance(answer, str) and answer.strip() for answer in answers):
            raise ParetuneError(
                f"objective {objective} trains on pairs: the prompt {prompts[i].text[:60]!r} has no "
                '"chosen" and "rejected" texts in its record'
            )
        asked: Any = texts[i]
        if chats:
            asked = turn("user", prompts[i].text)
            answers = [turn("assistant", str(answer)) for answer in answers]
        if objective == "kto":
            rows += [{"prompt": asked, "completion": answer, "label": label}
                     for answer, label in zip(answers, (True, False), strict=True)]  # fmt: skip
        else:
            rows.append({"prompt": asked, "chosen": answers[0], "rejected": answers[1]})
    return rows


def turn(role: str, text: str) -> list[dict[str, str]]:
    """A conversation of one turn."""
    return [{"role": role, "content": text}]


def check_chats(tokenizer: Any, rows: Sequence[dict[str, Any]], what: str) -> None:
    """Render conversations where a template without end can be stopped, before TRL renders them itself.

    Raises ParetuneError that begins with `what`.
    """
    answers = [(row["prompt"], row[key]) for row in rows
               for key in ("chosen", "rejected", "completion") if key in row]  # fmt: skip
    render_chats(tokenizer, [[*prompt, *answer] for prompt, answer in answers], what)
