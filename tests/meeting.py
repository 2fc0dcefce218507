"""A job of several processes that trains nothing, apart from the tests so that a new process loads little."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from paretune.training.together.crew import Crew
from paretune.types import ParetuneError, Stopped, Unfit


def meet(job: str, report: Any, should_stop: Callable[[], bool], crew: Crew, device: str) -> Any:
    """A job that ends as its name says."""
    report({"rank": crew.rank})
    if job == "killed" and crew.rank == 1:
        os.kill(os.getpid(), 9)
    if job == "mistake" and crew.rank == 1:
        raise ParetuneError("the file is not there")
    if job == "unfit" and crew.rank == 1:
        raise Unfit("out of memory")
    while job == "stop" and not crew.agreed(should_stop()):
        time.sleep(0.05)
    if job == "stop":
        raise Stopped
    return crew.sums({"ranks": 1.0})
