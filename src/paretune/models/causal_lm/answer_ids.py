"""The tokens of given answers, apart from those of their prompts, as the model itself would write them.

A prompt is tokenised as for sampling, and an answer by itself, so that the border between them is a border
of tokens, and numbers for every token of an answer stay aligned with them. An answer that ends gets the
token that ends a turn: what the chat template writes after an answer, or else the tokenizer's end token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from ...foreign.chat import render_chats
from ...types import ParetuneError
from .policy import CausalLMPolicy

_ASKED, _SAID = "a", "b"


def answer_ids(policy: CausalLMPolicy, parts: Sequence[str], end: Sequence[int]) -> list[int]:
    """The tokens of an answer.

    Args:
        policy: the model.
        parts: the answer's text, whole or in steps. Steps are tokenised one by one.
        end: the tokens after it: `ending_ids`, or none for an answer that does not end here.
    """
    ids: list[int] = []
    for part in parts:
        ids += policy.tokenizer(part, add_special_tokens=False)["input_ids"]
    return [*ids, *end]


def ending_ids(policy: CausalLMPolicy) -> list[int]:
    """The tokens that end an answer; none if the tokenizer has no end token."""
    tokenizer = policy.tokenizer
    plain = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if not policy.chats:
        return plain
    turns = [{"role": "user", "content": _ASKED}, {"role": "assistant", "content": _SAID}]
    what = f"model.path: {policy.config.path}"
    prompt = render_chats(tokenizer, [turns[:1]], what, prompt=True)[0]
    whole = render_chats(tokenizer, [turns], what)[0]
    if not whole.startswith(prompt + _SAID):
        return plain
    ids: list[int] = tokenizer(whole[len(prompt + _SAID) :], add_special_tokens=False)["input_ids"]
    ends = policy.transformer.generation_config.eos_token_id
    last = {ends} if isinstance(ends, int) else set(ends or ())
    # Nothing is ever drawn after the token that stops the drawing.
    stop = next((i + 1 for i, one in enumerate(ids) if one in last), len(ids))
    return ids[:stop] or plain


def check_fits(policy: CausalLMPolicy, prompt: str, length: int) -> None:
    """Raise ParetuneError where a prompt and its answer have more tokens than the model's context."""
    if length > policy.context:
        raise ParetuneError(
            f"the prompt {prompt[:60]!r} and its longest answer have {length} tokens, and the model's "
            f"context holds {policy.context}: shorten the answer, or leave the record out"
        )


def tokenizer_digest(policy: CausalLMPolicy) -> str:
    """Identifies the tokenizer that numbers for tokens were made with: a hash of its vocabulary."""
    words = sorted(policy.tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]
