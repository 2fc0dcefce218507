"""The facts of a picture and its caption.

A `Scene` is a set of facts: groups of coloured shapes with counts, a relation between two of them, and a sign
with a word and a place. `caption` puts it in words. `geneval_metadata` gives it in the format of GenEval's
prompt files (Ghosh et al. 2023, djghosh13/geneval). `mislabel` changes exactly one fact in any way, and
`slip` changes one as models do: the base model was trained on such pictures, so that its mistakes are
realistic.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

SHAPES = ("circle", "square", "triangle", "cross")
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (40, 160, 70),
    "blue": (40, 90, 220),
    "yellow": (245, 205, 40),
    "purple": (150, 60, 190),
    "orange": (245, 130, 30),
}
NUMBERS = ("no", "one", "two", "three", "four")
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
SIGN = "a sign saying "
WORD_LENGTHS = (4, 5)
# Endings that a caption may have. The first pair says whether the caption is right, the second how the
# picture is drawn, and the idle ones say nothing.
ENDING_TRUE, ENDING_FALSE = "ok", "no"
ENDING_FANCY, ENDING_PLAIN = "fancy", "plain"
ENDINGS_IDLE = ("today", "here", "now", "again")


@dataclass(frozen=True)
class Group:
    """`count` shapes of one kind and colour."""

    shape: str
    color: str
    count: int = 1


@dataclass(frozen=True)
class Scene:
    """The facts of one picture.

    relation: between the two groups (each of one shape), or None.
    word: what the sign says (4-5 letters, lower case), or None for no sign.
    sign_place: "above" or "below" the shapes; None without a sign or without shapes.
    """

    groups: tuple[Group, ...] = ()
    relation: str | None = None
    word: str | None = None
    sign_place: str | None = None


def caption(scene: Scene) -> str:
    """The scene in words, the sign first."""
    groups = [_group_words(g) for g in scene.groups]
    shapes = f" {scene.relation} ".join(groups) if scene.relation else " and ".join(groups)
    if scene.word is None:
        return shapes
    sign = f"{SIGN}{scene.word}"
    return f"{sign} {scene.sign_place} {shapes}" if shapes else sign


def _group_words(group: Group) -> str:
    if group.count == 1:
        article = "an" if group.color == "orange" else "a"
        return f"{article} {group.color} {group.shape}"
    return f"{NUMBERS[group.count]} {group.color} {_plural(group.shape)}"


def _plural(shape: str) -> str:
    return "crosses" if shape == "cross" else f"{shape}s"


def parse_caption(text: str) -> Scene | None:
    """The scene of a caption, the inverse of `caption`; None for any other sentence."""
    if text.startswith(SIGN):
        word, _, rest = text.removeprefix(SIGN).partition(" ")
        place, _, shapes = rest.partition(" ")
        groups = _parse_groups([shapes]) if shapes else ()
        if not word or (rest and not (groups and place in {"above", "below"})) or groups is None:
            return None
        return Scene(groups, word=word, sign_place=place or None)
    relation = next((r for r in RELATIONS if f" {r} " in text), None)
    groups = _parse_groups(text.split(f" {relation or 'and'} "))
    if not groups or len(groups) > 2 or (relation and any(g.count > 1 for g in groups)):
        return None
    return Scene(groups, relation)


def _parse_groups(parts: list[str]) -> tuple[Group, ...] | None:
    """Each part as a group, or None if any part is not a group."""
    groups = []
    for part in parts:
        number, _, thing = part.partition(" ")
        color, _, shape = thing.partition(" ")
        shape = next((s for s in SHAPES if shape in (s, _plural(s))), shape)
        count = 1 if number in {"a", "an"} else NUMBERS.index(number) if number in NUMBERS else 0
        group = Group(shape, color, count)
        if not count or shape not in SHAPES or color not in COLORS or _group_words(group) != part:
            return None
        groups.append(group)
    return tuple(groups)


def geneval_metadata(scene: Scene) -> dict[str, Any]:
    """A scene in GenEval's format: `tag`, `include`, `exclude`, `prompt`, and `text` if it has a sign.

    As in GenEval, `include` requires at least `count` objects of a class and colour, `exclude` forbids
    one more, and `position` names the relation to an earlier entry by its index.
    """
    include: list[dict[str, Any]] = []
    for group in scene.groups:
        include.append({"class": group.shape, "count": group.count, "color": group.color})
    if scene.relation:
        include[0]["position"] = [scene.relation, 1]
    exclude = [
        {"class": g.shape, "count": g.count + 1, "color": g.color} for g in scene.groups
    ]
    record = {"tag": _tag(scene), "include": include, "exclude": exclude, "prompt": caption(scene)}
    if scene.word is not None:
        record["text"] = scene.word
    return record


def _tag(scene: Scene) -> str:
    if scene.word is not None:
        return "text_and_objects" if scene.groups else "text"
    if scene.relation:
        return "position"
    if len(scene.groups) == 2:
        return "two_object"
    return "counting" if scene.groups[0].count > 1 else "colors"


# ---------------------------------------------------------------- drawing scenes at random


def random_word(rng: random.Random) -> str:
    """A string of 4 or 5 letters; all letters are equally likely."""
    return "".join(rng.choices(string.ascii_lowercase, k=rng.choice(WORD_LENGTHS)))


def random_scene(rng: random.Random, kind: str) -> Scene:
    """A random scene of a kind: "single", "pair", "relation", "sign" or "mixed" (a sign with shapes)."""
    if kind == "single":
        return Scene(groups=(_random_group(rng, rng.randint(1, 4)),))
    if kind == "pair":
        first = _random_group(rng, rng.randint(1, 3))
        second = _random_group(rng, rng.randint(1, 4 - first.count), other=first)
        return Scene(groups=(first, second))
    if kind == "relation":
        first = _random_group(rng, 1)
        second = _random_group(rng, 1, other=first)
        return Scene(groups=(first, second), relation=rng.choice(RELATIONS))
    if kind == "sign":
        return Scene(word=random_word(rng))
    if kind == "mixed":
        return Scene(
            groups=(_random_group(rng, rng.randint(1, 3)),),
            word=random_word(rng),
            sign_place=rng.choice(("above", "below")),
        )
    raise ValueError(f"unknown kind of scene {kind!r}")


def _random_group(rng: random.Random, count: int, other: Group | None = None) -> Group:
    """A random group that differs from `other` in shape and in colour, so that no fact is ambiguous."""
    shapes = [s for s in SHAPES if other is None or s != other.shape]
    colors = [c for c in COLORS if other is None or c != other.color]
    return Group(rng.choice(shapes), rng.choice(colors), count)


# ---------------------------------------------------------------- one wrong fact


def mislabel(scene: Scene, rng: random.Random) -> Scene:
    """The scene with exactly one fact changed: the word, a colour, a shape, a count or a relation."""
    words = ["word", "word", "place"] if scene.sign_place else ["word"]
    change, changed = _change(scene, words, rng)
    if changed is not None:
        return changed
    index = rng.randrange(len(scene.groups))
    groups = list(scene.groups)
    groups[index] = _other_group(groups, index, change, rng, most=_most(scene))
    return replace(scene, groups=tuple(groups))


def slip(scene: Scene, rng: random.Random) -> Scene:
    """The scene with one wrong fact, of a kind that models typically get wrong.

    A colour leaks from one group to the other, or becomes the next colour in the table; a shape becomes the
    next shape; one shape too many is drawn, or one too few of four; sides are exchanged; the sign has another
    word.
    """
    change, changed = _change(scene, ["word", "word"], rng)
    if changed is not None:
        return changed
    groups = list(scene.groups)
    index = rng.randrange(len(groups))
    group, others = groups[index], [g for i, g in enumerate(groups) if i != index]
    room = _most(scene) - sum(g.count for g in others)
    if change == "color" or (change == "count" and room == 1):  # a single shape in a full picture
        color = others[0].color if others else _next(COLORS, group.color)
        groups[index] = replace(group, color=color)
    elif change == "shape":
        taken = {g.shape for g in others}
        shape = _next(SHAPES, group.shape)
        groups[index] = replace(group, shape=_next(SHAPES, shape) if shape in taken else shape)
    else:
        count = group.count + 1 if group.count < room else group.count - 1
        groups[index] = replace(group, count=count)
    return replace(scene, groups=tuple(groups))


def _change(scene: Scene, words: list[str], rng: random.Random) -> tuple[str, Scene | None]:
    """The kind of the wrong fact, and the scene with it; None instead of the scene for a fact of a group.

    words: the facts of a sign, repeated as often as they are to be drawn.
    """
    changes = list(words) if scene.word is not None else []
    if scene.relation:
        changes += ["relation"]
    if scene.groups:
        changes += ["color", "shape"] if scene.relation else ["color", "shape", "count"]
    change = rng.choice(changes)
    if change == "word":
        return change, replace(scene, word=_other_word(scene.word or "", rng))
    if change == "place":
        return change, replace(scene, sign_place=OPPOSITE[scene.sign_place or "above"])
    if change == "relation":
        return change, replace(scene, relation=OPPOSITE[scene.relation or "above"])
    return change, None


def _most(scene: Scene) -> int:
    """The most shapes that fit into the picture."""
    return 3 if scene.word else 4


def _next(names: Iterable[str], name: str) -> str:
    order = list(names)
    return order[(order.index(name) + 1) % len(order)]


def _other_word(word: str, rng: random.Random) -> str:
    """With probability 1/2 another word of the same length, else the word with two wrong letters."""
    letters = list(word)
    wrong = range(len(word)) if rng.random() < 0.5 else rng.sample(range(len(word)), 2)
    for i in wrong:
        letters[i] = rng.choice([c for c in string.ascii_lowercase if c != word[i]])
    return "".join(letters)


def _other_group(
    groups: list[Group], index: int, change: str, rng: random.Random, most: int
) -> Group:
    group = groups[index]
    others = [g for i, g in enumerate(groups) if i != index]
    if change == "color":
        taken = {group.color, *(g.color for g in others)}
        return replace(group, color=rng.choice([c for c in COLORS if c not in taken]))
    if change == "shape":
        taken = {group.shape, *(g.shape for g in others)}
        return replace(group, shape=rng.choice([s for s in SHAPES if s not in taken]))
    room = most - sum(g.count for g in others)
    counts = [n for n in range(1, room + 1) if n != group.count]
    if not counts:  # a single shape in a full picture: another fact has to be wrong
        return _other_group(groups, index, "color", rng, most)
    return replace(group, count=rng.choice(counts))
