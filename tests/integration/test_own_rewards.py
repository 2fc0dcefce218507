"""Whole commands with rewards that hang, leave, or change the process that they are called in."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from paretune.adapters.store import WEIGHTS
from paretune.samples.files import save_sample
from tests.conftest import tiny_recipe

from .commands import call

# It would take hours; `call` gives a command five minutes.
STUCK = "import re; re.match(r'(a|a)*$', 'a' * 40 + 'b')"
SMALL = {
    "rounds": 1, "methods": ["mapreduce"], "train": {"epochs": 1, "updates_per_epoch": 1},
    "evaluate": {"prompts": 1},
}  # fmt: skip


def _recipe(folder: Path, pipeline: Path, code: str, timeout: float = 60.0) -> Path:
    """A small recipe whose rewards `red` and `dark` are those of `code`."""
    recipe = tiny_recipe(folder, pipeline, executor={"reward_timeout": timeout, "workers": 1}, **SMALL)
    (folder / "rewards.py").write_text(code)
    return recipe


def _one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


def test_a_reward_that_holds_the_lock_ends_a_run_in_one_line(tiny_sd3: Path, tmp_path: Path) -> None:
    code = f"def red(images, prompts):\n    {STUCK}\ndark = red\n"
    recipe, out = _recipe(tmp_path, tiny_sd3, code, timeout=2), tmp_path / "out"
    line = _one_line(call("run", recipe, "--out", out, "--quiet"))
    assert "reward 'red' did not answer within 2 s (prompt '" in line
    assert f"checkpoints are kept in {out}: go on with the same command and --resume" in line


def test_it_ends_score_too(tmp_path: Path) -> None:
    import torch

    (tmp_path / "mine.py").write_text(f"def red(images, prompts):\n    {STUCK}\n")
    (tmp_path / "shown").mkdir()
    save_sample(torch.zeros(3, 8, 8), tmp_path / "shown" / "a")
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    words = ("score", f"{tmp_path / 'mine.py'}:red", tmp_path / "shown", "--timeout", "2")
    line = _one_line(call(*words, "--prompts", tmp_path / "prompts.txt"))
    assert "reward 'red' did not answer within 2 s (prompt 'a red circle')" in line


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import sys; sys.exit(0)\n", "SystemExit: 0"),
        ("import os; os._exit(0)\n", "ended its process while it was loaded, with exit code 0"),
        ("def red(i, p):\n    import os; os._exit(0)\ndark = red\n", "'red' ended its process, with exit"),
    ],
    ids=["exit at import", "_exit at import", "_exit"],
)
def test_a_reward_that_leaves_is_a_failure(tiny_sd3: Path, tmp_path: Path, code: str, told: str) -> None:
    line = _one_line(call("run", _recipe(tmp_path, tiny_sd3, code), "--out", tmp_path / "out", "--quiet"))
    assert told in line
    assert "red" in line


QUIET = "def red(images, prompts):\n    return images[:, 0].mean((1, 2)).tolist()\ndark = red\n"
# Does all that a reward should not do, and gives the same scores.
LOUD = """
import asyncio, os, random, signal, sys, warnings
import numpy, torch
os.chdir("/")
random.seed(3); numpy.random.seed(3); torch.manual_seed(3)
torch.set_default_dtype(torch.float64); torch.set_num_threads(2); torch.set_grad_enabled(False)
warnings.simplefilter("error")
print("loaded")

def late(*_):
    raise TimeoutError

def red(images, prompts):
    signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    values = images[:, 0].mean((1, 2)).tolist()
    asyncio.get_event_loop().run_until_complete(asyncio.sleep(0))
    signal.alarm(0)
    images.zero_()
    print("scored")
    os.chdir("/")
    return values
dark = red
"""


@pytest.mark.slow
def test_what_a_reward_does_to_its_process_changes_no_bit(tiny_sd3: Path, tmp_path: Path) -> None:
    for name, code in (("quiet", QUIET), ("loud", LOUD)):
        recipe = _recipe(tmp_path / name, tiny_sd3, code)
        # A relative --out, from the folder where it is meant.
        done = call("run", recipe, "--out", "out", "--json", folder=tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert [json.loads(line) for line in done.stdout.splitlines()]  # no line that a reward printed
    quiet, loud = tmp_path / "quiet" / "out", tmp_path / "loud" / "out"
    for file in (Path("final") / WEIGHTS, Path("evaluation.jsonl")):
        assert (quiet / file).read_bytes() == (loud / file).read_bytes()
    pictures = sorted(p.relative_to(quiet) for p in (quiet / "samples").rglob("*.png"))
    assert pictures
    assert all((quiet / p).read_bytes() == (loud / p).read_bytes() for p in pictures)
