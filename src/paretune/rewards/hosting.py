"""What runs in the process of a user's rewards: it loads them and answers questions about them, one by one.

Rewards share this process but not what they set: each finds the working directory, the environment and
torch's defaults as it left them, whatever another reward did.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import inspect
import json
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import torch

from paretune.types import ParetuneError, Prompt, Reward, Samples

from .base import build_reward, find_reward, one_line, reward_file, score_heads, score_samples
from .heads import declared_heads
from .importing import Modules, neighbours
from .process import Spec

# Methods that a reward may have beside `score`; a proxy has those that its reward has.
OPTIONAL = ("applies", "check")
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG of Linux' prctl


def main(handle: int, parent: int) -> None:
    """Answer on the socket `handle` until the other end is closed. parent: whose end is ours, 0 for none."""
    if parent and sys.platform == "linux":  # a reward that holds Python's lock never sees the end of file
        ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)
        if os.getppid() != parent:
            _leave()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    line, host = Connection(handle), Host()
    gc.freeze()  # else every reward that is dropped has torch's own objects looked through
    line.send_bytes(b"ready")
    while True:
        try:
            question = pickle.loads(line.recv_bytes())
        except (EOFError, OSError):
            _leave()
        answer = json.dumps(host.answer(*question)).encode()
        try:
            line.send_bytes(answer)
        except OSError:  # who asked has died in between
            _leave()


def _leave() -> NoReturn:
    """End at once, with everything that the rewards have started."""
    os.killpg(0, signal.SIGKILL)
    raise AssertionError


class Host:
    """The rewards of this process, by their numbers."""

    def __init__(self) -> None:
        self._rewards: dict[int, Reward] = {}
        self._states: dict[int, list[Any]] = {}
        self._modules: dict[int, Modules] = {}
        self._threads = 0
        self._process = os.getpid()

    def answer(
        self, method: str, spec: Spec, arguments: Sequence[Any], threads: int, dropped: Sequence[int]
    ) -> dict[str, Any]:
        """The answer as JSON takes it; a failure of any kind is a line of text."""
        self._drop(dropped)
        if threads != self._threads:
            self._threads = threads
            torch.set_num_threads(threads)
        try:
            with self._state_of(spec):
                return {"value": getattr(self, method)(spec, *arguments)}
        except ParetuneError as error:
            user = isinstance(error.__cause__, ParetuneError)
            return {"error": str(error), "user": user, "raised": str(error)}
        except BaseException as error:
            verb = "could not be loaded" if method in {"load", "find"} else "failed"
            label = spec.spec if spec.number not in self._rewards else self._rewards[spec.number].name
            line = one_line(error)
            return {"error": f"reward {label!r} {verb}: {line}", "user": False, "raised": line}
        finally:
            if os.getpid() != self._process:  # a reward has forked, and this is the copy
                os._exit(1)

    def load(self, spec: Spec) -> dict[str, Any]:
        """Import and construct a reward; returns what it declares."""
        kept = self._modules.setdefault(spec.number, {})
        reward = build_reward(spec.spec, spec.name, spec.options, kept)
        low, high = reward.range
        facts = {
            "name": str(reward.name),
            "range": [float(low), float(high)],
            "higher_is_better": bool(reward.higher_is_better),
            "heads": declared_heads(reward),
            "methods": [name for name in OPTIONAL if callable(getattr(reward, name, None))],
        }
        self._rewards[spec.number] = reward
        return facts

    def find(self, spec: Spec) -> bool:
        """Import what a spec names. Returns whether it has a method `check`."""
        target = find_reward(spec.spec)
        while isinstance(target, functools.partial):
            target = target.func
        return inspect.getattr_static(target, "check", None) is not None

    def score(self, spec: Spec, samples: Samples, prompts: Sequence[Prompt]) -> list[float]:
        """One batch; the parent looks at the clock."""
        reward = self._rewards[spec.number]
        with self._neighbours(spec):
            return score_samples(reward, samples, prompts, len(prompts), timeout=None).tolist()

    def score_heads(
        self, spec: Spec, samples: Samples, prompts: Sequence[Prompt]
    ) -> dict[str, list[float]]:
        """One batch of a reward of several heads; the parent looks at the clock."""
        with self._neighbours(spec):
            found = score_heads(self._rewards[spec.number], samples, prompts, timeout=None)
            return {head: values.tolist() for head, values in found.items()}

    def call(self, spec: Spec, method: str, *arguments: Any) -> Any:
        """One of the optional methods. What it returns is a truth, or nothing."""
        reward = self._rewards[spec.number]
        with self._neighbours(spec):
            value = getattr(reward, method)(*arguments)
            return None if value is None else bool(value)

    @contextmanager
    def _neighbours(self, spec: Spec) -> Iterator[None]:
        """A reward of a file may import what lies beside it at any time."""
        file = reward_file(spec.spec)
        if file is None:
            yield
            return
        with neighbours((Path(spec.folder) / file).resolve().parent, self._modules[spec.number]):
            yield

    def _drop(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._rewards.pop(number, None)
            self._states.pop(number, None)
            self._modules.pop(number, None)
        if numbers:
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()

    @contextmanager
    def _state_of(self, spec: Spec) -> Iterator[None]:
        """Give a reward the state that it left, and keep what it leaves; ours comes back."""
        ours = [get() for get, _ in _STATE]
        _set(self._states.get(spec.number, [spec.folder, *ours[1:]]))
        try:
            yield
        finally:
            self._states[spec.number] = [get() for get, _ in _STATE]
            _set(ours)


def _set(state: Sequence[Any]) -> None:
    for (get, put), value in zip(_STATE, state, strict=True):
        if get() != value:
            put(value)


def _folder() -> str:
    """The working directory, "/" where it is gone."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


def _set_environment(values: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


_STATE: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (_folder, os.chdir),
    (lambda: dict(os.environ), _set_environment),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, torch.set_default_device),
    (torch.is_grad_enabled, torch.set_grad_enabled),
)
