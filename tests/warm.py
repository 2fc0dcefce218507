"""A process that has loaded the libraries already, of which every `paretune` that a test calls is a fork.

Starting Python and loading torch, diffusers and transformers takes seconds, and a whole run does it at least
twice. This process does it once for all calls of a test process. Each call is still a process of its own,
with its own paretune, environment, folder, standard streams and exit code. PARETUNE_TESTS_COLD=1 starts
every command as a user does; tests that stop or kill a command always do.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

# No paretune among them: it reads the environment when it is imported.
LIBRARIES = ("torch", "transformers", "diffusers", "peft", "scipy.stats", "matplotlib.pyplot", "jinja2",
             "rich.progress", "typer", "pydantic", "yaml", "PIL.Image")  # fmt: skip
CLASSES = {
    "diffusers": ("StableDiffusion3Pipeline", "AutoencoderKL", "SD3Transformer2DModel",
                  "FlowMatchEulerDiscreteScheduler"),
    "transformers": ("CLIPTextModelWithProjection", "CLIPTokenizer", "PreTrainedTokenizerFast"),
}  # fmt: skip


class WarmProcess:
    """The process and the pipes to it. Calls are answered one at a time."""

    def __init__(self) -> None:
        code = "from tests.warm import serve\nserve()"
        self.environment = dict(os.environ)
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        atexit.register(self._process.kill)

    def fits(self) -> bool:
        """Whether the libraries would be loaded alike in the environment of now."""
        changed = set(self.environment.items()) ^ set(os.environ.items())
        return all(name.startswith(("PARETUNE_", "PYTEST_")) for name, _ in changed)

    def call(self, words: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        """Run `paretune WORDS` to its end. Raises subprocess.TimeoutExpired, as subprocess.run does."""
        with tempfile.TemporaryDirectory() as folder:
            streams = {name: os.path.join(folder, name) for name in ("out", "err")}
            asked = {"words": list(words), "folder": os.getcwd(), "environment": dict(os.environ),
                     "timeout": int(timeout), **streams}  # fmt: skip
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            code = json.loads(self._process.stdout.readline())
            printed = {name: Path(path).read_text(encoding="utf-8") for name, path in streams.items()}
        if code is None:
            raise subprocess.TimeoutExpired(list(words), timeout, printed["out"], printed["err"])
        return subprocess.CompletedProcess(list(words), code, printed["out"], printed["err"])


@cache
def warm_process() -> WarmProcess | None:
    """The process of this test process, started at the first call; None where a user's start is asked for."""
    cold = os.environ.get("PARETUNE_TESTS_COLD") or "COVERAGE_PROCESS_START" in os.environ
    return None if cold else WarmProcess()


def serve() -> None:
    """Load the libraries, then answer the lines of standard input until it ends."""
    import warnings
    from importlib import import_module

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # as paretune sets them before it loads these
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = {name: import_module(name) for name in LIBRARIES}
        for name, classes in CLASSES.items():
            for kind in classes:
                getattr(loaded[name], kind)
    answers, asking = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(0))
    for line in asking:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(asked, [answers, asking])
        answers.write(json.dumps(_ended(child, asked["timeout"])) + "\n")
        answers.flush()


def _ended(child: int, timeout: int) -> int | None:
    """Wait for the child and what it started; its exit code, or None if it took too long."""

    def late(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(timeout)
    try:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except TimeoutError:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None
    finally:
        signal.alarm(0)
    return code


def _become(asked: dict[str, Any], pipes: list[IO[str]]) -> NoReturn:
    """Be `paretune WORDS` in this process, and end it."""
    os.setpgid(0, 0)
    for pipe in pipes:
        os.close(pipe.fileno())
    for stream, path in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(file, stream)
        os.close(file)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    _seed_again()
    sys.argv = ["-c", *asked["words"]]
    code = 0
    try:
        from paretune.cli.app import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        traceback.print_exc()
        code = 1
    _leave(code)


def _seed_again() -> None:
    """Forks would draw the same numbers. Workers are forks too, of what is loaded here."""
    import multiprocessing

    import numpy as np

    random.seed()
    np.random.seed()
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
