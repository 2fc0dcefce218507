"""A request to a sampler, read from what a user typed and checked. Pure."""

from __future__ import annotations

import difflib
import math
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from ..inputs.pictures import open_picture
from ..types import ParetuneError

METHODS = ("mapreduce", "mix", "rate", "conditioned", "base")
MOST_SAMPLES = 1024


@dataclass(frozen=True)
class Request:
    """A request for samples. On one machine it determines every bit of them.

    preference: one weight for each reward, in the run's order; they sum to 1. None: the model at the recipe's
    weights. tokens: reward tokens in addition to the method, as "ocr:2 beauty@0.5". image: the absolute path
    of the input picture, "" for none. beams, revisions: of a language model, see `decoding`; 0 for none.
    """

    prompt: str
    method: str = "mapreduce"
    preference: tuple[float, ...] | None = None
    seed: int = 0
    tokens: str = ""
    image: str = ""
    beams: int = 0
    revisions: int = 0


def read_prompt(text: str, longest: int = 1000, lines: bool = False) -> str:
    """The prompt without surrounding blanks. Raises ParetuneError for a text that cannot be a prompt.

    longest: the most characters. lines: whether the prompt may have several lines (see `Medium`).
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
        # Control characters, including newlines, and halves of surrogate pairs, which no encoder accepts.
        if unicodedata.category(character) in {"Cc", "Cs"}:
            code = f"U+{ord(character):04X}"
            raise ParetuneError(f"the prompt holds the control character {code}: leave it out")
    return prompt


def read_preference(text: str, rewards: Sequence[str]) -> tuple[float, ...]:
    """Read "ocr=0.7 beauty=0.3": one weight for each of `rewards`, in order. They sum to 1; unnamed is 0."""
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
    """Scale weights so that they sum to 1. ParetuneError for a negative or infinite one, or if all are 0."""
    if len(weights) != len(rewards):
        raise ParetuneError(f"{len(weights)} weights for the {len(rewards)} rewards {', '.join(rewards)}")
    for name, weight in zip(rewards, weights, strict=True):
        if not math.isfinite(weight) or weight < 0:
            raise ParetuneError(f"the weight of {name!r} is {weight:g}; it must be a number from 0 up")
    most = max(weights)
    if most <= 0:
        raise ParetuneError("the weights of the preference are all zero: raise one")
    shares = [weight / most for weight in weights]  # done first, because a sum of huge weights is infinite
    return tuple(share / sum(shares) for share in shares)


def read_method(name: str) -> str:
    """Check the name of a method, and return it. Raises ParetuneError for an unknown one."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ParetuneError(f"unknown method {name!r}{hint} (known: {', '.join(METHODS)})")
    return name


def read_seed(seed: float | int | None) -> int:
    """Check a seed, and return it as an integer: a whole number from 0 up to 2**63 - 1."""
    # The bounds are checked first: Python cannot convert an integer of four hundred digits to a float.
    if seed is None or not 0 <= seed < 2**63 or seed != int(seed):
        shown = "nothing" if seed is None else str(seed)
        if isinstance(seed, int) and abs(seed) >= 2**64:
            shown = f"a number of {seed.bit_length()} bits"
        raise ParetuneError(f"the seed must be a whole number from 0 up to 2**63 - 1, not {shown}")
    return int(seed)


def read_images(images: Sequence[str], prompts: int) -> list[str]:
    """The absolute path of each prompt's input picture, "" for none: one picture for all, or one for each.

    Raises ParetuneError for another number of pictures, and for one that cannot be read.
    """
    if len(images) > 1 and len(images) != prompts:
        told = f"{len(images)} pictures for {prompts} prompts"
        raise ParetuneError(f"{told}: give --image once, or once a prompt")
    for image in images:
        open_picture(image)
    places = [os.path.abspath(image) for image in images]
    return places * prompts if len(places) == 1 else places or [""] * prompts


def read_count(count: int) -> int:
    """Check the number of samples of a prompt, and return it."""
    if not 1 <= count <= MOST_SAMPLES:
        raise ParetuneError(f"-n must be from 1 to {MOST_SAMPLES} samples a prompt, not {count}")
    return count
