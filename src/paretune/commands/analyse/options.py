"""The settings of an analysis, and their checks before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path

from ...types import ParetuneError
from .safety import PHRASES

WHAT = ("pairs", "run", "safety", "losses")
GREATEST = 1000.0  # --beta

# An option -> the analyses that read it.
_READ_BY: dict[str, tuple[str, ...]] = {
    "--model": ("pairs",), "--reference": ("pairs",), "--adapter": ("pairs", "safety"),
    "--prompts": ("safety",), "--judge": ("safety",), "--threshold": ("safety",), "-n": ("safety",),
    "--beta": ("pairs", "run"), "--limit": ("pairs", "run", "safety"), "--trust-rewards": ("safety",),
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """The settings of an analysis; see the command's options."""

    model: str | None = None
    reference: str | None = None
    adapter: str | None = None
    prompts: Path | None = None
    judge: str = PHRASES
    threshold: float = 0.5
    beta: float = 0.1
    limit: int = 0
    count: int = 1
    trust_rewards: bool = False

    def given(self) -> dict[str, object]:
        """The command's options that differ from their defaults, with their values."""
        plain = Asked()
        names = [f.name for f in fields(self) if getattr(self, f.name) != getattr(plain, f.name)]
        return {_option(name): getattr(self, name) for name in names}


def _option(name: str) -> str:
    return "-n" if name == "count" else f"--{name.replace('_', '-')}"


def check_words(what: str, target: str | None, asked: Asked) -> None:
    """Raise ParetuneError for words that do not fit, and for an option that would change nothing."""
    if what not in WHAT:
        raise ParetuneError(f"analyse {what}: there are {', '.join(WHAT)}")
    if asked.limit < 0 or not 0 < asked.beta <= GREATEST or not math.isfinite(asked.threshold):
        raise ParetuneError(
            f"--limit is 0 or more, --beta a number above 0 and at most {GREATEST:g}, and "
            "--threshold a finite number"
        )
    for option in asked.given():
        if what not in _READ_BY[option]:
            refuse(option, f"analyse {what}")
    if what == "losses":
        if target is not None:
            raise ParetuneError(f"analyse losses reads no file and no run: leave out {target}")
        return
    if target is None:
        raise ParetuneError(f"analyse {what}: name a {'file of preferences' if what == 'pairs' else 'run'}")
    if what == "pairs" and asked.model is None:
        raise ParetuneError("analyse pairs: give --model, a run or a model")
    if what == "safety" and asked.prompts is None:
        raise ParetuneError("analyse safety: give --prompts FILE")
    if asked.judge == PHRASES and "--threshold" in asked.given():
        refuse("--threshold", f"--judge {PHRASES}")


def refuse(option: str, where: str) -> None:
    """Raise ParetuneError for an option that changes nothing there."""
    raise ParetuneError(f"{option} changes nothing with {where}: leave it out")
