"""Whether a reward can score a prompt, asked before it has to.

`applies(prompt)` and `check(prompts)` are both optional. A reward without `applies` applies to the prompts
that its `check` lets pass; one without either applies to all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from paretune.types import ParetuneError, Prompt, Reward

from .errors import RewardError, failure, one_line
from .printing import prints_to_stderr
from .scores import own_prompts

Check = Callable[[Sequence[Prompt]], Any]


class Checked:
    """For a reward with a `check`: it applies to the prompts that pass it."""

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Raise ParetuneError for a prompt that cannot be scored. Needs no loaded reward where static."""

    def applies(self, prompt: Prompt) -> bool:
        """Whether the prompt has what this reward needs."""
        return complaint(self.check, prompt) is None


def complaint(check: Check, prompt: Prompt) -> str | None:
    """Why one prompt does not pass, or None."""
    try:
        with prints_to_stderr():
            check(own_prompts([prompt]))
    except ParetuneError as error:
        return str(error)
    except Exception as error:  # a user's check may raise what it likes
        return one_line(error)
    return None


def applies_to(reward: Reward, prompt: Prompt) -> bool:
    """Whether a reward can score a prompt. Raises RewardError where its `applies` raises."""
    applies = getattr(reward, "applies", None)
    if applies is None:
        check = getattr(reward, "check", None)
        return check is None or complaint(check, prompt) is None
    try:
        with prints_to_stderr():
            return bool(applies(own_prompts([prompt])[0]))
    except RewardError:  # it says by itself which reward and prompt
        raise
    except Exception as error:
        raise RewardError(failure(reward, f"raised {one_line(error)} in applies", prompt)) from error


def refusal(reward: Reward, prompt: Prompt) -> str | None:
    """Why a reward cannot score a prompt, or None where it can."""
    check = getattr(reward, "check", None)
    why = None if check is None else complaint(check, prompt)
    if why is None and not applies_to(reward, prompt):
        return "its record lacks what the reward needs"
    return why


def first_refused(check: Check, prompts: Sequence[Prompt]) -> tuple[int | None, str] | None:
    """The number of the first prompt that does not pass, from 0, and why; None where all do.

    The number is None where the prompts pass one by one and do not together.
    """
    try:
        with prints_to_stderr():
            check(own_prompts(prompts))
    except Exception as error:
        for i, prompt in enumerate(prompts):
            if (why := complaint(check, prompt)) is not None:
                return i, why
        return None, str(error) if isinstance(error, ParetuneError) else one_line(error)
    return None
