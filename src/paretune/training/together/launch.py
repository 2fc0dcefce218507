"""Start the processes that train one expert together, and watch them.

The process that an executor gave the task does not train: it starts one process for each device, passes their
reports on, tells them to stop, and ends all of them as soon as one has died. A process that waits for a dead
one could not do that. The processes find each other through a store of this process, so an executor needs
nothing but a task function that gets n devices; to train over several machines it would start `take_part` on
each of them, with the places' host set to the machine of the store.
"""
# pyright: reportPrivateImportUsage=false
# torch documents TCPStore and does not list it as exported.

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from queue import Empty
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ...types import DealtDevices, ParetuneError, Stopped, WorkerDied
from .crew import Crew, Place, joined

J = TypeVar("J")
Report = Callable[[dict[str, Any]], None]
# function(job, report, should_stop, crew, device) -> result. It is called in every process; the leader's
# result counts. It must be picklable.
CrewFunction = Callable[[J, Report, Callable[[], bool], Crew, str], Any]
HOST = "127.0.0.1"
WAIT = 0.1  # seconds between two looks at the processes
GRACE = 4.0  # seconds in which the reason for a failure may still arrive


def run_together(
    function: CrewFunction[J], job: J, title: str, report: Report, should_stop: Callable[[], bool],
    devices: Sequence[str],
) -> Any:  # fmt: skip
    """Run a job by one process on each device; return what the leader returns, None where it is elsewhere.

    Args:
        function: runs in every process.
        job: what it is called with.
        title: of the job, for messages.
        report: called with the leader's events.
        should_stop: whether all should stop at their next checkpoint.
        devices: one for each process, by torch's names; a CPU may be named several times. Of `DealtDevices`
            the process of this machine is started.

    Raises:
        ParetuneError: a process found a user's mistake.
        WorkerDied: a process was killed.
        Stopped: all have stopped, as `should_stop` asked.
    """
    context = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU, and may inherit locks
    part = devices.part if isinstance(devices, DealtDevices) else None
    host, port, store = (part.host, part.port, None) if part else (HOST, 0, None)
    if not port:
        store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
        host, port = HOST, store.port
    if part and store:
        report({"meeting": port})
    told: Queue[tuple[str, Any]] = context.Queue()
    stop, size = context.Event(), len(devices)
    processes = [
        context.Process(
            target=take_part,
            args=(function, job, Place(rank, size, host, port), device, told, stop,
                  torch.get_num_threads(), os.getpid()),
            name=f"process {rank} of {size}",
        )
        for rank, device in enumerate(devices) if device
    ]  # fmt: skip
    try:
        for process in processes:
            process.start()
        result = _watch(processes, told, stop, title, report, should_stop)
        for process in processes:
            process.join(GRACE)  # it ends its rewards' process too
        return result
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


def take_part(
    function: CrewFunction[J], job: J, place: Place, device: str, told: Queue[tuple[str, Any]], stop: Event,
    threads: int, parent: int,
) -> None:  # fmt: skip
    """Run a job as process `place.rank` of `place.size`, and tell how it ended.

    It ends with its parent, which may have died already: loading torch takes seconds.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process above handles Ctrl-C
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(threads)
    leads = place.rank == 0
    try:
        with joined(place, device) as crew:
            try:
                result = function(job, _reporter(told) if leads else _silent, stop.is_set, crew, device)
            except ParetuneError as error:
                # Before the others lose this process, which they would tell as a failure of theirs.
                told.put(("mistake", error))
                raise
        told.put(("done", result if leads else None))
    except Stopped:
        told.put(("stopped", None))
    except ParetuneError as error:
        told.put(("mistake", error))  # also one of joining; a second time it changes nothing
    except BaseException as error:  # also a library's sys.exit
        told.put(("failed", "".join(traceback.format_exception(error))))


def _watch(
    processes: Sequence[BaseProcess], told: Queue[tuple[str, Any]], stop: Event, title: str,
    report: Report, should_stop: Callable[[], bool],
) -> Any:  # fmt: skip
    """Pass reports on until all processes have ended, or one has failed."""
    ended, result, stopped = 0, None, False
    while ended < len(processes):
        if not stop.is_set() and should_stop():
            stop.set()
        for kind, value in _messages(told, WAIT):
            if kind == "event":
                report(value)
                continue
            ended += 1
            if kind in ("mistake", "failed"):
                raise _reason(processes, told, title, kind, value)
            stopped |= kind == "stopped"
            result = value if value is not None else result
        if any(process.exitcode for process in processes):
            raise _reason(processes, told, title, "", "")
    if stopped:
        raise Stopped
    return result


def _reason(
    processes: Sequence[BaseProcess], told: Queue[tuple[str, Any]], title: str, kind: str, value: Any
) -> Exception:
    """What to tell of a failure: a mistake, else the death of a process, else the error of the first."""
    until, failures = time.monotonic() + GRACE, [(kind, value)] if kind else []
    while all(k != "mistake" for k, _ in failures) and time.monotonic() < until:
        failures += [(k, v) for k, v in _messages(told, WAIT) if k in ("mistake", "failed")]
        dead = [(p.name, p.exitcode) for p in processes if p.exitcode]
        if dead:
            name, code = dead[0]
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            memory = ", perhaps out of memory" if code == -signal.SIGKILL else ""
            return WorkerDied(
                f"{name} died {how}{memory}, while {title}; resume, or take "
                "fewer devices (executor.devices_per_expert)"
            )
    for kind, value in sorted(failures, key=lambda failure: failure[0] != "mistake"):
        return value if kind == "mistake" else RuntimeError(value)
    return RuntimeError(f"a process ended without a result, while {title}")


def _messages(told: Queue[tuple[str, Any]], seconds: float) -> list[tuple[str, Any]]:
    """All messages that are there, after waiting for the first."""
    found = []
    try:
        found.append(told.get(timeout=seconds))
        while True:
            found.append(told.get_nowait())
    except Empty:
        return found


def _reporter(told: Queue[tuple[str, Any]]) -> Report:
    return lambda event: told.put(("event", event))


def _silent(event: dict[str, Any]) -> None:
    """The report of a process that does not lead."""


def _die_with(parent: int) -> None:
    """End this process when its parent has died, which may have been killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
