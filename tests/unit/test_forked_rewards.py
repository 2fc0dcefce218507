"""The process of a user's rewards belongs to the process that started it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from paretune.rewards.base import load_reward
from paretune.rewards.process import reward_process
from paretune.types import Prompt

COUNT = """
def count(texts, prompts):
    return [float(len(text)) for text in texts]
"""


def test_forked_processes_get_the_answers_to_their_own_questions(tmp_path: Path) -> None:
    """They shared one line: each could read the other's scores, and a merge of two had wrong gradients."""
    file = tmp_path / "count.py"
    file.write_text(COUNT)
    own = load_reward(f"{file}:count")
    assert own.score(["a"], [Prompt("p")]).tolist() == [1.0]
    ours, context = reward_process(), multiprocessing.get_context("fork")
    told = context.SimpleQueue()

    def ask(length: int) -> None:
        reward = load_reward(f"{file}:count")
        scores = {float(reward.score(["a" * length], [Prompt("p")])[0]) for _ in range(50)}
        told.put((length, scores, reward_process() is ours))

    children = [context.Process(target=ask, args=(length,)) for length in (2, 3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert sorted(told.get() for _ in children) == [(2, {2.0}, False), (3, {3.0}, False)]
    assert reward_process() is ours
    assert own.score(["abcd"], [Prompt("p")]).tolist() == [4.0]
