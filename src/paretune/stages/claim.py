"""The folder of a run: which process may write into it, and which recipe it was begun with."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..config import RunConfig
from ..data.preferences import preference_file
from ..data.prompts import prompt_file
from ..executors import find_executor
from ..files import check_local, disk_errors, real, write_json, write_text
from ..models.facts import check_options, read_shape
from ..planning.budget import check_even, set_sizes
from ..planning.plan import Plan
from ..recipes import changed_keys, load_config
from ..rewards.base import reward_file
from ..rewards.process import PATIENCE
from ..samples.media import medium_of
from ..training.checks import check_training
from ..training.trainers import check_experts
from ..types import ParetuneError
from .answer_checks import check_answers
from .prompt_checks import check_prompts
from .subjects import check_together

LOCK = ".lock"
LOOKS = 3  # how often a lock that is taken is tried again


def check(config: RunConfig) -> list[str]:
    """Check everything that can be checked before work begins: model, objective, prompts, rewards, judges.

    Returns what a user should know of the rewards, in lines. Raises ParetuneError for the first fault.
    """
    PATIENCE.set(config.executor.reward_timeout)
    find_executor(config.executor.kind)
    check_options(config.model)
    read_shape(config.model)
    check_training(config)
    told = check_prompts(config)
    check_experts(config)
    check_together(config)
    if medium_of(config.model).name == "texts":
        check_even(config, set_sizes(config))
    return told


def _check_all(config: RunConfig) -> list[str]:
    """`check`, and what only training asks: whether given answers fit the model, by its tokenizer."""
    told = check(config)
    check_answers(config)
    return told


def missing_files(config: RunConfig) -> list[str]:
    """The files of rewards and prompts that a recipe names, that a run needs, and that do not exist."""
    named: list[Path | None] = []
    for reward_config in config.rewards.values():
        named.append(reward_file(reward_config.reward))
        named += [prompt_file(reward_config.prompts), prompt_file(reward_config.eval_prompts)]
        named += [preference_file(reward_config.pairs)] if reward_config.pairs else []
        named += [reward_file(reward_config.judge)] if reward_config.judge else []
    named += [reward_file(spec) for spec in config.evaluate.untargeted]
    return list(dict.fromkeys(str(file) for file in named if file is not None and not file.is_file()))


def claim(config: RunConfig, plan: Plan, out: Path, resume: bool) -> list[str]:
    """Begin a run in `out`, or make sure that the run there was begun with the same recipe.

    Args:
        config: the recipe.
        plan: its plan, which is written as plan.json.
        out: the folder of the run.
        resume: whether `out` may hold a run, which is then continued.

    Returns:
        The lines of `check`.

    Raises:
        ParetuneError: if `out` cannot be used, if the recipe differs, or if `check` finds a fault.
    """
    check_local(out, "--out FOLDER, and the address as --mirror, which keeps a copy of the run there")
    recipe = out / "config.yaml"
    if recipe.exists():
        if not resume:
            raise ParetuneError(
                f"{out} holds a run already; continue it with --resume, or choose another --out"
            )
        changed = changed_keys(load_config(recipe), config)
        if changed:
            raise ParetuneError(
                f"{out} was begun with another recipe; these keys differ: {', '.join(changed)}"
            )
        told = _check_all(config)
        write_json(out / "plan.json", plan.to_json())
        return told
    if out.exists() and not out.is_dir():
        raise ParetuneError(f"{out} is a file; choose another --out")
    ours = f".{recipe.name}."  # left by a kill while the recipe was written
    if out.exists() and any(not p.name.startswith(ours) for p in out.iterdir()):
        raise ParetuneError(f"{out} is not empty and holds no run; choose another --out")
    told = _check_all(config)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_text(recipe, config.to_yaml())
    write_json(out / "plan.json", plan.to_json())
    return told


EVAL_MARK = ".paretune-eval"
_EVAL_TEXT = "`paretune eval` keeps its rows and pictures in this folder, and replaces them.\n"


def claim_eval(out: Path) -> None:
    """Begin a measurement in the new or empty folder `out`, or continue the measurement in it.

    Any other folder is refused, because a measurement could replace files of a run, or of the user, that have
    the names that it writes.
    """
    check_local(out)
    with disk_errors(out):
        if out.exists() and not out.is_dir():
            raise ParetuneError(f"{out} is a file; choose another --out")
        if (out / "config.yaml").exists():
            raise ParetuneError(f"{out} holds a run, whose tables eval would replace; choose another --out")
        held = [p.name for p in out.iterdir()] if out.exists() else []
        if held and EVAL_MARK not in held and not {"eval.json", "evaluation"} <= set(held):
            raise ParetuneError(f"{out} is not empty and holds no measurement of eval; choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / EVAL_MARK, _EVAL_TEXT)


class Held:
    """The folder that a process works in. Somebody may remove, empty or replace it in the meantime."""

    def __init__(self, out: Path, file: IO[str]) -> None:
        self.out, self._place, self._file = out, real(out), file

    def check(self) -> None:
        """Raise ParetuneError if the folder is no longer the one that was claimed."""
        try:
            now = (self._place / LOCK).stat()
            same = os.path.samestat(now, os.fstat(self._file.fileno()))
        except OSError:
            same = False
        if not same or not (self._place / "config.yaml").is_file():
            raise ParetuneError(
                f"{self.out} was removed or replaced while this run worked in it, so what lies there now is "
                "not whole: remove it and run again"
            )

    def watching(self, report: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
        """The same report with a check at each event, so that training into a removed folder ends at once."""

        def checked(event: dict[str, Any]) -> None:
            self.check()
            report(event)

        return checked


@contextmanager
def lock(out: Path) -> Iterator[Held]:
    """Hold the folder, so that no other process writes the same run. A killed process releases its lock.

    A link in the place of the lock file is refused, because opening it could damage the file that it leads
    to.
    """
    if (out / LOCK).is_symlink():
        raise ParetuneError(f"{out / LOCK} is a link, which no run makes; remove it")
    with disk_errors(out):
        file = os.fdopen(os.open(out / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+")
    with file:
        for left in range(LOOKS, -1, -1):  # `holder` takes the lock for a moment
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if not left:
                    told = f"another process is working in {out}; wait for it or stop it"
                    raise ParetuneError(told) from error
                time.sleep(0.02)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield Held(out, file)


def last_holder(out: Path) -> str:
    """The number of the process that has worked in a folder last, or does so; "" if none has."""
    try:
        return (out / LOCK).read_text().strip()
    except OSError:
        return ""


def holder(out: Path) -> str | None:
    """The number, on its machine, of the process that works in a folder; None if none does."""
    try:
        with (out / LOCK).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return last_holder(out) or "of an earlier version"
    except OSError:  # no process has begun a run there
        return None
    return None
