"""Check `objective.options` of a recipe against the objective that it names, and add the defaults."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ...config import ObjectiveConfig, RunConfig
from ...types import ParetuneError
from .base import Objective, Options
from .flat_keys import nest_flat_keys
from .table import find_objective


def read_options(settings: ObjectiveConfig, reward: str = "") -> Options:
    """The options of the objective that `settings` name. Raises ParetuneError for a wrong option.

    reward: whose expert is trained, where the options mean another score for each (`Options.of_reward`).
    """
    found = _read(find_objective(settings.name), settings.name, settings.options, "objective.options")
    return found.of_reward(reward) if reward else found


def settings_for(settings: ObjectiveConfig, name: str | None) -> ObjectiveConfig:
    """The settings of the objective that an expert is trained with.

    name: the objective of the expert's task, None for that of the recipe. Another objective than the recipe's
    takes the options that both have in common, and then those in `others.NAME`.
    """
    if name is None or name == settings.name:
        return settings
    options = {**shared_options(settings.name, settings.options, name), **settings.others.get(name, {})}
    return settings.model_copy(update={"name": name, "options": options})


def shared_options(name: str, options: Mapping[str, Any], other: str) -> dict[str, Any]:
    """The options of the objective `name` that the objective `other` has too, from a common base class."""
    given, wanted = find_objective(name).options_kind, find_objective(other).options_kind
    common = {key for kind in given.__mro__ if kind in wanted.__mro__ and issubclass(kind, Options)
              for key in kind.model_fields}  # fmt: skip
    return {key: value for key, value in options.items() if key in common}


def needs_whole_batches(settings: ObjectiveConfig) -> bool:
    """See `Objective.needs_whole_batches`."""
    return find_objective(settings.name).needs_whole_batches(read_options(settings))


def follows_course(config: RunConfig) -> bool:
    """Whether an objective of the recipe does so; see `Objective.follows_course`."""
    kinds = [settings_for(config.objective, own.objective) for own in config.rewards.values()]
    return any(find_objective(own.name).follows_course(read_options(own)) for own in kinds)


def draws_samples(settings: ObjectiveConfig) -> bool:
    """See `Objective.draws`."""
    return find_objective(settings.name).draws


def complete_objective(raw: Mapping[str, Any], flat_wins: bool = False) -> dict[str, Any]:
    """A raw recipe with all options of its objective spelled out, also those of earlier versions' flat keys.

    If the recipe's `objective` is not a section, it is left as it is for the validation of the whole recipe.

    Args:
        raw: the recipe as plain data.
        flat_wins: whether a flat key replaces an option of the same meaning; otherwise having both is an
            error.

    Raises:
        ParetuneError: for an unknown or wrong option.
    """
    section = raw.get("objective", {})
    if not isinstance(section, dict) or not isinstance(section.get("name", ""), str):
        return dict(raw)
    section = nest_flat_keys(section, raw.get("methods"), flat_wins)
    name = section.get("name", ObjectiveConfig.model_fields["name"].default)
    kind, options = find_objective(name), section.get("options", {})
    others = section.get("others", {})
    if not isinstance(options, dict) or not isinstance(others, dict):
        return {**raw, "objective": section}
    _refuse_misplaced(section, name, kind)
    section["options"] = _complete(kind, name, options, "objective.options")
    section["others"] = {
        other: _complete(find_objective(other), other, given, f"objective.others.{other}", set(given))
        if isinstance(given, dict) else given
        for other, given in others.items()
    }  # fmt: skip
    return {**raw, "objective": section}


def switch_objective(raw: Mapping[str, Any], before: Any) -> dict[str, Any]:
    """Remove the options that a changed objective does not have from a raw, completed recipe.

    before: the name of the objective before the change, None for the default.
    """
    default = ObjectiveConfig.model_fields["name"].default
    section, before = raw.get("objective"), before or default
    if not isinstance(section, dict) or not isinstance(section.get("options"), dict):
        return dict(raw)
    name = section.get("name", default)
    if name == before or not isinstance(name, str):
        return dict(raw)
    return {**raw, "objective": {**section, "options": shared_options(before, section["options"], name)}}


def check_with_recipe(config: RunConfig) -> None:
    """Raise ParetuneError if the objective's options do not fit the rest of the recipe."""
    find_objective(config.objective.name).check(config, read_options(config.objective))


def _complete(
    kind: type[Objective], name: str, options: dict[str, Any], where: str, only: set[str] | None = None
) -> dict[str, Any]:
    """The validated options as plain data. only: the keys to return, None for all."""
    return _read(kind, name, options, where).model_dump(mode="json", include=only)


def _read(kind: type[Objective], name: str, options: Mapping[str, Any], where: str) -> Options:
    try:
        return kind.options_kind.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "value_error" and not key:
            raise ParetuneError(f"{where}: {message}") from error
        if first["type"] != "extra_forbidden":
            raise ParetuneError(f"{where}.{key}: {message} (got {first['input']!r})") from error
        raise ParetuneError(f"unknown key {where}.{key}; {_nearest(key, kind, name)}") from error


def _refuse_misplaced(section: Mapping[str, Any], name: str, kind: type[Objective]) -> None:
    """Raise ParetuneError for an unknown key of `objective` that resembles an option."""
    fields = list(kind.options_kind.model_fields)
    for key in section.keys() - ObjectiveConfig.model_fields.keys():
        near = difflib.get_close_matches(str(key), [*ObjectiveConfig.model_fields, *fields], n=1)
        if near and near[0] in fields:
            raise ParetuneError(f"unknown key objective.{key}; did you mean options.{near[0]}?")


def _nearest(key: str, kind: type[Objective], name: str) -> str:
    fields = list(kind.options_kind.model_fields)
    if key in ObjectiveConfig.model_fields:
        return f"it is a key of every objective: give it as objective.{key}"
    if near := difflib.get_close_matches(key, fields, n=1):
        return f"did you mean {near[0]}?"
    return f"{name} takes {', '.join(fields)}" if fields else f"{name} takes none"
