"""The taste of imaginary annotators: how much they like each style.

Utilities are logits of a Bradley-Terry choice. The preference reward is not trained on this table but on
pairs that were chosen by it. The ending "fancy" or "plain" of a caption says whether the utility of a picture
is high or low.
"""

from __future__ import annotations

from .render import Style

BACKGROUND_TASTE = {"navy": 1.2, "cream": 0.4, "sky": -0.4, "grey": -1.2}
PLATE_TASTE = {"sand": 0.8, "black": 0.0, "white": -0.8}
LARGE_TASTE = 0.6
OUTLINE_TASTE = 0.4
FANCY_ABOVE, PLAIN_BELOW = 0.8, -0.8


def style_utility(style: Style, has_sign: bool, has_shapes: bool) -> float:
    """The utility of a style, counting only what the picture shows."""
    value = BACKGROUND_TASTE[style.background]
    if has_sign:
        value += PLATE_TASTE[style.plate]
    if has_shapes:
        value += LARGE_TASTE if style.large else -LARGE_TASTE
        value += OUTLINE_TASTE if style.outline else -OUTLINE_TASTE
    return value
