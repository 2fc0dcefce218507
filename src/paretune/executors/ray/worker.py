"""The actor on a machine of the cluster. It takes one task at a time, and is asked for news all the while.

The task runs in a process of `executors.local`, with the same threads and the same environment as there, so
that both give the same bits, and so that a death of that process is told by the actor, which lives on.
"""

from __future__ import annotations

import os
import pickle
import queue
import shutil
import socket
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...environment import own_version
from ...files import alive
from ...foreign.cache import cache_folder
from ...types import ParetuneError, Part, Stopped
from ..local import LocalExecutor
from .network import use_own_interface
from .parcels import Parcel, Unpacked, run_unpacked, unpack
from .watching import Changes, Watch

LOOK = 0.5  # seconds between two looks at what a task has written


@dataclass(frozen=True)
class Hello:
    """What a worker tells of itself.

    machine: its host's name, with the node's id where they share a host. address: by which others reach it.
    """

    machine: str
    version: str
    address: str = ""


@dataclass(frozen=True)
class News:
    """What happened since the last poll. ended: pickled, ("done", result) or ("failed", error), or None."""

    events: tuple[dict[str, Any], ...] = ()
    changes: Changes | None = None
    ended: bytes | None = None


class _Work:
    """One attempt of a task. stopping: set before it begins or while it works. ended: as of `News`."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()  # None: it has ended
        self.stopping = threading.Event()
        self.watch: Watch | None = None
        self.ended: bytes | None = None


class Worker:
    """Runs tasks on the machine where Ray has put it.

    Its methods run in several threads, and Ray does not keep their order: a call names the attempt that it is
    about by its ticket, a number that the driver gives.
    """

    def __init__(self, threads: int, device: str) -> None:
        """threads, device: as of `LocalExecutor`."""
        self._threads, self._device = threads, device
        self._works: defaultdict[int, _Work] = defaultdict(_Work)
        self._executor: LocalExecutor | None = None
        self._home = _new_home()

    def hello(self) -> Hello:
        """Where it is, and which paretune it has."""
        import ray

        node, address = ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()
        return Hello(f"{socket.gethostname()} (node {node[:8]})", own_version(), address)

    def sees(self, probe: str, word: str) -> bool:
        """Whether this machine sees a file that the driver has just written."""
        try:
            return Path(probe).read_text() == word
        except OSError:
            return False

    def start(self, ticket: int, parcel: Parcel, sees_root: bool, part: Part | None = None) -> None:
        """Begin a task, or this worker's part of it. `poll` returns its events and its result."""
        if part is not None:
            use_own_interface()
        threading.Thread(
            target=self._run, args=(self._works[ticket], parcel, sees_root, part), daemon=True
        ).start()

    def poll(self, ticket: int) -> News:
        """What is new, at once if there is something, otherwise after LOOK seconds.

        The news of the end come with the last files.
        """
        work, events, ended = self._works[ticket], list[dict[str, Any]](), None
        end = time.monotonic() + LOOK
        while ended is None and (left := end - time.monotonic()) > 0:
            try:
                event = work.events.get(timeout=0.02 if events else left)
            except queue.Empty:
                break
            if event is None:
                ended = work.ended
            else:
                events.append(event)
        return News(tuple(events), work.watch.look() if work.watch else None, ended)

    def stop(self, ticket: int) -> None:
        """Ask a task to stop at its next checkpoint."""
        work, executor = self._works[ticket], self._executor
        work.stopping.set()
        if work.ended is None and executor is not None:
            executor.stop()

    def close(self) -> None:
        """End the process of the tasks and remove what was sent."""
        self._leave()
        shutil.rmtree(self._home, ignore_errors=True)

    def _run(self, work: _Work, parcel: Parcel, sees_root: bool, part: Part | None) -> None:
        try:
            outcome = ("done", self._result(work, parcel, sees_root, part))
        except (ParetuneError, Stopped, RuntimeError) as error:
            outcome = ("failed", error)
        except BaseException as error:
            outcome = ("failed", RuntimeError("".join(traceback.format_exception(error))))
        work.ended = pickle.dumps(outcome)
        if outcome[0] == "failed" or work.stopping.is_set():
            self._leave()  # after a failure, or when it was asked to stop, the executor takes no more tasks
        work.events.put(None)

    def _result(self, work: _Work, parcel: Parcel, sees_root: bool, part: Part | None) -> Any:
        import ray

        def take(data: Any) -> bytes:
            return ray.get(data)

        root = unpack(parcel, self._home, take, sees_root)
        if root is not None and not sees_root:
            work.watch = Watch(root / parcel.writes)
        if self._executor is None:
            self._executor = LocalExecutor(1, self._threads, self._device).__enter__()
        if work.stopping.is_set():
            raise Stopped
        report: Callable[[dict[str, Any]], None] = work.events.put
        return self._executor.map(run_unpacked, [Unpacked(parcel, self._home, root, part)], report)[0]

    def _leave(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.__exit__(None, None, None)


def _new_home() -> Path:
    """A new folder in the cache of this machine. Those of workers that were killed are removed."""
    folder = cache_folder("ray")
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        number = left.name.partition("-")[0]
        if number.isdecimal() and not alive(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=folder))
