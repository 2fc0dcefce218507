"""Rewards of a user's own are called in a process of their own: what they do to it, they do to it alone."""

import math
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from paretune.rewards import RewardError, load_reward, score_samples
from paretune.rewards.base import applies_to, check_spec
from paretune.rewards.errors import RewardTimeout
from paretune.rewards.process import PATIENCE
from paretune.types import ParetuneError, Prompt

SAMPLES = torch.linspace(0, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
PROMPTS = [Prompt("a red circle"), Prompt("a blue square")]
BODIES = {
    "stuck": "import re; re.match(r'(a|a)*$', 'a' * 40 + 'b')",
    "leave": "import sys; sys.exit(0)",
    "exit": "import os; os._exit(0)",
    "die": "import os; os.kill(os.getpid(), 9)",
    "interrupt": "raise KeyboardInterrupt",
    "fork": "import os; os.fork()",
    "silent": "import os; os.closerange(0, 100)",
    "alarm": (
        "import signal\n"
        "    def late(*_): raise TimeoutError\n"
        "    signal.signal(signal.SIGALRM, late); signal.alarm(5); signal.alarm(0)"
    ),
    "loop": "import asyncio; asyncio.get_event_loop().run_until_complete(asyncio.sleep(0))",
    "zero": "samples.zero_()",
    "change": (
        "import os, random, signal, locale, sys, warnings, numpy, torch\n"
        "    os.chdir('/'); os.environ['LEFT'] = 'x'; random.seed(1); numpy.random.seed(1)\n"
        "    torch.manual_seed(1); torch.set_num_threads(3); torch.set_default_dtype(torch.float64)\n"
        "    torch.set_grad_enabled(False); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    warnings.simplefilter('error'); sys.stdout.close(); sys.stdout = None"
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a reward for each of BODIES: it does that, and then returns the means."""
    path = tmp_path_factory.mktemp("own") / "mine.py"
    parts = [
        f"def {name}(samples, prompts):\n    {body}\n    return samples.flatten(1).mean(1).tolist()\n"
        for name, body in BODIES.items()
    ]
    parts.append(
        "def where(samples, prompts):\n"
        "    import os, torch\n"
        "    return [float(os.getcwd() == prompts[0].text), float(torch.is_grad_enabled())]\n"
    )
    path.write_text("\n".join(parts))
    return path


@pytest.fixture(autouse=True)
def _limit() -> Iterator[None]:
    token = PATIENCE.set(20.0)
    yield
    PATIENCE.reset(token)


@pytest.mark.parametrize("name", ["alarm", "loop", "zero", "fork", "change"])
def test_a_reward_may_use_its_process_as_a_script_may(place: Path, name: str) -> None:
    kept = SAMPLES.clone()
    values = score_samples(load_reward(f"{place}:{name}"), SAMPLES, PROMPTS, timeout=20)
    expected = [0.0, 0.0] if name == "zero" else kept.flatten(1).mean(1).tolist()
    assert values.tolist() == expected
    assert torch.equal(SAMPLES, kept)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("leave", "raised SystemExit: 0 (prompt 'a red circle')"),
        ("interrupt", "raised KeyboardInterrupt (prompt 'a red circle')"),
        ("exit", "ended its process, with exit code 0 (prompt 'a red circle')"),
        ("die", "ended its process, killed by SIGKILL, perhaps out of memory (prompt 'a red circle')"),
        ("silent", "ended its process"),
    ],
)
def test_a_reward_that_leaves_is_a_failure_that_names_it(place: Path, name: str, told: str) -> None:
    with pytest.raises(RewardError) as caught:
        score_samples(load_reward(f"{place}:{name}"), SAMPLES, PROMPTS, timeout=20)
    assert str(caught.value).startswith(f"reward {name!r} {told}")
    assert "\n" not in str(caught.value)


def test_a_reward_that_holds_the_lock_meets_its_deadline(place: Path) -> None:
    stuck, good = load_reward(f"{place}:stuck"), load_reward(f"{place}:zero")
    start = time.monotonic()
    with pytest.raises(RewardTimeout, match=r"'stuck' did not answer within 1 s \(prompt 'a red circle'\)"):
        score_samples(stuck, SAMPLES, PROMPTS, timeout=1)
    assert time.monotonic() - start < 60  # by itself it would not end
    # The process is gone, and another reward in it is loaded anew.
    assert score_samples(good, SAMPLES, PROMPTS, timeout=20).tolist() == [0.0, 0.0]


def test_nothing_of_what_a_reward_sets_is_set_here_or_for_another(place: Path) -> None:
    def state() -> list[object]:
        return [
            os.getcwd(), dict(os.environ), random.getstate(), np.random.get_state()[1].tolist(),  # type: ignore[index]
            torch.get_rng_state().tolist(), torch.get_num_threads(), torch.get_default_dtype(),
            torch.is_grad_enabled(), signal.getsignal(signal.SIGTERM), torch.zeros(1).device,
        ]  # fmt: skip

    before = state()
    changing, where = load_reward(f"{place}:change"), load_reward(f"{place}:where")
    score_samples(changing, SAMPLES, PROMPTS, timeout=20)
    assert state() == before
    here = [Prompt(os.getcwd())] * 2
    assert score_samples(where, SAMPLES, here, timeout=20).tolist() == [1.0, 1.0]


HEADS = {
    "leaves": ("import sys; sys.exit(0)\n", "SystemExit: 0"),
    "exits": ("import os; os._exit(0)\n", "ended its process while it was loaded, with exit code 0"),
    "interrupts": ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_file_that_leaves_when_it_is_imported(tmp_path: Path, head: str) -> None:
    body, told = HEADS[head]
    (tmp_path / "mine.py").write_text(f"{body}def f(samples, prompts): return [0.0] * len(prompts)\n")
    spec = f"{tmp_path / 'mine.py'}:f"
    for use in (load_reward, check_spec):
        with pytest.raises(ParetuneError) as caught:
            use(spec)
        assert spec in str(caught.value)
        assert told in str(caught.value)


CLASS = """
class Mine:
    name, range, higher_is_better = "mine", (0, 1), False
    def __init__(self):
        {constructor}
    def applies(self, prompt):
        {applies}
        return prompt.metadata.get("count") == 1
    def score(self, samples, prompts):
        return [0.5] * len(prompts)
"""


def _class(folder: Path, constructor: str = "pass", applies: str = "pass") -> str:
    (folder / "mine.py").write_text(CLASS.format(constructor=constructor, applies=applies))
    return f"{folder / 'mine.py'}:Mine"


def test_the_constructor_and_applies_are_called_there_too(tmp_path: Path) -> None:
    reward = load_reward(_class(tmp_path), name="other")
    assert (reward.name, reward.range, reward.higher_is_better) == ("other", (0.0, 1.0), False)
    assert [applies_to(reward, Prompt("x", {"count": n})) for n in (1, 2)] == [True, False]
    (tmp_path / "plain.py").write_text("def half(samples, prompts):\n    return [0.5] * len(prompts)\n")
    function = load_reward(f"{tmp_path / 'plain.py'}:half")
    assert function.range == (-math.inf, math.inf)
    assert not hasattr(function, "applies")


@pytest.mark.parametrize("part", ["constructor", "applies"])
def test_they_may_leave_or_never_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def use(body: str) -> None:
        applies_to(load_reward(_class(tmp_path, **{part: body})), Prompt("x"))

    with pytest.raises(ParetuneError, match=r"mine.*SystemExit: 3"):
        use("import sys; sys.exit(3)")
    with pytest.raises(ParetuneError, match=r"mine.*ended its process.* with exit code 0"):
        use("import os; os._exit(0)")
    PATIENCE.set(1.0)
    monkeypatch.setattr("paretune.rewards.apart.loading_seconds", lambda: 6.0)
    with pytest.raises(RewardTimeout, match=r"mine.* within [16] s"):
        use("import re; re.match(r'(a|a)*$', 'a' * 40 + 'b')")


def test_relative_files_are_found_where_the_command_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "away.py").write_text("import os; os.chdir('/')\ndef f(s, p): return [1.0] * len(p)\n")
    (tmp_path / "near.py").write_text("def f(s, p): return [float(open('n.txt').read())] * len(p)\n")
    (tmp_path / "n.txt").write_text("2")
    monkeypatch.chdir(tmp_path)
    away, near = load_reward("away.py:f"), load_reward("near.py:f")
    assert score_samples(away, SAMPLES, PROMPTS).tolist() == [1.0, 1.0]
    assert score_samples(near, SAMPLES, PROMPTS).tolist() == [2.0, 2.0]
    assert Path.cwd() == tmp_path
