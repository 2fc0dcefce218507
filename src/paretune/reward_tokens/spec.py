"""The notation of reward tokens, "ocr:2 beauty:1@0.5". This module loads no model or training code."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..types import ParetuneError

LARGEST_SCALE, LARGEST_COUNT = 4.0, 16
_USE = re.compile(r"^(?P<name>[A-Za-z0-9_-][A-Za-z0-9._-]*)(?::(?P<count>\d+))?(?:@(?P<scale>.+))?$")


@dataclass(frozen=True)
class TokenUse:
    """A token after the prompt, added `count` times at `scale`: 0 is its absence, 1 its full effect."""

    name: str
    count: int = 1
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.count <= LARGEST_COUNT:
            raise ParetuneError(f"token {self.name}: the count is 1 to {LARGEST_COUNT}, not {self.count}")
        if not (math.isfinite(self.scale) and abs(self.scale) <= LARGEST_SCALE):
            raise ParetuneError(
                f"token {self.name}: the scale lies between -{LARGEST_SCALE:g} and {LARGEST_SCALE:g}, "
                f"not {self.scale}"
            )


def parse_tokens(text: str) -> tuple[TokenUse, ...]:
    """Read `name[:count][@scale] ..`, separated by blanks or commas. Names may repeat; the order is kept.

    Raises ParetuneError for a text that cannot be read.
    """
    return tuple(_parse(part) for part in re.split(r"[\s,]+", text.strip()) if part)


def _parse(part: str) -> TokenUse:
    match = _USE.match(part)
    if match is None:
        shown = part[:40].encode("unicode_escape").decode()
        raise ParetuneError(f"tokens: {shown!r} is not name, name:count or name:count@scale")
    try:
        # A count never has more digits, and Python refuses very long numbers.
        count = int((match["count"] or "1")[:6])
        scale = float(match["scale"] or 1)
    except ValueError as error:
        raise ParetuneError(f"tokens: {part[:40]!r}: the scale is not a number") from error
    return TokenUse(match["name"], count, scale)


def format_tokens(uses: Iterable[TokenUse]) -> str:
    """The inverse of `parse_tokens`."""
    parts = []
    for use in uses:
        count = f":{use.count}" if use.count != 1 else ""
        scale = f"@{use.scale!r}" if use.scale != 1 else ""
        parts.append(f"{use.name}{count}{scale}")
    return " ".join(parts)
