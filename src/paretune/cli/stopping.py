"""Commands that Ctrl-C stops: it is no failure, and the same command goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from ..types import ParetuneError
from .printing import console


@contextmanager
def stoppable(out: Path, again: str) -> Iterator[None]:
    """Ctrl-C is no failure: say where the work is and how it goes on."""
    from ..rewards.errors import RewardTimeout
    from ..types import Stopped

    try:
        yield
    except RewardTimeout as error:
        if not (out / "config.yaml").exists():  # nothing has begun
            raise
        raise ParetuneError(f"{error}; checkpoints are kept in {out}: go on with {again}") from error
    except (Stopped, KeyboardInterrupt):
        console.print(f"stopped; finished work is kept in {out}. Go on with {again}")
        raise typer.Exit(130) from None
