"""`paretune init`: a shipped recipe as a commented file to edit.

What the recipe sets is written out; every other key stands behind a `#`, with its default. The comments are
the descriptions of the configuration's own fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ..config import ModelConfig, ObjectiveConfig, RunConfig
from ..files import write_text
from ..models.detect import family_of
from ..recipes import find_recipe, load_config
from ..training.objectives.table import find_objective
from ..types import ParetuneError
from ..yaml_text import dump_yaml


def new_recipe(name: str, overrides: Sequence[str] = (), out: Path | None = None) -> str:
    """The text of a recipe to edit, written to `out` where it is given. Raises ParetuneError."""
    if out is not None and (out.exists() or out.is_symlink()):
        raise ParetuneError(f"{out} exists; give a new file")
    found = find_recipe(name)
    text = commented(load_config(found, overrides), _head(found))
    if out is not None:
        write_text(out, text)
    return text


def _head(recipe: Path) -> list[str]:
    """The comment that a recipe begins with."""
    lines: list[str] = []
    for line in recipe.read_text(encoding="utf-8-sig").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line)
    return lines


def commented(config: RunConfig, head: Sequence[str] = ()) -> str:
    """The configuration as YAML with a comment a key. head: the lines that it begins with."""
    lines = [*head, "# A key behind a # has its default: take the # away to change it."]
    for key, field in RunConfig.model_fields.items():
        value, given = getattr(config, key), key in config.model_fields_set
        if key == "rewards":
            lines += ["", "rewards:"]
            for name, own in config.rewards.items():
                title = dump_yaml({name: None}).rstrip().removesuffix(" null")
                lines += [f"  {line}" for line in _nested(title, _section(own))]
        elif isinstance(value, BaseModel):
            lines += ["", *_nested(f"{key}:", _section(value), given)]
        elif (kind := _kind(field)) is not None:  # a section that the recipe leaves out
            lines += ["", *_absent(key, kind, field)]
        else:
            lines += _line(key, value, field.description, given)
    return "\n".join(lines) + "\n"


def _absent(key: str, kind: type[BaseModel], field: FieldInfo) -> list[str]:
    """The lines of a section that a recipe leaves out: its defaults, or one line where these say nothing."""
    try:
        unset = kind()
    except ValidationError:
        keys = f"{field.description} ({', '.join(kind.model_fields)})"
        return _line(key, None, keys, False)
    return _nested(_commented(f"{key}:", field.description), _section(unset), False)


def _section(section: BaseModel) -> Iterator[str]:
    """The lines of a section, its options behind its own keys."""
    for key, field in type(section).model_fields.items():
        value, given = getattr(section, key), key in section.model_fields_set
        options = _options(section, key)
        if isinstance(value, BaseModel):
            yield from _nested(f"{key}:", _section(value), given)
        elif options is None:
            yield from _line(key, value, field.description, given)
        else:
            yield from _nested(_commented(f"{key}:", field.description), options, given)


def _options(section: BaseModel, key: str) -> list[str] | None:
    """The lines of a key that holds a component's own options; None for any other key."""
    if key != "options" or not isinstance(section, ModelConfig | ObjectiveConfig):
        return None
    if isinstance(section, ModelConfig):
        fields: Mapping[str, FieldInfo] = family_of(section.path).options.model_fields
    else:
        fields = find_objective(section.name).options_kind.model_fields
    lines: list[str] = []
    for name, field in fields.items():
        default = field.get_default(call_default_factory=True)
        value = section.options.get(name, default)
        lines += _line(name, value, field.description, name in section.options)
    for name in section.options.keys() - fields.keys():  # a library's own, by its names
        lines += _line(name, section.options[name], None, True)
    return lines


def _nested(title: str, lines: Iterator[str] | Sequence[str], given: bool = True) -> list[str]:
    """A section, indented; behind a # as a whole where nothing of it is given."""
    inner = [f"  {line}" for line in lines]
    if given and any(not line.lstrip().startswith("#") for line in inner):
        return [title, *inner]
    return [f"# {title}", *(f"#   {line.lstrip().removeprefix('# ')}" for line in inner)]


def _line(key: str, value: Any, told: str | None, given: bool) -> list[str]:
    """A key and its value, with the comment behind it; a value of several lines has it above."""
    plain = _plain(value)
    lines = dump_yaml({key: plain}).rstrip().split("\n")
    lines = [_commented(lines[0], told), *lines[1:]] if len(lines) == 1 else [*_above(told), *lines]
    return lines if given else [line if line.startswith("#") else f"# {line}" for line in lines]


def _plain(value: Any) -> Any:
    """As a YAML file holds it."""
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


def _above(told: str | None) -> list[str]:
    return [f"# {told}"] if told else []


def _commented(line: str, text: str | None) -> str:
    return f"{line}  # {' '.join(text.split())}" if text else line


def _kind(field: FieldInfo) -> type[BaseModel] | None:
    """The class of a section that may be left out."""
    for kind in get_args(field.annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
