"""Recipes as YAML text: read strictly, and written so that reading returns the same values.

PyYAML's reader accepts duplicate keys, turns plain words into dates and base-60 numbers, and ends in a
traceback for a number of 5,000 digits. This reader refuses what a recipe cannot mean and names the line.
Numbers such as 1e-4 are numbers here, as in YAML 1.2; PyYAML reads them as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

LONGEST = 256 * 1024  # characters: a recipe has a few thousand, and the reader takes seconds for a megabyte
MOST = 20_000  # values after aliases: ten aliases of ten aliases of ten .. would fill the memory
DEEPEST = 32  # nested mappings and lists
_DIGITS = 64  # digits of a number: no key takes a longer one

_TAG = "tag:yaml.org,2002:"
_NUMBERS = {
    f"{_TAG}int": r"[-+]?(?:0|[1-9][0-9_]*)$|[-+]?0x[0-9a-fA-F_]+$|[-+]?0b[01_]+$",
    f"{_TAG}float": r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?$"
    r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$",
}
_SWITCHES = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False}
_MEANT = {"bool": "true or false", "int": "a number", "float": "a number", "null": "nothing"}


class YamlMistake(ValueError):
    """A text is not a valid recipe; the message is one line."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers
                if tag != f"{_TAG}timestamp" and tag not in _NUMBERS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }  # fmt: skip


class _Dumper(yaml.SafeDumper):
    """Quotes every text that this reader or PyYAML's would read as another type."""


for _tag, _pattern in _NUMBERS.items():
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(_tag, re.compile(_pattern), list("-+.0123456789"))


def dump_yaml(value: Any) -> str:
    """Plain data as YAML, with the keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def load_yaml(text: str) -> Any:
    """The plain data of one YAML document. Raises YamlMistake."""
    if len(text) > LONGEST:
        raise YamlMistake(f"it has {len(text):,} characters; a recipe has at most {LONGEST:,}")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _Builder().build(node, 0)
    except RecursionError:
        raise YamlMistake(f"lists or mappings lie more than {DEEPEST} deep in each other") from None
    except YamlMistake:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise YamlMistake(" ".join(str(error).split())) from error


class _Builder:
    """Builds values from composed nodes and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def build(self, node: yaml.Node, depth: int) -> Any:
        """The value of a node, with the values of all nodes in it."""
        self.count += 1
        if self.count > MOST:
            raise YamlMistake(f"it holds more than {MOST:,} values, aliases counted each time")
        if depth > DEEPEST:
            raise YamlMistake(f"{_line(node)}: more than {DEEPEST} lists or mappings in each other")
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self.mapping(node, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.build(value, depth + 1) for value in node.value]
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        raise YamlMistake(f"{_line(node)}: {_name(node.tag)} is nothing that a recipe can hold")

    def mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        """The mapping's keys, which override those of the mappings that `<<` names; there the first wins."""
        merged: dict[str, Any] = {}
        direct: dict[str, Any] = {}
        lines: dict[str, str] = {}
        for key, value in node.value:
            name = _key(key)
            if name in lines:
                raise YamlMistake(f"{_line(key)}: the key {name[:80]} is there already, in {lines[name]}")
            lines[name] = _line(key)
            built = self.build(value, depth + 1)
            if key.tag != f"{_TAG}merge":
                direct[name] = built
                continue
            for source in built if isinstance(built, list) else [built]:
                if not isinstance(source, dict):
                    raise YamlMistake(f"{_line(key)}: << wants a mapping, or a list of them")
                merged = {**source, **merged}
        return {**merged, **direct}


def _key(node: yaml.Node) -> str:
    """A key, which must be a text."""
    if not isinstance(node, yaml.ScalarNode):
        raise YamlMistake(f"{_line(node)}: a key is a list or a mapping; keys are texts")
    text = node.value[:80]
    if node.tag not in {f"{_TAG}str", f"{_TAG}merge"}:
        kind = _name(node.tag)
        raise YamlMistake(
            f'{_line(node)}: YAML takes the key {text} for {_MEANT.get(kind, kind)}; write it as "{text}"'
        )
    return node.value


def _scalar(node: yaml.ScalarNode) -> Any:
    kind, text = _name(node.tag), node.value
    if kind == "str":
        return text
    if kind in {"int", "float"} and len(text) > _DIGITS:
        raise YamlMistake(f"{_line(node)}: a number of {len(text):,} digits")
    try:
        return _READ[kind](text)
    except (KeyError, ValueError):
        known = kind in _READ
        reason = f"{text[:80]!r} is no {kind}" if known else f"{kind} is nothing that a recipe can hold"
        raise YamlMistake(f"{_line(node)}: {reason}") from None


def _int(text: str) -> int:
    plain = text.replace("_", "").lower()
    bare = plain.lstrip("+-")
    return int(plain, 16 if bare.startswith("0x") else 2 if bare.startswith("0b") else 10)


def _float(text: str) -> float:
    plain = text.replace("_", "").lower()
    return float(plain.replace(".inf", "inf").replace(".nan", "nan"))


def _nothing(text: str) -> None:
    if text.lower() not in {"", "~", "null"}:
        raise ValueError(text)


_READ: dict[str, Callable[[str], Any]] = {
    "int": _int, "float": _float, "bool": lambda text: _SWITCHES[text.lower()], "null": _nothing,
}  # fmt: skip


def _name(tag: str) -> str:
    return tag.removeprefix(_TAG)


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"
