"""The process of a user's rewards belongs to the process that started it."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

from paretune.rewards.base import load_reward
from paretune.rewards.process import RewardProcess, reward_process
from paretune.types import Prompt

COUNT = """
def count(texts, prompts):
    return [float(len(text)) for text in texts]
"""


def _tell(file: Path, length: int, times: int, ours: RewardProcess | None = None) -> None:
    """Write the scores of an answer's length, and whether the process of rewards is `ours`."""
    reward = load_reward(f"{file}:count")
    scores = {float(reward.score(["a" * length], [Prompt("p")])[0]) for _ in range(times)}
    told = {"scores": sorted(scores), "ours": reward_process() is ours}
    (file.parent / f"{length}.json").write_text(json.dumps(told))


def _fork(file: Path) -> None:
    _tell(file, 1, 1)
    ours, context = reward_process(), multiprocessing.get_context("fork")
    children = [context.Process(target=_tell, args=(file, length, 50, ours)) for length in (2, 3)]
    for child in children:
        child.start()
    for child in children:
        child.join(300)
        child.kill()
    _tell(file, 4, 1, ours)


def test_forked_processes_get_the_answers_to_their_own_questions(tmp_path: Path) -> None:
    """They shared one line: each could read the other's scores, and a merge of two had wrong gradients."""
    file = tmp_path / "count.py"
    file.write_text(COUNT)
    # They are forked from a new process: this one has threads, whose locks a fork inherits as they are.
    process = multiprocessing.get_context("spawn").Process(target=_fork, args=(file,))
    process.start()
    process.join(900)
    process.kill()
    process.join()
    assert process.exitcode == 0
    told = {length: json.loads((tmp_path / f"{length}.json").read_text()) for length in (2, 3, 4)}
    assert told == {
        2: {"scores": [2.0], "ours": False}, 3: {"scores": [3.0], "ours": False},
        4: {"scores": [4.0], "ours": True},
    }  # fmt: skip
