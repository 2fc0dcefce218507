"""What TRL tokenises: answers as messages, a check of conversations, and a tokenizer that adds no start."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from ...foreign.chat import render_chats
from ...models.causal_lm.answer_ids import as_message
from ...models.causal_lm.policy import CausalLMPolicy

ANSWERS = ("chosen", "rejected", "completion")


def as_messages(policy: CausalLMPolicy, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of conversations whose answers lack the space that the chat template writes before them."""
    return [
        row | {
            key: [{**turn, "content": as_message(policy, turn["content"])} for turn in row[key]]
            for key in ANSWERS if key in row
        }
        for row in rows
    ]  # fmt: skip


def unstarted(policy: CausalLMPolicy, texts: Sequence[str]) -> Any:
    """The policy's tokenizer, without its start token where rendered prompts do not begin with it.

    TRL's CPO, SimPO and ORPO put a start token before every prompt that lacks it, whether or not the model
    ever sees one there.
    """
    tokenizer = policy.tokenizer
    start = tokenizer.bos_token_id
    if start is None or any(ids[:1] == [start] for ids in policy.text_ids(texts[:1])):
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.bos_token = None
    return tokenizer


def check_chats(tokenizer: Any, rows: Sequence[dict[str, Any]], what: str) -> None:
    """Render conversations in a way that can be stopped, in case a chat template never ends.

    Args:
        tokenizer: with the chat template.
        rows: the rows that TRL will render.
        what: the beginning of the message of a ParetuneError.

    Raises:
        ParetuneError: if the template cannot render them.
    """
    answers = [(row["prompt"], row[key]) for row in rows for key in ANSWERS if key in row]
    render_chats(tokenizer, [[*prompt, *answer] for prompt, answer in answers], what)
