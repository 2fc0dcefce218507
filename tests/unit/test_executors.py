"""Where tasks run: devices are counted there, and a task that takes its process down is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from paretune.config import RunConfig
from paretune.executors import open_executor, semaphores
from paretune.executors.devices import Leases
from paretune.executors.local import LocalExecutor
from paretune.types import ParetuneError, Stopped

CONFIG = {"rewards": {"ocr": {"reward": "pictures.ocr", "prompts": "smoke", "eval_prompts": "smoke"}}}


@dataclass(frozen=True)
class Deed:
    """A task of the tests."""

    what: str
    devices: int = 1

    @property
    def title(self) -> str:
        return f"doing {self.what}"


def do(deed: Deed, report: Any, should_stop: Callable[[], bool], devices: Any) -> Any:
    if deed.what == "exit":
        sys.exit(0)
    if deed.what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed.what == "stop":
        raise Stopped
    if deed.what == "wait":
        report({"began": deed.what})
        while not should_stop():
            report({"text": "x" * 1000})
            time.sleep(0.001)
        raise Stopped
    for number in range(100 if deed.what == "much" else 0):
        report({"number": number, "text": "x" * 200_000})  # more than a pipe holds
    report({"did": deed.what})
    return [deed.what, *devices]


def test_tasks_share_the_devices_that_fewest_use() -> None:
    leases = Leases("cuda", count=lambda: 3)
    with leases.take(2) as first, leases.take(1) as second, leases.take(1) as third:
        assert (first, second, third) == (("cuda:0", "cuda:1"), ("cuda:2",), ("cuda:0",))
        with pytest.raises(ParetuneError, match="a task needs 4 GPUs and this machine has 3"), leases.take(4):
            pass
    with leases.take(1) as again:
        assert again == ("cuda:0",)
    with leases.take(1), leases.take(2) as free:
        assert free == ("cuda:1", "cuda:2")
        with pytest.raises(Stopped), leases.take(2, should_stop=lambda: True):
            pass  # only one is free, and a task of several shares none
    with Leases("cpu").take(2) as shared:
        assert shared == ("cpu", "cpu")


def test_results_come_in_the_order_of_the_tasks_and_a_death_is_named() -> None:
    events: list[Any] = []
    with LocalExecutor(1, 1, "cpu") as executor:
        made = executor.map(do, [Deed("a"), Deed("b", devices=2)], events.append)
        assert made == [["a", "cpu"], ["b", "cpu", "cpu"]]
        assert events == [{"did": "a"}, {"did": "b"}]
        executor.map(do, [Deed("much")], events.append)
        assert [event["number"] for event in events[2:-1]] == list(range(100))
        assert events[-1] == {"did": "much"}
        with pytest.raises(Stopped):
            executor.map(do, [Deed("stop")], events.append)
    with LocalExecutor(1, 1, "cpu") as executor, pytest.raises(RuntimeError, match="SystemExit: 0"):
        executor.map(do, [Deed("exit")], events.append)
    with LocalExecutor(1, 1, "cpu") as executor, pytest.raises(ParetuneError) as caught:
        executor.map(do, [Deed("die")], events.append)
    assert str(caught.value) == (
        "a worker process died by SIGKILL, perhaps out of memory, while doing die; resume, or set "
        "executor.workers lower"
    )


@pytest.fixture
def heard() -> Iterator[None]:
    """A suite in the background of a shell inherits Ctrl-C as ignored; a user's terminal does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_in_the_middle_of_a_message_loses_no_message() -> None:
    events: list[Any] = []
    with LocalExecutor(1, 1, "cpu") as executor:
        line: Any = executor._queue._reader  # type: ignore[attr-defined]
        whole, pressed = line._recv, []

        def part(size: int) -> Any:
            read = whole(size)
            if events and not pressed:
                pressed.append(size)
                signal.raise_signal(signal.SIGINT)
            return read

        line._recv = part
        with pytest.raises(Stopped):
            executor.map(do, [Deed("wait")], events.append)
    assert pressed == [4]  # the length of a message was read, and the message was not
    assert events.count({"stopping": True}) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("heard")
def test_a_second_ctrl_c_ends_at_once() -> None:
    def press(event: Any) -> None:
        if "began" in event:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second one has done nothing")

    with pytest.raises(KeyboardInterrupt), LocalExecutor(1, 1, "cpu") as executor:
        executor.map(do, [Deed("wait")], press)


def test_the_recipe_says_how_many_at_a_time() -> None:
    def workers(own: int, usual: int, most: int | None = None) -> int:
        config = RunConfig.model_validate({**CONFIG, "executor": {"workers": own, "device": "cpu"}})
        executor = open_executor(config, usual, most)
        assert isinstance(executor, LocalExecutor)
        assert executor.device == "cpu"
        return executor.workers

    assert [workers(0, 3), workers(5, 3), workers(5, 2, 4), workers(0, 2, 1)] == [3, 5, 4, 1]


KILLED_TRACKER = """
import importlib.util, multiprocessing, os, signal, sys
from multiprocessing import resource_tracker
spec = importlib.util.spec_from_file_location("semaphores", sys.argv[2])  # no libraries are loaded
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
lock = multiprocessing.get_context("spawn").Lock()
if sys.argv[1] == "killed":
    os.kill(resource_tracker._resource_tracker._pid, signal.SIGKILL)
    os.waitpid(resource_tracker._resource_tracker._pid, 0)
module.keep_tracker()
print("after", file=sys.stderr)
del lock
resource_tracker._resource_tracker._stop()  # and wait for its last words
"""


@pytest.mark.parametrize("tracker", ["alive", "killed"])
def test_a_tracker_that_was_killed_is_silent(tracker: str) -> None:
    """Without it Python tells of the tracker and of each semaphore (a UserWarning and KeyErrors)."""
    words = [sys.executable, "-c", KILLED_TRACKER, tracker, semaphores.__file__]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "after\n")
