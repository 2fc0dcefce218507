"""The number of tokens of a prompt that a text encoder reads in a family's pipeline."""

from __future__ import annotations

from typing import NamedTuple


class Limit(NamedTuple):
    """The limit of one text encoder.

    tokenizer, encoder: names of the pipeline's parts. tokens: that a prompt may have; 0: the tokenizer's
    limit. written: the pattern into which the pipeline writes a prompt; reward tokens follow its "{}".
    before: tokens of the pattern that precede the prompt, which the pipeline drops.
    """

    tokenizer: str
    encoder: str
    tokens: int = 0
    written: str = "{}"
    before: int = 0
