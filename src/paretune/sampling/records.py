"""Find a record for a prompt that a user typed, so that rewards can score it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..types import Prompt

# 'a poster that says "open"', and the embedded world's "a sign saying open".
_QUOTED = re.compile(r'["“]([^"“”]+)["”]')
_SAYING = re.compile(r"\bsign saying (\S+)")

Record = dict[str, Any]


def prompt_of(text: str, known: Mapping[str, Prompt], world: str, made: str = "pictures") -> Prompt:
    """The prompt with this text from a run's files, or else a prompt with the record that the text implies.

    Args:
        text: what the user typed.
        known: the prompts of the run's files, by their texts.
        world: the embedded world of the model, whose sentences can be parsed, or "".
        made: the kind of samples that the model makes (`Medium.name`).
    """
    return known.get(text) or Prompt(text, _record(text, world, made))


def _record(text: str, world: str, made: str) -> Record:
    record = WORLDS[world](text) if world in WORLDS else None
    if record is not None:
        return record
    if made == "texts":  # a question that quotes a word does not ask for a sign
        return {}
    said = _QUOTED.search(text) or _SAYING.search(text)
    return {"prompt": text, "text": said[1].strip()} if said and said[1].strip() else {}


def _picture(text: str) -> Record | None:
    from ..worlds.pictures.scenes import geneval_metadata, parse_caption

    scene = parse_caption(text)
    return None if scene is None else geneval_metadata(scene)


def _clip(text: str) -> Record | None:
    return _clips().get(text)


@functools.cache
def _clips() -> dict[str, Record]:
    from ..worlds.clips.scenes import all_clips, caption, record

    return {caption(clip): record(clip) for clip in all_clips()}


# How the sentences of the embedded worlds are parsed. Sentences of other worlds hold nothing more for
# rewards.
WORLDS: dict[str, Callable[[str], Record | None]] = {"pictures": _picture, "clips": _clip}
