"""A wrong caption for a prompt: one fact of it changed, so that it no longer describes the picture.

Written words in quotes, colours, numbers, relations and directions are known; a prompt without any of them
gets the next prompt of its set that differs. An input picture stays that of the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...types import Pictured

GROUPS: tuple[tuple[str, ...], ...] = (
    ("red", "green", "blue", "yellow", "purple", "orange", "black", "white", "brown", "pink"),
    ("one", "two", "three", "four", "five"),
    ("left of", "right of", "above", "below"),
    ("left", "right", "up", "down"),
    ("slowly", "quickly"),
    ("circle", "square", "triangle", "star"),
    ("circles", "squares", "triangles", "stars"),
)
_QUOTED = re.compile(r'(["\'])([A-Za-z]{2,})\1')


def changed(prompt: str) -> str | None:
    """The prompt with one fact changed, or None where no known fact is in it; always the same change."""
    quoted = _QUOTED.search(prompt)
    if quoted is not None:
        word = quoted[2]
        turned = word[1:] + word[0]
        if turned != word:
            return prompt[: quoted.start(2)] + turned + prompt[quoted.end(2) :]
    for group in GROUPS:
        for place, word in enumerate(group):
            found = re.search(rf"\b{word}\b", prompt, re.IGNORECASE)
            if found is not None:
                other = group[(place + 1) % len(group)]
                return prompt[: found.start()] + other + prompt[found.end() :]
    return None


def with_user(user: str, prompt: str) -> str:
    """A prompt with a user's token before it. An input picture stays that of the prompt."""
    text = f"{user}: {prompt}"
    return Pictured(text, prompt.image) if isinstance(prompt, Pictured) else text


def changed_all(prompts: Sequence[str]) -> list[str]:
    """A wrong caption for each prompt; see the module. If all prompts are equal, nothing differs: ""."""
    captions: list[str] = []
    for place, prompt in enumerate(prompts):
        own = changed(prompt)
        if own is None:
            others = [*prompts[place + 1 :], *prompts[:place]]
            own = next((other for other in others if other != prompt), "")
        captions.append(Pictured(own, prompt.image) if isinstance(prompt, Pictured) else own)
    return captions
