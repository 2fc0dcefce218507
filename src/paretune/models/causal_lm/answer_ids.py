"""The tokens of given answers, apart from those of their prompts, as the model itself would write them.

A prompt is tokenised as for sampling, and an answer by itself, so that the border between them is a border
of tokens, and numbers for every token of an answer stay aligned with them. An answer that ends gets the
token that ends a turn: what the chat template writes after an answer, or else the tokenizer's end token.

Some chat templates write a space before an answer (Llama-2's, for one). A drawn answer begins with it, and a
message of a conversation does not: `as_drawn` and `as_message` put it there and take it away, so that the
same tokens are trained whichever way an answer came.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from ...foreign.chat import render_chats
from ...types import ParetuneError
from .policy import CausalLMPolicy

_ASKED, _SAID = "asked", "answered"


def answer_ids(policy: CausalLMPolicy, parts: Sequence[str], end: Sequence[int]) -> list[int]:
    """The tokens of an answer.

    Args:
        policy: the model.
        parts: the answer's text as drawn, whole or in steps. Steps are tokenised one by one.
        end: the tokens after it: `ending_ids`, or none for an answer that does not end here.
    """
    ids: list[int] = []
    for part in parts:
        ids += policy.tokenizer(part, add_special_tokens=False)["input_ids"]
    return [*ids, *end]


def as_drawn(policy: CausalLMPolicy, parts: Sequence[str]) -> list[str]:
    """An answer, whole or in steps, as the model draws it: with the space that the chat template writes.

    An empty answer stays empty: the model has ended at once.
    """
    space, first = _around(policy)[0], next(iter(parts), "")
    return [space + first, *parts[1:]] if first and not first.startswith(space) else list(parts)


def as_message(policy: CausalLMPolicy, answer: str) -> str:
    """An answer as the content of a message, before which the chat template writes its own space."""
    return answer.removeprefix(_around(policy)[0])


def ending_ids(policy: CausalLMPolicy) -> list[int]:
    """The tokens that end an answer; none if the tokenizer has no end token."""
    tokenizer = policy.tokenizer
    plain = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids: list[int] = tokenizer(_around(policy)[1], add_special_tokens=False)["input_ids"]
    ends = policy.transformer.generation_config.eos_token_id
    last = {ends} if isinstance(ends, int) else set(ends or ())
    # Nothing is ever drawn after the token that stops the drawing.
    stop = next((i + 1 for i, one in enumerate(ids) if one in last), len(ids))
    return ids[:stop] or plain


def _around(policy: CausalLMPolicy) -> tuple[str, str]:
    """The space that the chat template writes before an answer, and the text after it; "" where unknown."""
    if not policy.chats:
        return "", ""
    turns = [{"role": "user", "content": _ASKED}, {"role": "assistant", "content": _SAID}]
    what = f"model.path: {policy.config.path}"
    prompt = render_chats(policy.tokenizer, [turns[:1]], what, prompt=True)[0]
    whole = render_chats(policy.tokenizer, [turns], what)[0]
    before, said, after = whole.removeprefix(prompt).partition(_SAID)
    # Words before the answer are the template's own, such as those of a thought; they are not drawn so.
    if not whole.startswith(prompt) or not said or before.strip():
        return "", ""
    return before, after


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
