"""Prompt sets that somewhere else has: which specs name one, and whether reading it may download it."""

from __future__ import annotations

from .hub import PREFIX as HUB
from .set_files import kept_file
from .sets import PREFIX as SET


def is_remote(spec: str) -> bool:
    """Whether prompts come from the hub, or are a public set that is not on this machine yet.

    Raises ParetuneError for an unknown set.
    """
    return spec.startswith(HUB) or (spec.startswith(SET) and not kept_file(spec).is_file())


def is_named(spec: str) -> bool:
    """Whether prompts are named by "hf:" or "set:" and not by a file."""
    return spec.startswith((HUB, SET))
