"""How reward tokens are asked for: "ocr:2 beauty:1@0.5". No model and no training code is loaded here."""

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
    """A token after the prompt: `count` times, taken `scale` of the way from its absence to its effect."""

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
    """Read "name[:count][@scale] ..", parted by blanks or commas; the order is kept, names may repeat.

    Raises ParetuneError, in one line, for what cannot be read.
    """
    return tuple(_parse(part) for part in re.split(r"[\s,]+", text.strip()) if part)


def _parse(part: str) -> TokenUse:
    match = _USE.match(part)
    if match is None:
        shown = part[:40].encode("unicode_escape").decode()
        raise ParetuneError(f"tokens: {shown!r} is not name, name:count or name:count@scale")
    try:
        # More digits than a count can have are not worth reading, and Python refuses very many.
        count = int((match["count"] or "1")[:6])
        scale = float(match["scale"] or 1)
    except ValueError as error:
        raise ParetuneError(f"tokens: {part[:40]!r}: the scale is not a number") from error
    return TokenUse(match["name"], count, scale)


def format_tokens(uses: Iterable[TokenUse]) -> str:
    """The text that `parse_tokens` reads as these."""
    parts = []
    for use in uses:
        count = f":{use.count}" if use.count != 1 else ""
        scale = f"@{use.scale!r}" if use.scale != 1 else ""
        parts.append(f"{use.name}{count}{scale}")
    return " ".join(parts)
