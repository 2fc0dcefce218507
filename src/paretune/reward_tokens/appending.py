"""A tokenizer that adds reward tokens to every prompt, where the prompt ends.

A pipeline may write a prompt into a template, as "{}<|im_end|>\\n<|im_start|>assistant\\n". The tokens stand
before the template's end, or, without a template, before the end token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..types import ParetuneError

if TYPE_CHECKING:
    from transformers import BatchEncoding

PROMPT = "{}"  # where a template holds the prompt


class Appending:
    """A tokenizer that adds the ids -1 .. -count to every text, where the prompt ends.

    appended: whether a text got the ids. A text that the tokenizer neither fills up nor cuts gets none: so
    pipelines look for what they will cut.
    """

    def __init__(self, tokenizer: Any, count: int, written: str = PROMPT) -> None:
        self._tokenizer, self._count = tokenizer, count
        before, _, after = written.partition(PROMPT)
        self._end: list[int] = self._ids(after)
        self._template = len(self._ids(before)) + len(self._end)
        self.appended = False

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def apply_chat_template(self, *args: Any, **settings: Any) -> Any:
        """The tokenizer's own method, which ends in a call of this object."""
        return type(self._tokenizer).apply_chat_template(self, *args, **settings)

    def __call__(self, text: str | Sequence[str], **settings: Any) -> Any:
        """Ids and mask of texts, as the tokenizer gives them, with the tokens."""
        filled = settings.get("padding") == "max_length"
        cut = settings.get("padding") in (True, "longest") and settings.get("truncation")
        if not filled and not (cut and settings.get("max_length")):
            return self._tokenizer(text, **settings)
        self.appended = True
        limit = settings["max_length"]
        if limit - self._count <= self._tokenizer.num_special_tokens_to_add() + self._template:
            raise ParetuneError(
                f"{self._count} token vectors leave no room for a prompt in {limit} tokens; use fewer"
            )
        texts = [text] if isinstance(text, str) else list(text)
        special = {k: v for k, v in settings.items() if k == "add_special_tokens"}
        plain = self._tokenizer(texts, truncation=True, max_length=limit - self._count, **special)
        rows = [self._with_tokens(row) for row in plain["input_ids"]]
        return self._batch(rows, limit if filled else max(len(row) for row in rows), settings)

    def _with_tokens(self, row: list[int]) -> list[int]:
        """The ids of a text with the tokens where the prompt ends.

        Of a text that was cut, only a beginning of the template's end is left, or nothing of it.
        """
        lengths = range(len(self._end), 0, -1)
        left = next((n for n in lengths if row[len(row) - n :] == self._end[:n]), 1)
        return [*row[:-left], *range(-1, -self._count - 1, -1), *row[-left:]]

    def _batch(self, rows: list[list[int]], length: int, settings: dict[str, Any]) -> BatchEncoding:
        """Rows filled up to a length, on the tokenizer's side, with their mask."""
        from transformers import BatchEncoding  # here, so that planning loads no model library

        side = settings.get("padding_side") or getattr(self._tokenizer, "padding_side", "right")
        pads = [[self._tokenizer.pad_token_id] * (length - len(row)) for row in rows]
        left = side == "left"
        ids = [[*pad, *row] if left else [*row, *pad] for row, pad in zip(rows, pads, strict=True)]
        mask = [[0] * len(pad) + [1] * len(row) for row, pad in zip(rows, pads, strict=True)]
        mask = mask if left else [row[::-1] for row in mask]
        return BatchEncoding({"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)})
