"""The record of a free prompt, as far as its words tell one: what lets rewards score it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..types import Prompt

# 'a poster that says "open"', and the embedded world's "a sign saying open".
_QUOTED = re.compile(r'["“]([^"“”]+)["”]')
_SAYING = re.compile(r"\bsign saying (\S+)")


def prompt_of(text: str, known: Mapping[str, Prompt], world: bool) -> Prompt:
    """The prompt of a run's files where it is one of them, else with the record that can be read from it.

    world: whether the model draws the embedded world, whose sentences are read whole.
    """
    return known.get(text) or Prompt(text, _record(text, world))


def _record(text: str, world: bool) -> dict[str, Any]:
    if world:
        from ..worlds.pictures.scenes import geneval_metadata, parse_caption

        scene = parse_caption(text)
        if scene is not None:
            return geneval_metadata(scene)
    said = _QUOTED.search(text) or _SAYING.search(text)
    return {"prompt": text, "text": said[1].strip()} if said and said[1].strip() else {}
