"""Which models of the hub a reward loads, and what it scores. Nothing is loaded to find out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretune.foreign.converted import CONVERTED

from .base import find_reward, is_own
from .pinned import PINNED
from .table import REWARDS

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Read for its tokenizer and its settings alone, a few MB of a repository that holds more.
SMALL = frozenset({"processor", "base"})


def models_of(spec: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Option -> the hub id, or the name of a converted checkpoint, that a reward of paretune's loads by it.

    An option that looks like a hub id and is no folder counts, or its default where it is not given. A
    reward of somebody's own is not looked at, since that would run its code.
    """
    if is_own(spec) or spec not in REWARDS:
        return {}
    told = {
        name: parameter.default
        for name, parameter in inspect.signature(find_reward(spec)).parameters.items()
        if isinstance(parameter.default, str)
    } | {name: value for name, value in options.items() if isinstance(value, str)}
    return {name: value for name, value in told.items() if value in CONVERTED or _is_hub_id(value)}


def revision_of(spec: str, option: str, options: Mapping[str, Any]) -> str | None:
    """The commit that a reward reads of the model of one of its options, None for the newest one.

    `revision` is the commit of the model that the reward names first in its signature.
    """
    said, first = options.get("revision"), next(iter(models_of(spec, {})), option)
    if isinstance(said, str) and option == first:
        return said
    return PINNED.get(models_of(spec, options).get(option, ""))


def medium_of_reward(spec: str) -> str | None:
    """What a reward of paretune's scores, as `samples.media.MEDIA` names it; None for any other reward."""
    place = REWARDS.get(spec, "")
    rooms = {"photo": "pictures", "clips": "clips", "text": "texts"}
    worlds = {"pictures": "pictures", "clips": "clips", "assistant": "texts"}
    return rooms.get(place.split(".")[-2]) if ".worlds." not in place and place \
        else worlds.get(spec.partition(".")[0]) if place else None  # fmt: skip


def _is_hub_id(value: str) -> bool:
    from paretune import worlds

    if not _HUB_ID.fullmatch(value) or Path(value).exists():
        return False
    return not (Path(str(worlds.__file__)).parent / value).is_dir()
