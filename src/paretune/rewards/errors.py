"""The errors of a reward that fails: one line that names it and a prompt."""

from __future__ import annotations

from typing import Any

from paretune.types import ParetuneError, Prompt


class RewardError(ParetuneError):
    """A reward failed on some samples: the message names the reward and a prompt it failed on."""


class RewardTimeout(RewardError):
    """A reward did not answer in time. More time may be all that it needs, so going on makes sense."""


LATE = "give it longer by executor.reward_timeout, or by --timeout of `paretune score`"


MOST = 400  # characters of a foreign message


def one_line(error: BaseException) -> str:
    """An exception in one line: its type and the first line of its message, cut where it is long."""
    try:
        text = str(error)
    except Exception:  # the message of a foreign exception is foreign code too
        text = ""
    first = next(iter(text.strip().splitlines()), "")
    first = first if len(first) <= MOST else f"{first[: MOST - 3]}..."
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def failure(reward: Any, what: str, prompt: Prompt) -> str:
    """One line: the reward's name, what happened, and the prompt, cut to 80 characters."""
    text = prompt.text if len(prompt.text) <= 80 else prompt.text[:77] + "..."
    return f"reward {reward.name!r} {what} (prompt {text!r})"
