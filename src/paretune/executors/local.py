"""Run tasks in parallel processes of this machine, which live as long as the executor.

Each process has a fixed number of threads, whatever the number of processes. Arithmetic on the CPU depends on
the number of threads, so this makes one worker and three workers give the same bits. The files of the base
model are mapped read-only; weights that are stored in the requested dtype are therefore one copy for all
processes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event as EventType
from queue import Empty
from types import TracebackType
from typing import Any, Self

from ..environment import choose_device
from ..types import ParetuneError, Stopped, WorkerDied
from .base import Event, R, Report, T, Task, TaskFunction
from .devices import Leases
from .doing import Doing
from .interrupts import Interrupts
from .semaphores import keep_tracker


@dataclass(frozen=True)
class _Shared:
    """The objects that the workers share with each other and with the process that started them."""

    events: Queue[Event | None]  # None: a task of the process that puts it has ended
    stop: EventType
    leases: Leases
    doing: Doing


_shared: _Shared | None = None


class LocalExecutor:
    """See `base.Executor`. Its processes start when its block begins and end when its block ends."""

    def __init__(self, workers: int, threads: int, device: str = "auto") -> None:
        """Choose the device. Nothing is started yet.

        Args:
            workers: the number of processes.
            threads: the number of CPU threads of each process.
            device: "auto", "cpu" or "cuda".

        Raises:
            ParetuneError: if this machine does not have the device.
        """
        self.device = choose_device(device)
        self.workers, self._threads = workers, threads
        self._context = multiprocessing.get_context("spawn")
        self._queue: Queue[Event | None] = self._context.Queue()
        self._ended = 0
        self._stop = self._context.Event()
        self._doing = Doing(self._context, workers)
        self._processes: set[BaseProcess] = set()

    def __enter__(self) -> Self:
        shared = _Shared(self._queue, self._stop, Leases(self.device, self._context), self._doing)
        before = set(multiprocessing.active_children())
        kept = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
        os.environ |= {name: str(self._threads) for name in _THREAD_VARIABLES}
        try:
            self._pool = ProcessPoolExecutor(
                self.workers, self._context, _start_worker, (shared, self._threads, os.getpid())
            )
            # Processes start with the first task, and inherit the environment of that moment.
            wait([self._pool.submit(_nothing) for _ in range(self.workers)])
        finally:
            for name, value in kept.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        self._processes = set(multiprocessing.active_children()) - before
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stop.set()
        if kind is not None and issubclass(kind, KeyboardInterrupt):  # a second Ctrl-C: now
            for process in multiprocessing.active_children():
                process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, function: TaskFunction[T, R], tasks: Sequence[T], report: Report) -> list[R]:
        """See `base.Executor.map`. On a failure or Ctrl-C the other tasks stop at their next checkpoint."""
        self._ended, told = 0, False
        futures = [self._pool.submit(_run_task, function, task) for task in tasks]
        with Interrupts() as interrupts:
            while not all(f.done() for f in futures):
                self._drain(report, timeout=0.2)
                if any(_failed(f) for f in futures):
                    self._halt(futures)
                if interrupts.pressed and not told:
                    told = True
                    self._halt(futures)
                    report({"stopping": True})
            self._drain_rest(report, sum(map(_ran, futures)))
        if interrupts.pressed:
            raise Stopped
        # The other tasks were stopped because one had failed, so what they raise is not the reason.
        failed = [f for f in futures if _failed(f)]
        for future in sorted(failed, key=lambda f: isinstance(f.exception(), Stopped)):
            self._raise(future)
        return [f.result() for f in futures]

    def stop(self) -> None:
        """Ask the running tasks to stop at their next checkpoint; `map` then raises types.Stopped."""
        self._stop.set()

    def _halt(self, futures: Sequence[Future[Any]]) -> None:
        self._stop.set()
        for future in futures:
            future.cancel()

    def _drain(self, report: Report, timeout: float) -> None:
        """Report what has arrived; wait for the first event, but no longer than `timeout` seconds."""
        try:
            event = self._queue.get(timeout=timeout)
            while True:
                if event is None:
                    self._ended += 1
                else:
                    report(event)
                event = self._queue.get_nowait()
        except Empty:
            return

    def _drain_rest(self, report: Report, ended: int) -> None:
        """Report what so many ended tasks have sent: a result may arrive before the last events."""
        end = time.monotonic() + GRACE
        self._drain(report, timeout=0.0)
        while self._ended < ended and time.monotonic() < end:
            self._drain(report, timeout=0.1)

    def _raise(self, future: Future[Any]) -> None:
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            keep_tracker()
            raise WorkerDied(
                f"a worker process died{self._death()}; resume, or set executor.workers lower"
            ) from error
        assert error is not None
        raise error

    def _death(self) -> str:
        """How the first worker that was not ended by the pool died, and what it was doing then."""
        for process in self._processes:  # the pool ends the others with SIGTERM
            process.join(2.0)
            code = process.exitcode
            if code is not None and code != -signal.SIGTERM:
                known = -code in set(signal.Signals)
                how = f"by {signal.Signals(-code).name}" if known else f"with exit code {code}"
                memory = ", perhaps out of memory" if code == -signal.SIGKILL else ""
                title = self._doing.of(process.pid or 0)
                return f" {how}{memory}" + (f", while {title}" if title else "")
        return " (killed, or out of memory)"


GRACE = 10.0  # seconds in which the last events of tasks that have ended may arrive
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def _failed(future: Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is not None


def _ran(future: Future[Any]) -> bool:
    """Whether a task came to its end, in a process that lives."""
    return not future.cancelled() and not isinstance(future.exception(), BrokenProcessPool)


def _nothing() -> None:
    """A task that makes the pool start a process."""
    time.sleep(0.05)


def _start_worker(shared: _Shared, threads: int, parent: int) -> None:
    global _shared
    _shared = shared
    shared.doing.join()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    import torch

    torch.set_num_threads(threads)


def _die_with(parent: int) -> None:
    """End this worker when its parent has died: a killed run must not leave workers that write its folder."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _run_task(function: Callable[..., Any], task: Task) -> Any:
    assert _shared is not None
    try:
        if _shared.stop.is_set():  # the task was waiting when another one failed
            raise Stopped
        _shared.doing.tell(task.title)
        with _shared.leases.take(task.devices, _shared.stop.is_set) as devices:
            return function(task, _shared.events.put, _shared.stop.is_set, devices)
    except (ParetuneError, Stopped):
        raise
    except BaseException as error:  # also a library's sys.exit, which would end the parent
        # A traceback cannot be sent to another process, but its text can.
        raise RuntimeError("".join(traceback.format_exception(error))) from None
    finally:
        _shared.events.put(None)
