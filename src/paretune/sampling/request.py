"""What is asked of a sampler, read from a user's words and checked. Pure."""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from ..types import ParetuneError

METHODS = ("mapreduce", "mix", "rate", "base")
MOST_SAMPLES = 1024


@dataclass(frozen=True)
class Request:
    """One sample, or the first of several: what decides its bits on one machine.

    preference: a weight a reward, in the run's order, summing to 1; None for the method's own model.
    tokens: reward tokens beside the method, as "ocr:2 beauty@0.5".
    """

    prompt: str
    method: str = "mapreduce"
    preference: tuple[float, ...] | None = None
    seed: int = 0
    tokens: str = ""


def read_prompt(text: str, longest: int = 1000, lines: bool = False) -> str:
    """The prompt, without blanks around it. ParetuneError if it cannot be one.

    longest: characters; lines: whether it may have several lines (see `Medium`).
    """
    prompt = text.strip()
    if not prompt:
        raise ParetuneError("the prompt is empty: write one")
    if len(prompt) > longest:
        raise ParetuneError(f"the prompt has {len(prompt):,} characters; take at most {longest:,}")
    if lines:
        prompt = prompt.replace("\r\n", "\n")
    for character in prompt:
        if lines and character in "\n\t":
            continue
        # Controls (newlines too) and halves of a pair, which no encoder takes.
        if unicodedata.category(character) in {"Cc", "Cs"}:
            code = f"U+{ord(character):04X}"
            raise ParetuneError(f"the prompt holds the control character {code}: leave it out")
    return prompt


def read_preference(text: str, rewards: Sequence[str]) -> tuple[float, ...]:
    """ "ocr=0.7 beauty=0.3" -> a weight a reward, in the order of `rewards`, summing to 1; unnamed is 0."""
    weights: dict[str, float] = {}
    for part in text.replace(",", " ").split():
        name, equals, value = part.partition("=")
        if not equals:
            raise ParetuneError(f'the preference {part!r} is not REWARD=WEIGHT, as in "ocr=0.7 beauty=0.3"')
        if name not in rewards:
            near = difflib.get_close_matches(name, rewards, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(rewards)
            raise ParetuneError(f"unknown reward {name!r} in the preference{hint} (the run has {known})")
        if name in weights:
            raise ParetuneError(f"the preference names {name!r} twice")
        try:
            weights[name] = float(value)
        except ValueError as error:
            raise ParetuneError(f"the weight of {name!r} is no number: {value!r}") from error
    return normalised([weights.get(name, 0.0) for name in rewards], rewards)


def normalised(weights: Sequence[float], rewards: Sequence[str]) -> tuple[float, ...]:
    """Weights scaled to sum 1. ParetuneError for one that is negative or no number, and if all are zero."""
    if len(weights) != len(rewards):
        raise ParetuneError(f"{len(weights)} weights for the {len(rewards)} rewards {', '.join(rewards)}")
    for name, weight in zip(rewards, weights, strict=True):
        if not math.isfinite(weight) or weight < 0:
            raise ParetuneError(f"the weight of {name!r} is {weight:g}; it must be a number from 0 up")
    most = max(weights)
    if most <= 0:
        raise ParetuneError("the weights of the preference are all zero: raise one")
    shares = [weight / most for weight in weights]  # first, for a sum of huge weights is infinite
    return tuple(share / sum(shares) for share in shares)


def read_method(name: str) -> str:
    """The name of a method. ParetuneError if there is none of it."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ParetuneError(f"unknown method {name!r}{hint} (known: {', '.join(METHODS)})")
    return name


def read_seed(seed: float | int | None) -> int:
    """A seed: a whole number from 0 below 2**63."""
    # The bounds first: Python cannot make a float of a whole number of four hundred digits.
    if seed is None or not 0 <= seed < 2**63 or seed != int(seed):
        shown = "nothing" if seed is None else str(seed)
        if isinstance(seed, int) and abs(seed) >= 2**64:
            shown = f"a number of {seed.bit_length()} bits"
        raise ParetuneError(f"the seed must be a whole number from 0 up to 2**63 - 1, not {shown}")
    return int(seed)


def read_count(count: int) -> int:
    """How many samples a prompt."""
    if not 1 <= count <= MOST_SAMPLES:
        raise ParetuneError(f"-n must be from 1 to {MOST_SAMPLES} samples a prompt, not {count}")
    return count
