"""`paretune serve` as a user starts it: a run that asks it, its workers, an environment of its own."""

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

from paretune.adapters.store import WEIGHTS
from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.rewards.base import load_reward, score_samples
from paretune.stages.map import MapJob, train_expert
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
            _, err = process.communicate(timeout=120)
            assert (process.returncode, err.strip().splitlines()[-1:]) == (0, ["stopped"]), err


def test_an_expert_whose_reward_is_elsewhere_is_the_same_expert(tiny_sd3: Path, tmp_path: Path) -> None:
    small = {"epochs": 1, "prompts_per_epoch": 1, "group_size": 2, "updates_per_epoch": 1}
    recipe = tiny_recipe(tmp_path, tiny_sd3, rounds=1, methods=["mapreduce"], train=small)

    def trained(out: Path, overrides: list[str]) -> tuple[bytes, str]:
        config = load_config(recipe, overrides)
        job = MapJob(config, build_plan(config).methods[0].rounds[0].tasks[0], out, "base")
        manifest = train_expert(job, lambda event: None, lambda: False, ("cpu",))
        return (out / job.task.folder / WEIGHTS).read_bytes(), manifest["inputs"]

    with serving(f"{tmp_path / 'rewards.py'}:red") as served:
        assert list(served["rewards"]) == ["red"]
        options = f"rewards.red.options={{url: \"{served['url']}\", reward: red}}"
        far, far_inputs = trained(tmp_path / "far", ["rewards.red.reward=remote", options])
    near, near_inputs = trained(tmp_path / "near", [])
    assert far == near
    assert far_inputs != near_inputs


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
        own = [self.weight * (s in wordlist.WORDS) for s in samples]
        return [value + 0.25 * p.metadata.get("k", 0) for value, p in zip(own, prompts)]
'''


def make_wheel(folder: Path) -> str:
    """A wheel with the module `wordlist`, which no other environment has."""
    name = "wordlist-1.0-py3-none-any.whl"
    info = "wordlist-1.0.dist-info"
    with zipfile.ZipFile(folder / name, "w") as file:
        file.writestr("wordlist.py", "WORDS = {'kite'}\n")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: wordlist\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr(f"{info}/WHEEL", tags)
        file.writestr(f"{info}/RECORD", "")
    return name


def test_a_scorer_runs_in_an_environment_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "requirements.txt").write_text(f"# local\n./{make_wheel(tmp_path)}\n")
    (tmp_path / "known.py").write_text(SCORER)
    words = [f"{tmp_path / 'known.py'}:Known", "--env", tmp_path / "requirements.txt"]
    with serving(*words, "--option", "Known.weight=0.5") as served:
        reward: Any = load_reward("remote", "known", url=served["url"], reward="Known")
        assert reward.range == (0, 2)
        assert [reward.applies(Prompt(text)) for text in ("a", "never")] == [True, False]
        assert score_samples(reward, ["kite", "kite"], PROMPTS).tolist() == [0.5, 1.0]
        with pytest.raises(ParetuneError, match=r"pixels need torch or numpy in the reward's environment"):
            score_samples(reward, torch.zeros(2, 3, 2, 2), PROMPTS)
    (environment,) = (tmp_path / "cache" / "environments").iterdir()
    assert list(environment.glob("lib/*/site-packages/wordlist.py"))
    assert "include-system-site-packages = false" in (environment / "pyvenv.cfg").read_text()


def test_an_empty_environment_names_what_paretunes_own_rewards_need(tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("# nothing\n")
    done = call("serve", "pictures.ocr", "--port", "0", "--env", tmp_path / "none.txt")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(
        "error: reward 'pictures.ocr' is paretune's own and needs torch, which its environment lacks"
    )
    assert "pip installs nothing" in done.stderr
