"""Earlier versions wrote the options of an objective directly into `objective`: such keys still work.

A resolved recipe of such a version has all of these keys, whatever its objective is. So a key that does not
belong to the recipe's objective is ignored if it has its old default, and refused if it has another value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...config import ObjectiveConfig
from ...planning.plan import METHOD_OBJECTIVES
from ...types import ParetuneError


@dataclass(frozen=True)
class FlatKey:
    """An old key. option: its name in `objective.options`. objectives: those that have this option."""

    option: str
    default: Any
    objectives: tuple[str, ...]


_FORWARD = ("nft", "awm", "sft")
FLAT_KEYS: dict[str, FlatKey] = {
    "nft_beta": FlatKey("beta", 0.5, ("nft",)),
    "old_decay": FlatKey("old_decay", 0.0, ("nft",)),
    "times": FlatKey("times", 2, _FORWARD),
    "time_shift": FlatKey("time_shift", 1.0, _FORWARD),
    "sft_share": FlatKey("share", 0.25, ("sft",)),
    "clip_range": FlatKey("clip_range", 1e-4, ("flow_grpo", "awm", "grpo")),
    "sampler": FlatKey("sampler", "sde", ("flow_grpo",)),
    "noise_level": FlatKey("noise_level", 0.7, ("flow_grpo",)),
    "window": FlatKey("window", None, ("flow_grpo",)),
    "ratio": FlatKey("ratio", "plain", ("flow_grpo",)),
}


def nest_flat_keys(section: Mapping[str, Any], methods: Any, flat_wins: bool = False) -> dict[str, Any]:
    """The section `objective` with its flat keys moved to `options` or `others`.

    Args:
        section: the section.
        methods: the recipe's methods; a key of an objective that one of them chooses is moved to `others`.
        flat_wins: whether a flat key replaces an option of the same meaning; otherwise having both is an
            error.

    Raises:
        ParetuneError: one line that names the new key.
    """
    flat = {key: section[key] for key in FLAT_KEYS if key in section}
    whole = {key: value for key, value in section.items() if key not in flat}
    name = whole.get("name", ObjectiveConfig.model_fields["name"].default)
    named = [m for m in methods if isinstance(m, str)] if isinstance(methods, list | tuple) else []
    chosen = [METHOD_OBJECTIVES[m] for m in named if m in METHOD_OBJECTIVES]
    for key, value in flat.items():
        old = FLAT_KEYS[key]
        other = next((o for o in chosen if o in old.objectives), None)
        if name in old.objectives:
            _set(whole, ("options",), key, value, flat_wins)
        elif value == old.default:
            continue
        elif other is not None:
            _set(whole, ("others", other), key, value, flat_wins)
        else:
            raise ParetuneError(
                f"objective.{key} is now objective.options.{old.option} of {', '.join(old.objectives)}; "
                f"{name} has nothing for it: leave it out"
            )
    return whole


def _set(whole: dict[str, Any], place: tuple[str, ...], key: str, value: Any, flat_wins: bool) -> None:
    """Put the value of a flat key into its new place in the section. Dictionaries on the way are copied."""
    option, node = FLAT_KEYS[key].option, whole
    for part in place:
        if not isinstance(node.get(part) or {}, dict):  # the validation of the whole recipe reports this
            return
        node[part] = dict(node.get(part) or {})
        node = node[part]
    if option in node and not flat_wins:
        raise ParetuneError(
            f"objective.{key} and objective.{'.'.join(place)}.{option} say the same; leave {key} out"
        )
    node[option] = value


def digest_form(settings: ObjectiveConfig) -> dict[str, Any]:
    """The settings as earlier versions wrote them, so that digests of what they trained still match."""
    whole = settings.model_dump(mode="json")
    options, others = whole.pop("options"), whole.pop("others")
    for key, old in FLAT_KEYS.items():
        taken = [options] if settings.name in old.objectives else \
            [given for name, given in others.items() if name in old.objectives]  # fmt: skip
        whole[key] = next((given.pop(old.option) for given in taken if old.option in given), old.default)
    rest = {name: given for name, given in others.items() if given}
    return {**whole, "options": options} | ({"others": rest} if rest else {})
