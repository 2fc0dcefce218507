"""A process that has loaded the libraries already, of which every `paretune` that a test calls is a fork.

Starting Python and loading torch, diffusers and transformers takes seconds, and a whole run does it at least
twice. This process does it once for all calls of a test process. Each call is still a process of its own,
with its own paretune, environment, folder, standard streams and exit code, and may be stopped or killed.

Half of a tiny run's time would be matplotlib's. So a call builds the figures of its report but writes blank
files; `tests/unit/test_report.py` and tests with `drawn=True` render them. PARETUNE_TESTS_COLD=1 starts every
command as a user does, and renders all.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, cast

from tests.blank import render_nothing
from tests.forked import Host, PopenOrFork, PopenOrHost, be_host, seed_again
from tests.libraries import load

# Of variables by which the libraries are loaded. Others are the command's own, or set by an import of a test.
LOADING = ("OMP_", "MKL_", "OPENBLAS_", "TORCH", "CUDA", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "DIFFUSERS_",
           "USE_", "MPL", "HOME", "XDG_", "TMPDIR", "LD_", "LANG", "LC_")  # fmt: skip


class Begun:
    """A command that runs: what a test needs of subprocess.Popen."""

    def __init__(
        self, words: Sequence[str], streams: Path, pid: int, poll: Callable[[], int | None]
    ) -> None:
        """streams: a folder of its own, in which "out" and "err" are its standard streams."""
        self.pid, self.returncode = pid, cast("int | None", None)
        self._words, self._streams, self._poll = list(words), streams, poll

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        if self.returncode is None:
            self.returncode = self._poll()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, as a machine that loses its power does."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float) -> subprocess.CompletedProcess[str]:
        """Wait for its end. Raises subprocess.TimeoutExpired; then it is dead, with what it started."""
        end, pause = time.monotonic() + timeout, 0.001
        while (code := self.poll()) is None and time.monotonic() < end:
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        if code is None:
            os.killpg(self.pid, signal.SIGKILL)
        printed = [(self._streams / name).read_text(encoding="utf-8") for name in ("out", "err")]
        shutil.rmtree(self._streams)
        if code is None:
            raise subprocess.TimeoutExpired(self._words, timeout, *printed)
        return subprocess.CompletedProcess(self._words, code, *printed)


class WarmProcess:
    """The process, and the socket at which it listens.

    Every question has a connection of its own, so that threads of a test and processes that it forks may ask.
    """

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp())
        self._address, self.environment = str(folder / "socket"), dict(os.environ)
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(self._address)
            door.listen(64)
            code = f"from tests.warm import serve\nserve({door.fileno()})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, pass_fds=[door.fileno()],
            )  # fmt: skip
        atexit.register(shutil.rmtree, folder)
        atexit.register(self._process.kill)

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether the libraries would be loaded alike in an environment."""
        changed = set(self.environment.items()) ^ set(environment.items())
        return not any(name.startswith(LOADING) for name, _ in changed)

    def begin(
        self, words: Sequence[str], patch: str, environment: Mapping[str, str], folder: Path, drawn: bool
    ) -> Begun:
        """Start `paretune WORDS` in a folder, after the lines of Python that break it on purpose."""
        streams = Path(tempfile.mkdtemp())
        asked = {"words": list(words), "patch": patch, "environment": dict(environment), "drawn": drawn}
        pid = self._ask({**asked, "folder": str(folder), "streams": str(streams)})
        return Begun(words, streams, pid, lambda: self._ask({"poll": pid}))

    def host(self, handle: int, paths: list[str], parent: int) -> Host:
        """Start the process of this process's rewards; see `forked`. It ends with the line, not with us."""
        asked = {"paths": paths, "environment": dict(os.environ), "folder": os.getcwd()}
        pid = self._ask(asked, [handle, 2])

        def look() -> int | None:
            try:
                return cast("int | None", self._ask({"poll": pid}))
            except OSError:  # the process that started it has been ended, and it with that
                return -signal.SIGKILL

        return Host(pid, look)

    def _ask(self, question: dict[str, Any], files: Sequence[int] = ()) -> Any:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(self._address)
            text = json.dumps(question).encode()
            sent = socket.send_fds(line, [text], files)
            line.sendall(text[sent:])
            line.shutdown(socket.SHUT_WR)
            return json.loads(b"".join(iter(lambda: line.recv(1 << 16), b"")))


@cache
def warm_process() -> WarmProcess | None:
    """The process of this test process, started at the first call; None where a user's start is asked for."""
    cold = os.environ.get("PARETUNE_TESTS_COLD") or "COVERAGE_PROCESS_START" in os.environ
    return None if cold else WarmProcess()


class PopenOrWarm(PopenOrHost):
    """See `PopenOrHost`: for the process of a test."""

    @staticmethod
    def start(handle: int, paths: list[str], parent: int) -> Host:
        """A fork of the process that has loaded the libraries."""
        warm = warm_process()
        assert warm is not None
        return warm.host(handle, paths, parent)


def serve(door: int) -> None:
    """Load the libraries, then answer whoever connects until standard input ends. door: it listens there."""
    load()
    gc.collect()
    gc.freeze()  # no fork looks for garbage among what is loaded here
    listening, asking = socket.socket(fileno=door), os.dup(0)
    ended: dict[int, int] = {}
    while asking not in select.select([listening, asking], [], [])[0]:
        line, _ = listening.accept()
        first, files, _, _ = socket.recv_fds(line, 1 << 16, 2)
        asked = json.loads(first + b"".join(iter(lambda: line.recv(1 << 16), b"")))  # noqa: B023
        if "poll" in asked:
            answer = ended.get(asked["poll"])
            if answer is None and (status := os.waitpid(asked["poll"], os.WNOHANG))[0]:
                answer = ended[asked["poll"]] = os.waitstatus_to_exitcode(status[1])
        elif "paths" in asked:
            answer = _fork_host(asked, files)
            ended.pop(answer, None)  # numbers of processes are used again
        else:
            answer = os.fork()
            ended.pop(answer, None)
            if answer == 0:
                _become(asked, [listening.fileno(), line.fileno(), asking])
        with line, suppress(OSError):  # who asked may have been killed
            line.sendall(json.dumps(answer).encode())


def _fork_host(asked: dict[str, Any], files: list[int]) -> int:
    child = os.fork()
    if child == 0:
        _move(asked)
        handle, err = files
        be_host(handle, err, asked["paths"], parent=0)
    for file in files:
        os.close(file)
    return child


def _move(asked: dict[str, Any]) -> None:
    """Be in the folder and the environment of the process that asks."""
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])


def _become(asked: dict[str, Any], files: Sequence[int]) -> NoReturn:
    """Be `paretune WORDS` in this process, and end it."""
    os.setpgid(0, 0)
    for file in files:
        os.close(file)
    out, err = (os.path.join(asked["streams"], name) for name in ("out", "err"))
    for stream, path in ((0, os.devnull), (1, out), (2, err)):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(file, stream)
        os.close(file)
    _move(asked)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [path for path in paths if path and path not in sys.path]
    # A suite that runs in the background of a shell inherits Ctrl-C as ignored; a user's terminal does not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _seed_again()
    subprocess.Popen = PopenOrFork  # type: ignore[misc]
    if not asked["drawn"]:
        render_nothing()
    sys.argv = ["-c", *asked["words"]]
    code = 0
    try:
        exec(asked["patch"], {"os": os, "signal": signal, "sys": sys})
        from paretune.cli.app import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        traceback.print_exc()
        code = 1
    _leave(code)


def _seed_again() -> None:
    """Workers are forks too, of what is loaded here."""
    import multiprocessing

    seed_again()
    forks = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: forks  # type: ignore[assignment,misc]


def _leave(code: int) -> NoReturn:
    """End as Python ends: threads are awaited, what is registered is called, and streams are flushed."""
    import threading

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
