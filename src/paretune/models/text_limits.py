"""How many tokens of a prompt a text encoder reads, as a family's pipeline has it."""

from __future__ import annotations

from typing import NamedTuple


class Limit(NamedTuple):
    """tokens: of a prompt; 0: as the tokenizer says. written: around it; before: tokens of that, dropped."""

    tokenizer: str
    encoder: str
    tokens: int = 0
    written: str = "{}"
    before: int = 0
