"""A reward by rule: the share of a prompt's verifiable instructions that its answer follows.

After IFEval (Zhou et al., 2023, arXiv 2311.07911), whose instructions a program can check. A prompt's record
lists them: {"prompt": "...", "checks": [{"kind": "max_words", "count": 30}, {"kind": "lowercase"}]}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from paretune.types import ParetuneError, Prompt

from ..checks import Checked
from .everyday import words_of

# No pattern begins at each mark or blank line of a long row of them: the time would grow with its square.
_SENTENCE = re.compile(r"(?<![.!?])[.!?]++(?=\s|$)")
_BULLET = re.compile(r"^[^\S\n]*[*-]\s+\S", re.MULTILINE)
_NUMBERED = re.compile(r"^[^\S\n]*(\d+)[.)]\s+\S", re.MULTILINE)


def _sentences(text: str) -> int:
    return len([part for part in _SENTENCE.split(text) if part.strip()])


def _numbered(text: str, count: int) -> bool:
    return [int(number) for number in _NUMBERED.findall(text)] == list(range(1, count + 1))


def _has(text: str, phrase: str) -> bool:
    """Whether the words of a phrase stand in a text, in a row and as whole words."""
    wanted, words = words_of(phrase), words_of(text)
    return any(words[i : i + len(wanted)] == wanted for i in range(len(words) - len(wanted) + 1))


# kind -> (its keys with their types, the check). Every check gets the answer without the space around it.
CHECKS: dict[str, tuple[dict[str, type], Callable[..., bool]]] = {
    "max_words": ({"count": int}, lambda text, count: 0 < len(words_of(text)) <= count),
    "min_words": ({"count": int}, lambda text, count: len(words_of(text)) >= count),
    "sentences": ({"count": int}, lambda text, count: _sentences(text) == count),
    "bullets": ({"count": int}, lambda text, count: len(_BULLET.findall(text)) == count),
    "numbered": ({"count": int}, _numbered),
    "paragraphs": (
        {"count": int}, lambda text, count: len([p for p in re.split(r"\n\s*\n", text) if p.strip()]) == count
    ),
    "include": ({"phrase": str}, _has),
    "forbid": ({"phrase": str}, lambda text, phrase: bool(words_of(text)) and not _has(text, phrase)),
    "start": ({"phrase": str}, lambda text, phrase: text.lower().startswith(phrase.lower())),
    "end": ({"phrase": str}, lambda text, phrase: text.lower().endswith(phrase.lower())),
    "lowercase": ({}, lambda text: bool(words_of(text)) and text == text.lower()),
    "uppercase": ({}, lambda text: bool(words_of(text)) and text == text.upper()),
    "no_commas": ({}, lambda text: bool(words_of(text)) and "," not in text),
    "question": ({}, lambda text: text.endswith("?")),
}  # fmt: skip


class Instructions(Checked):
    """The share of the instructions in a prompt's `checks` that its answer follows. 0..1."""

    name, range, higher_is_better = "instructions", (0.0, 1.0), True

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Raise ParetuneError for a prompt whose instructions are missing or cannot be checked."""
        for prompt in prompts:
            checks = prompt.metadata.get("checks")
            if not isinstance(checks, list) or not checks:
                raise ParetuneError(f"the prompt {prompt.text[:60]!r} has no list `checks` of instructions")
            for entry in checks:
                _read(entry, prompt.text)

    def score(self, samples: Sequence[str], prompts: Sequence[Prompt]) -> torch.Tensor:
        """[B]."""
        values = []
        for answer, prompt in zip(samples, prompts, strict=True):
            read = [_read(entry, prompt.text) for entry in prompt.metadata["checks"]]
            values.append(sum(follows(answer.strip(), **own) for follows, own in read) / len(read))
        return torch.tensor(values)


def _read(entry: Any, prompt: str) -> tuple[Callable[..., bool], dict[str, Any]]:
    """The check of one instruction and its values."""
    where = f"the prompt {prompt[:60]!r}"
    kind = entry.get("kind") if isinstance(entry, Mapping) else None
    if kind not in CHECKS:
        raise ParetuneError(f"{where}: unknown kind of check {kind!r} (known: {', '.join(CHECKS)})")
    keys, follows = CHECKS[kind]
    own = {key: value for key, value in entry.items() if key != "kind"}
    wrong = own.keys() ^ keys.keys() or {k for k, t in keys.items() if type(own[k]) is not t}
    if wrong:
        takes = ", ".join(f"{key} ({kind_.__name__})" for key, kind_ in keys.items()) or "no key"
        raise ParetuneError(f"{where}: the check {kind} takes {takes}")
    return follows, own
