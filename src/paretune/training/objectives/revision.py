"""The prompt by which a model is asked to revise an answer (SRPO, 2406.01660)."""

from __future__ import annotations

from ...types import Dialogue

REVISION = "{prompt}\n\nAn answer to this was:\n{answer}\n\nGive a better answer."


def revised(pattern: str, prompt: str, answer: str) -> str:
    """The prompt that asks for a better answer. In a dialogue the last turn of the user is replaced."""
    if isinstance(prompt, Dialogue):
        last = dict(prompt.turns[-1])
        return Dialogue([*prompt.turns[:-1], {**last, "content": revised(pattern, last["content"], answer)}])
    parts = pattern.split("{prompt}") if "{prompt}" in pattern else ["", pattern]
    return prompt.join(part.replace("{answer}", answer) for part in parts)
