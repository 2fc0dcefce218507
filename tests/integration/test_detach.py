"""A run apart from the terminal: it is watched by its folder, stopped by a signal, and goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from paretune.commands.detach import LOG
from paretune.commands.watch_run import Part, logs, status
from paretune.stages.claim import holder
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe

from .commands import call


def wait_for(folder: Path, what: str) -> None:
    end = time.monotonic() + 600
    while not list(folder.glob(what)):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_detached_run_is_watched_and_stopped(tiny_sd3: Path, tmp_path: Path) -> None:
    recipe, out = tiny_recipe(tmp_path / "recipe", tiny_sd3, train={"epochs": 50}), tmp_path / "run"
    begun = call("run", recipe, "--out", out, "--detach", "--json")
    assert begun.returncode == 0, begun.stderr
    told = json.loads(begun.stdout)
    assert told["log"] == str(out / LOG)
    assert (status(out).state, status(out).process) == ("working", str(told["process"]))
    wait_for(out, "round-1/experts/red/checkpoints/epoch-*")
    os.kill(told["process"], signal.SIGINT)
    follow = list(logs(out, "red", follow=True))  # returns when the process has ended
    assert [row["update"] for row in follow] == list(range(1, len(follow) + 1))
    assert holder(out) is None
    found = status(out)
    assert found.state == "stopped"
    assert found.parts[0] == Part("round-1/experts/red", "begun", len(follow), 50)
    assert found.parts[2] == Part("round-2/experts/red", "waiting", 0, 50)
    end = time.monotonic() + 60  # the run leaves its folder before it says the last line
    while "Go on with the same command and --resume" not in " ".join((out / LOG).read_text().split()):
        assert time.monotonic() < end
        time.sleep(0.1)
    again = call("run", recipe, "--out", out, "--detach")
    assert again.returncode == 2
    assert "holds a run already; continue it with --resume" in " ".join(again.stderr.split())


def test_a_finished_run_and_names_that_it_does_not_train(whole: Path, tmp_path: Path) -> None:
    found = status(whole)
    assert (found.state, found.process) == ("finished", None)
    assert {part.state for part in found.parts} == {"finished"}
    assert [row["update"] for row in logs(whole, "red")] == [1, 2]  # round 2's, though the soup came later
    assert list(logs(whole, "red")) == list(logs(whole, "round-2/experts/red"))
    shown = call("logs", whole, "round-1/experts/dark")
    assert [line.split("  ")[0] for line in shown.stdout.splitlines()] == ["update 1", "update 2"]
    with pytest.raises(ParetuneError, match="trains no blue; it trains red, dark, or give a"):
        list(logs(whole, "blue"))
    with pytest.raises(ParetuneError, match="holds no run"):
        status(tmp_path)
