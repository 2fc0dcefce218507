"""The process in which rewards of a user's own are imported and called: from outside, it can be killed.

A reward may hold Python's lock for ever, use signals, change the working directory, exit: all that stays in
its own process. A paretune process has at most one such process, started when the first reward is loaded.
Questions go there as pickles; answers come back as JSON, so nothing that a reward made is unpickled here.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

# Seconds that one question may take: a batch, or whether a prompt can be scored.
PATIENCE: ContextVar[float] = ContextVar("PATIENCE", default=120.0)

_CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[2]); "
    "from paretune.rewards.hosting import main; main(int(sys.argv[1]), int(sys.argv[3]))"
)


def loading_seconds() -> float:
    """What importing and constructing a reward may take: models are read then, so it is more."""
    return max(60.0, 5 * PATIENCE.get())


class Overdue(Exception):
    """The process did not answer in time and was killed."""


class Ended(Exception):
    """The process ended instead of answering. The message says how."""


@dataclass(frozen=True)
class Spec:
    """A reward to load. number: of this object, unique. folder: what relative paths are relative to."""

    number: int
    spec: str
    name: str | None
    options: dict[str, Any]
    folder: str


class RewardProcess:
    """Starts the process when it is needed, and again after it was killed. Threads take turns.

    environment: variables that it gets beside those of this process.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = {**os.environ, **environment} if environment else None
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._line: Connection | None = None
        self._loaded: set[int] = set()
        self._dropped: list[int] = []
        atexit.register(self.kill)

    def ask(self, reward: Spec, method: str, *arguments: Any, seconds: float) -> Any:
        """What a method of `hosting.Host` answers about a reward, which is loaded first where it is not yet.

        Returns {"value": ..} or {"error": text, "user": whether the reward told a user's mistake}. Raises
        Overdue and Ended.
        """
        with self._lock:
            if self._line is None or self._child is None or self._child.poll() is not None:
                self._end()
                self._start()
            if method not in {"load", "find"} and reward.number not in self._loaded:
                answer = self._exchange(("load", reward, (), loading_seconds()))
                if "error" in answer:
                    return answer
                self._loaded.add(reward.number)
            answer = self._exchange((method, reward, arguments, seconds))
            if method == "load" and "value" in answer:
                self._loaded.add(reward.number)
            return answer

    def drop(self, number: int) -> None:
        """Forget a reward that nobody has any more; the process learns it with the next question."""
        self._dropped.append(number)

    def kill(self) -> None:
        """End the process, and whatever its rewards have started."""
        if self._child is not None and self._child.returncode is None:  # else another may have its number
            _kill_group(self._child.pid)
            self._child.wait()

    def _end(self) -> None:
        self.kill()
        if self._line is not None:
            self._line.close()
        self._line = None
        self._loaded.clear()

    def _how(self) -> str:
        """How the process ended, in words."""
        assert self._child is not None
        try:
            code = self._child.wait(1.0)
        except subprocess.TimeoutExpired:
            return "since it closed its files"
        _kill_group(self._child.pid)  # what it has started outlives it
        if code >= 0:
            return f"with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"killed by {name}" + (", perhaps out of memory" if name == "SIGKILL" else "")

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        # The system ends it with the thread that starts it: right only for a thread that lives to the end.
        parent = os.getpid() if threading.current_thread() is threading.main_thread() else 0
        self._child = subprocess.Popen(
            self._command(theirs.fileno(), parent), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
            stdout=2, start_new_session=True, env=self._environment,
        )  # fmt: skip
        theirs.close()
        self._line = Connection(ours.detach())
        try:
            self._receive()  # torch is imported: that takes no time of a reward's
        except (EOFError, OSError) as error:
            how = self._how()
            self._end()
            raise Ended(how) from error

    def _command(self, handle: int, parent: int) -> list[str]:
        """The command of the process. handle: its end of the socket. parent: see `hosting.main`."""
        return [sys.executable, "-c", _CODE, str(handle), json.dumps(sys.path), str(parent)]

    def _encoded(self, question: tuple[Any, ...]) -> bytes:
        """A question as it goes to the process, which this process has made."""
        return pickle.dumps(question, protocol=5)

    def _receive(self) -> bytes:
        """The next answer. What it has started may hold the line open: its own end is what counts."""
        assert self._child is not None
        assert self._line is not None
        while not self._line.poll(0.2):
            if self._child.poll() is not None and not self._line.poll(0):
                raise EOFError
        return self._line.recv_bytes()

    def _exchange(self, question: tuple[str, Spec, tuple[Any, ...], float]) -> dict[str, Any]:
        assert self._child is not None
        assert self._line is not None
        method, reward, arguments, seconds = question
        dropped, self._dropped = self._dropped, []
        sent = (method, reward, arguments, torch.get_num_threads(), dropped)
        overdue = threading.Event()

        def expire() -> None:
            overdue.set()
            self.kill()

        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), expire)
        timer.daemon = True
        timer.start()
        try:
            self._line.send_bytes(self._encoded(sent))
            return json.loads(self._receive())
        except (EOFError, OSError) as error:
            how = self._how()
            self._end()
            if overdue.is_set():
                raise Overdue from error
            raise Ended(how) from error
        except BaseException:  # Ctrl-C: an answer that comes later would be taken for the next one's
            self._end()
            raise
        finally:
            timer.cancel()


def _kill_group(process: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)


_shared: RewardProcess | None = None


def reward_process() -> RewardProcess:
    """The one of this process."""
    global _shared
    if _shared is None:
        _shared = RewardProcess()
    return _shared


def _leave_to_parent() -> None:
    """A forked process starts its own: on one line it would read the answers to its parent's questions."""
    global _shared
    if _shared is not None:
        atexit.unregister(_shared.kill)
    _shared = None


os.register_at_fork(after_in_child=_leave_to_parent)
