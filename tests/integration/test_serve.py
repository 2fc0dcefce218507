"""`paretune serve` as a user starts it: the process, its workers, an environment of its own, a run that asks it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.rewards.base import load_reward, score_samples
from paretune.types import ParetuneError, Prompt
from tests.conftest import tiny_recipe

from .commands import call, command

PROMPTS = [Prompt("a"), Prompt("b", {"k": 2})]


@contextmanager
def serving(*words: object, token: str = "") -> Iterator[dict[str, Any]]:
    """What the command prints when it answers. It is ended by Ctrl-C, with exit code 0."""
    environment = {**os.environ, "PARETUNE_TOKEN": token} if token else os.environ
    with subprocess.Popen(
        command("serve", *words, "--port", "0", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=environment, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise AssertionError(process.communicate(timeout=10)[1])
        try:
            yield json.loads(line)
        finally:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
            assert (process.returncode, err.strip().splitlines()[-1:]) == (0, ["stopped"]), err


def test_a_run_asks_a_server_and_notices_another_reward(tiny_sd3: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        tmp_path, tiny_sd3, rounds=1, methods=["mapreduce"],
        train={"epochs": 1, "prompts_per_epoch": 1, "group_size": 2, "updates_per_epoch": 1},
        evaluate={"prompts": 1},
    )  # fmt: skip
    file, out = tmp_path / "rewards.py", tmp_path / "out"
    experts = [out / "round-1" / "experts" / name / "adapter_model.safetensors" for name in ("red", "dark")]

    def run(url: str, *flags: str) -> subprocess.CompletedProcess[str]:
        sets = ["rewards.red.reward=remote", f"rewards.red.options={{url: \"{url}\", reward: red}}"]
        return call("run", recipe, "--out", out, "--quiet", *(w for s in sets for w in ("--set", s)), *flags)

    with serving(f"{file}:red") as served:
        assert list(served["rewards"]) == ["red"]
        done = run(served["url"])
        assert done.returncode == 0, done.stderr
        first = [path.stat().st_mtime_ns for path in experts]
    file.write_text(file.read_text().replace("images.select(-3, 0)", "images.select(-3, 1)"))
    file.with_name("other.py").write_text(file.read_text())
    with serving(f"red={tmp_path / 'other.py'}:red") as served:  # another address, and another reward
        done = run(served["url"], "--resume", "--set", "rewards.dark.reward=" + f"{file}:dark")
        assert done.returncode == 0, done.stderr
    now = [path.stat().st_mtime_ns for path in experts]
    assert now[0] > first[0]
    manifest = json.loads((out / "round-1" / "experts" / "red" / "manifest.json").read_text())
    assert manifest["kind"] == "expert"
    done = run(served["url"], "--resume")  # nobody is there any more
    assert done.returncode == 2
    assert "no reward server answers" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_worker_that_dies_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dies.py").write_text(
        "import os, signal\n\ndef dies(samples, prompts):\n"
        "    if samples[0] == 'die':\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return [len(s) for s in samples]\n"
    )
    monkeypatch.setenv("PARETUNE_TOKEN", "sesame")
    with serving(f"{tmp_path / 'dies.py'}:dies", "--workers", 2, "--device", "cpu", token="sesame") as served:
        reward = load_reward("remote", "short", url=served["url"], reward="dies")
        assert score_samples(reward, ["abc", "d"], PROMPTS).tolist() == [3, 1]
        with pytest.raises(ParetuneError, match=r"'dies' ended its process, killed by SIGKILL"):
            score_samples(reward, ["die", "d"], PROMPTS)
        assert score_samples(reward, ["abc", "d"], PROMPTS).tolist() == [3, 1]


SCORER = '''
import sys
import wordlist

class Known:
    """The share of known words; weight: what one counts."""
    name, range, higher_is_better = "known", (0.0, 2.0), True

    def __init__(self, weight=1.0):
        self.weight = weight

    def applies(self, prompt):
        return prompt.text != "never"

    def score(self, samples, prompts):
        assert "torch" not in sys.modules and "paretune_reward" not in str(sys.path)
        return [self.weight * (s in wordlist.WORDS) + 0.25 * p.metadata.get("k", 0) for s, p in zip(samples, prompts)]
'''


def make_wheel(folder: Path) -> str:
    """A wheel with the module `wordlist`, which no other environment has."""
    name = "wordlist-1.0-py3-none-any.whl"
    info = "wordlist-1.0.dist-info"
    with zipfile.ZipFile(folder / name, "w") as file:
        file.writestr("wordlist.py", "WORDS = {'kite'}\n")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: wordlist\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return name


def test_a_scorer_runs_in_an_environment_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "requirements.txt").write_text(f"# local\n./{make_wheel(tmp_path)}\n")
    (tmp_path / "known.py").write_text(SCORER)
    words = [f"{tmp_path / 'known.py'}:Known", "--env", tmp_path / "requirements.txt"]
    with serving(*words, "--option", "Known.weight=0.5") as served:
        reward: Any = load_reward("remote", "known", url=served["url"], reward="Known")
        assert (reward.range, reward.applies(Prompt("a")), reward.applies(Prompt("never"))) == ((0, 2), True, False)
        assert score_samples(reward, ["kite", "kite"], PROMPTS).tolist() == [0.5, 1.0]
        with pytest.raises(ParetuneError, match=r"pixels need torch or numpy in the reward's environment"):
            score_samples(reward, torch.zeros(2, 3, 2, 2), PROMPTS)
    (environment,) = (tmp_path / "cache" / "environments").iterdir()
    assert list(environment.glob("lib/*/site-packages/wordlist.py"))
    assert "include-system-site-packages = false" in (environment / "pyvenv.cfg").read_text()


def test_an_empty_environment_and_what_pip_cannot_install(tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("# nothing\n")
    done = call("serve", "pictures.ocr", "--port", "0", "--env", tmp_path / "none.txt")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(
        "error: reward 'pictures.ocr' is paretune's own and needs torch, which its environment lacks"
    )
    assert "pip installs nothing" in done.stderr
    missing = call("serve", "pictures.ocr", "--port", "0", "--env", tmp_path / "gone.txt")
    assert missing.stderr.strip() == f"error: --env: {tmp_path / 'gone.txt'} cannot be read: No such file or directory"
