"""Recipes: find one by its name, read it with `--set a.b=c`, and compare two of them.

Every mistake is reported in one line: the key, what is wrong with it, and the nearest known name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import BaseModel, ValidationError

from .config import RewardConfig, RunConfig
from .files import real
from .limits import MOST_REWARDS, brief, key_name
from .rewards.former import check_names, is_of_older_run, is_of_run, with_names_of_today
from .rewards.table import ELSEWHERE
from .training.objectives.settings import (
    check_with_recipe,
    complete_objective,
    needs_whole_batches,
    switch_objective,
)  # fmt: skip
from .types import ParetuneError
from .yaml_text import YamlMistake, load_yaml


def shipped_recipes() -> dict[str, Path]:
    """Name -> file. In a wheel recipes are inside the package, in a clone beside `src`."""
    here = Path(__file__).parent
    folders = (here / "recipes", here.parent.parent / "recipes")
    return {p.stem: p for folder in folders for p in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """The file that `name` stands for. Raises ParetuneError, which names the recipes that exist.

    A bare name stands for the recipe that ships under it, even if the current folder has a file of that name.
    """
    path, shipped = Path(name), shipped_recipes()
    if name in shipped:
        return shipped[name]
    try:
        if path.is_file():
            return path
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise ParetuneError(f"no recipe can be at {brief(name)}: {error.strerror}") from error
    if path.stem in shipped and path.parent.name in {"", "recipes"}:
        return shipped[path.stem]
    raise ParetuneError(f"no recipe {key_name(name)}; give a YAML file or one of: {', '.join(shipped)}")


# What a run leaves beside its config.yaml. The folder of a recipe that somebody wrote has none of these.
_RUN_LEAVES = ("plan.json", "environment.json", "evaluation.jsonl", "summary.json", "report.html", "final")


def in_run(recipe: Path) -> bool:
    """Whether a recipe is config.yaml of a run, or another file in its folder. A run may come from anybody.

    For a link both places count: where it is and where it leads to.
    """
    if recipe.name == "config.yaml" or real(recipe).name == "config.yaml":
        return True
    above = {*recipe.absolute().parents, *real(recipe).parents}
    return any(
        (folder / "config.yaml").is_file() and any((folder / name).exists() for name in _RUN_LEAVES)
        for folder in above
    )


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a recipe, apply overrides such as "train.epochs=4", and validate it. Raises ParetuneError."""
    path = Path(path)
    try:
        raw = load_yaml(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ParetuneError(f"no recipe at {path}") from error
    except (YamlMistake, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ParetuneError(f"{path} cannot be read as a YAML recipe: {reason}") from error
    if not isinstance(raw, dict):
        raise ParetuneError(f"{path} is not a recipe: it must be a mapping of keys")
    recipe = cast("dict[str, Any]", raw)
    if is_of_older_run(path, recipe):
        recipe = with_names_of_today(recipe)
    if is_of_run(path) and "baselines" not in recipe:  # of a run that is older than that section
        recipe = {**recipe, "baselines": {"joint": "long"}}
    if overrides:
        recipe = _overridden(recipe, overrides, str(path))
    return parse_config(recipe, str(path))


def parse_config(raw: dict[str, Any], source: str) -> RunConfig:
    """Validate a recipe given as a mapping.

    Raises ParetuneError for the first mistake: one line that names `source` and the key.
    """
    try:
        with _naming(source):
            config = RunConfig.model_validate(complete_objective(raw))
            check_with_recipe(config)
            check_names(config)
            return config
    except ValidationError as error:
        raise ParetuneError(f"{source}: {_first_mistake(error)}") from error


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """Put the name of the recipe before the message of a ParetuneError."""
    try:
        yield
    except ParetuneError as error:
        raise ParetuneError(f"{source}: {error}") from error


def _overridden(raw: dict[str, Any], overrides: Sequence[str], source: str) -> dict[str, Any]:
    """The recipe with every --set applied.

    The recipe's `objective.options` belong to its objective. If --set names another objective, only the
    options that both objectives have are kept.
    """
    with _naming(source):
        raw = complete_objective(raw)
    section, first = raw.get("objective"), [i for i in overrides if i.startswith("objective.name=")]
    name = section.get("name") if isinstance(section, dict) else None
    for item in first:
        _override(raw, item)
    with _naming(source):
        raw = switch_objective(raw, name)
    for item in overrides:
        if item not in first:
            _override(raw, item)
    with _naming(source):
        return complete_objective(raw, flat_wins=True)


def _override(raw: dict[str, Any], item: str) -> None:
    key, equals, value = item.partition("=")
    *parents, leaf = names = [name.strip() for name in key.split(".")]
    if not equals or not all(names):
        raise ParetuneError(f"--set wants key=value, not {brief(item)}")
    where = f"--set {key_name(item)}"
    parents = _with_dots(raw, parents)
    node = raw
    for parent in parents:
        if node.get(parent) is None:  # a section may be missing, or null in a resolved recipe
            node[parent] = {}
        child: Any = node[parent]
        if not isinstance(child, dict):
            raise ParetuneError(f"{where}: {key_name(parent)} is a value, not a section")
        node = cast("dict[str, Any]", child)
    try:
        node[leaf] = load_yaml(value)
    except YamlMistake as error:
        raise ParetuneError(f"{where}: the value is not YAML: {error}") from error


def _with_dots(raw: dict[str, Any], parents: list[str]) -> list[str]:
    """The sections of a key, whose reward may have dots in its name: the longest name that the recipe has."""
    rewards = raw.get("rewards")
    if parents[:1] != ["rewards"] or not isinstance(rewards, dict):
        return parents
    for end in range(len(parents), 2, -1):
        if (name := ".".join(parents[1:end])) in rewards:
            return ["rewards", name, *parents[end:]]
    return parents


def _first_mistake(error: ValidationError) -> str:
    """The message for the first error of a validation, in one line."""
    first = error.errors()[0]
    where = ".".join(key_name(str(part)) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        *parents, leaf = (str(part) for part in first["loc"])
        near = difflib.get_close_matches(leaf[:100], _keys_at(parents), n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(_keys_at(parents))}"
        return f"unknown key {where}{hint}"
    if first["type"] == "missing":
        return f"the key {where} is missing"
    if first["type"] == "too_short" and where == "rewards":
        return "rewards is empty: name at least one reward"
    if first["type"] == "too_long" and where == "rewards":
        return f"rewards has {len(first['input'])}: {MOST_REWARDS} are the most"
    if first["type"] == "model_type" and first["input"] is None:
        return f"{where} has no keys: give some, or leave it out"
    if first["type"] == "model_type":
        return f"{where or 'it'} is a section of keys, not a value (got {brief(first['input'])})"
    if first["type"] == "string_type" and isinstance(first["input"], bool | int | float):
        kind = "true or false" if isinstance(first["input"], bool) else "a number"
        return f"{where} is a text, which YAML takes for {kind} ({brief(first['input'])}): write it in quotes"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (got {brief(first['input'])})" if where and first["type"] != "value_error" \
        else f"{where + ': ' if where else ''}{message}"


def _keys_at(parents: Sequence[str]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for parent in parents:
        if model is RunConfig and parent == "rewards":
            model = RewardConfig
            continue
        field = model.model_fields.get(parent)
        section = _section(field.annotation) if field is not None else None
        model = section or model
    return list(model.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The class of the section that a key holds, also if the section is optional; None for a plain value."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def count_keys() -> int:
    """How many keys a recipe can have; a test keeps it under 80. Each `options` counts as one key."""
    nested = [_section(f.annotation) for n, f in RunConfig.model_fields.items() if n != "rewards"]
    sections = [s for s in nested if s is not None]
    flat = len(RunConfig.model_fields) - len(sections)
    return flat + sum(len(s.model_fields) for s in [*sections, RewardConfig])


def changed_keys(old: RunConfig, new: RunConfig) -> list[str]:
    """The dotted names of the keys whose values differ, without those that change nothing but rounding."""
    harmless = {
        "executor.kind", "executor.workers", "executor.reward_timeout", "executor.overlap",
        "executor.devices_per_expert", "executor.shard", "executor.address", "executor.cpus_per_expert",
        "executor.retries", "train.checkpoint_every", "name", "trackers", "samples_every",
    }  # fmt: skip
    free = [c.rounding_keys(needs_whole_batches(c.objective)) for c in (old, new)]
    harmless |= free[0] & free[1]
    for name, reward in new.rewards.items():
        harmless |= {f"rewards.{name}.options.{key}" for key in ELSEWHERE.get(reward.reward, ())}
    if not {"morl_d", "morl_dr", "conditioned"} & {*old.methods, *new.methods}:
        harmless.add("baselines.joint")
    a, b = _flatten(old.model_dump(mode="json")), _flatten(new.model_dump(mode="json"))
    return sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k) and k not in harmless)


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in cast("dict[str, Any]", node).items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
