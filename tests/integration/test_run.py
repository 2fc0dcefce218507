"""Whole runs as a user starts them: workers, kills, damage, other people's folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.torch import load_file

from paretune.adapters.store import WEIGHTS
from paretune.records.read import read_reliability
from paretune.stages.claim import holder
from tests.conftest import tiny_recipe
from tests.warm import Begun

from .commands import begin, call

FINAL = Path("final") / WEIGHTS


def _begin(recipe: Path, out: Path) -> Begun:
    return begin("run", recipe, "--out", out, "--quiet")


def _run(recipe: Path, out: Path, *flags: str, patch: str = "") -> subprocess.CompletedProcess[str]:
    return call("run", recipe, "--out", out, "--quiet", *flags, patch=patch)


def _same_final(a: Path, b: Path) -> bool:
    return (a / FINAL).read_bytes() == (b / FINAL).read_bytes()


def test_a_run_leaves_what_the_contract_says(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["rewards"] == ["red", "dark"]
    names = ["base", "expert:red", "expert:dark", "rewarded_soup", "mapreduce@1", "mapreduce@2", "mapreduce"]
    assert list(summary["methods"]) == names
    assert summary["budget"] == {
        "base": 0, "mapreduce": 48, "rewarded_soup": 48, "expert:red": 24, "expert:dark": 24,
    }  # fmt: skip
    assert [r["round"] for r in summary["rounds"]] == [1, 2]
    assert summary["higher_is_better"] == {"red": True, "dark": True}
    for measured in (whole / "evaluation").iterdir():
        scales = json.loads((measured / "manifest.json").read_text())["scales"]
        assert [(s["name"], s["kind"], s["low"], s["high"]) for s in scales] == [
            ("red", "reward", None, None), ("dark", "reward", None, None),
        ]  # fmt: skip
    steady = {e["reward"]: e for e in read_reliability(whole / "evaluation" / "base" / "reliability.json")}
    assert {name: set(entry["reliability"]) for name, entry in steady.items()} == {
        name: {"again", "jpeg", "flip"} for name in ("red", "dark")
    }
    assert steady["red"]["reliability"]["again"] == {"correlation": pytest.approx(1), "change": 0}
    assert steady["red"]["seconds"] > 0
    assert [p.parent.name for p in whole.rglob("reliability.json")] == ["base"]
    assert "ms a sample" in (whole / "report.html").read_text()
    rows = [json.loads(line) for line in (whole / "evaluation.jsonl").read_text().splitlines()]
    base = [r["value"] for r in rows if r["method"] == "base" and r["reward"] == "red"]
    assert summary["methods"]["base"]["red"] == pytest.approx(sum(base) / 3)
    environment = json.loads((whole / "environment.json").read_text())
    assert Path(environment["model_path"]).name == "pipeline"
    for file in ("config.yaml", "plan.json", "report.html", "round-1/experts/red/metrics.jsonl",
                 "round-2/merged/diagnostics.json", "final/adapter_config.json"):  # fmt: skip
        assert (whole / file).exists(), file
    assert not list(whole.rglob("*.tmp"))


def test_the_final_adapter_is_the_sum_of_the_rounds(whole: Path) -> None:
    from paretune.adapters.store import load_delta

    final = load_delta([whole / "final"])
    rounds = [load_delta([whole / f"round-{k}" / "merged"]) for k in (1, 2)]
    name = "transformer_blocks.0.attn.to_q"
    assert final[name].dense().norm() > 0
    assert (final[name].dense() - rounds[0][name].dense() - rounds[1][name].dense()).abs().max() < 1e-6


def test_one_worker_gives_the_same_bits_as_two(recipe: Path, whole: Path, tmp_path: Path) -> None:
    done = _run(recipe, tmp_path / "one", "--set", "executor.workers=1")
    assert done.returncode == 0, done.stderr
    assert _same_final(tmp_path / "one", whole)
    assert (tmp_path / "one" / "evaluation.jsonl").read_text() == (whole / "evaluation.jsonl").read_text()


def left(out: Path) -> None:
    """Wait until the workers of a killed run have noticed and ended: forked ones hold its lock."""
    end = time.monotonic() + 60
    while holder(out) is not None:
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(1.5)


def _kill_when(recipe: Path, out: Path, ready: Callable[[], bool]) -> None:
    """Start a run and kill -9 it as soon as `ready`."""
    process = _begin(recipe, out)
    deadline = time.monotonic() + 240
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    done = process.wait(timeout=10)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_killed_in_map_then_resumed_is_bit_identical(recipe: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    checkpoints = out / "round-2" / "experts" / "red" / "checkpoints"
    slow = recipe.with_name("slow")
    slow.touch()
    try:
        _kill_when(recipe, out, lambda: any(checkpoints.glob("epoch-*")))
    finally:
        slow.unlink()
    assert not (out / "round-2" / "experts" / "red" / "manifest.json").exists()
    left(out)
    done = _run(recipe, out, "--resume")
    assert done.returncode == 0, done.stderr
    assert _same_final(out, whole)


# The process kills itself between two writes of a stage: the worst moment.
IN_REDUCE = (
    "import paretune.stages.reduce as stage\n"
    "stage.write_json = lambda *a: os.kill(os.getpid(), signal.SIGKILL)"
)
IN_EVALUATION = (
    "import paretune.executors.local as local\n"
    "kept = local.LocalExecutor.map\n"
    "def map(self, function, tasks, report):\n"
    "    if function.__name__ != 'evaluate_subject': return kept(self, function, tasks, report)\n"
    "    kept(self, function, tasks[:2], report)\n"
    "    os.kill(os.getpid(), signal.SIGKILL)\n"
    "local.LocalExecutor.map = map"
)


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param(IN_REDUCE, id="reduce"),
        pytest.param(IN_EVALUATION, id="evaluation", marks=pytest.mark.slow),
    ],
)
def test_killed_later_then_resumed_is_bit_identical(
    recipe: Path, whole: Path, tmp_path: Path, patch: str
) -> None:
    out = tmp_path / "killed"
    assert _run(recipe, out, patch=patch).returncode == -signal.SIGKILL
    left(out)
    done = _run(recipe, out, "--resume")
    assert done.returncode == 0, done.stderr
    assert _same_final(out, whole)
    assert (out / "evaluation.jsonl").read_text() == (whole / "evaluation.jsonl").read_text()


def test_ctrl_c_stops_at_a_checkpoint_and_says_how_to_go_on(
    recipe: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stopped"
    slow = recipe.with_name("slow")  # the run would be over where this process has to wait for its turn
    slow.touch()
    try:
        process = _begin(recipe, out)
        metrics = out / "round-1" / "experts" / "red" / "metrics.jsonl"
        while not metrics.exists():
            assert process.poll() is None
            time.sleep(0.01)
        assert process.poll() is None, "the run was over before Ctrl-C"
        process.send_signal(signal.SIGINT)
        done = process.wait(timeout=120)
    finally:
        slow.unlink()
    assert done.returncode == 130, done.stderr
    assert "--resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert _run(recipe, out, "--resume").returncode == 0
    assert _same_final(out, whole)


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(whole, tmp_path / "copy"))


def _one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_damaged_file_is_named(recipe: Path, copied: Path) -> None:
    victim = copied / "round-1" / "experts" / "dark" / WEIGHTS
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(bytes(data))
    told = _one_line(_run(recipe, copied, "--resume"))
    assert str(victim) in told
    assert "hash" in told


def test_a_foreign_file_is_not_reused(recipe: Path, copied: Path) -> None:
    import shutil

    ours, other = copied / "round-1" / "experts" / "dark", copied / "round-2" / "experts" / "dark"
    shutil.rmtree(ours)
    shutil.copytree(other, ours)
    assert "other inputs" in _one_line(_run(recipe, copied, "--resume"))


def test_another_recipe_is_refused_and_the_keys_named(recipe: Path, copied: Path) -> None:
    told = _one_line(_run(recipe, copied, "--resume", "--set", "train.learning_rate=0.5"))
    assert "train.learning_rate" in told
    assert "holds a run already" in _one_line(_run(recipe, copied))


BAD_REWARDS = {
    "raises": ("raise KeyError('colour')", "KeyError"),
    "nan": ("return [float('nan')] * len(images)", "nan"),
    "length": ("return [1.0]", "1"),
    "hangs": ("import time; time.sleep(600)", "within 8 s"),
}


@pytest.mark.parametrize("fault", BAD_REWARDS)
def test_a_failing_reward_is_one_line_and_the_checkpoint_is_kept(
    tiny_sd3: Path, tmp_path: Path, fault: str
) -> None:
    timeout = 8 if fault == "hangs" else 120  # the first epoch's scores must arrive within it
    recipe = tiny_recipe(tmp_path, tiny_sd3, executor={"reward_timeout": timeout, "workers": 1})
    body, expected = BAD_REWARDS[fault]
    flag = tmp_path / "seen"
    # Well for one epoch, then broken.
    (tmp_path / "rewards.py").write_text(
        "from pathlib import Path\n"
        "def red(images, prompts):\n"
        f"    flag = Path({str(flag)!r})\n"
        f"    if flag.exists():\n        {body}\n"
        "    flag.touch()\n"
        "    return images[:, 0].mean((1, 2)).tolist()\n"
        "dark = red\n"
    )
    told = _one_line(_run(recipe, tmp_path / "out"))
    assert "red" in told
    assert expected.lower() in told.lower()
    assert any((tmp_path / "out" / "round-1" / "experts" / "red" / "checkpoints").glob("epoch-0001"))


def test_workers_that_die_are_one_line(recipe: Path, tmp_path: Path) -> None:
    """All children of the run are killed, Python's tracker of semaphores too, and nothing is told of that."""
    out = tmp_path / "out"
    process = _begin(recipe, out)
    while not (out / "round-1" / "experts" / "red").exists():
        assert process.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    done = process.wait(timeout=120)
    assert done.returncode == 2
    assert "worker process died" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_reward_that_fails_beside_another_expert_is_told(recipe: Path, tmp_path: Path) -> None:
    """The first expert is stopped because of the second: what is told is why, not that it stopped."""
    rewards = recipe.parent / "rewards.py"
    code = "def nan(images, prompts):\n    return [float('nan')] * len(images)\n"
    (tmp_path / "nan.py").write_text(code)
    (tmp_path / "slow").touch()  # red takes a while
    (tmp_path / "rewards.py").write_text(rewards.read_text())
    sets = [f"rewards.red.reward={tmp_path / 'rewards.py'}:red",
            f"rewards.dark.reward={tmp_path / 'nan.py'}:nan", "executor.workers=2"]  # fmt: skip
    done = _run(recipe, tmp_path / "out", *(word for s in sets for word in ("--set", s)))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "reward 'dark'" in line


def test_metrics_and_weights_are_finite(whole: Path) -> None:
    for file in whole.rglob(WEIGHTS):
        assert all(t.isfinite().all() for t in load_file(file).values())


BASELINES = ("morl_d", "morl_dr", "sequential", "selma")


def test_the_baselines_run_without_mapreduce(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "baselines"
    done = _run(recipe, out, "--set", f"methods=[{', '.join(BASELINES)}]")
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["methods"]) == ["base", *BASELINES]
    assert set(summary["budget"].values()) == {0, 48}
    assert {"baselines", "sequential"} < set(summary["timing"])  # those of one round train side by side
    assert not {"morl_d", "morl_dr"} & set(summary["timing"])
    assert summary["rounds"] == []
    assert (out / "report.html").exists()
    # Sequential goes on with one adapter: its second merged folder is the second expert, whole.
    last, expert = out / "sequential" / "merged-2", out / "sequential" / "experts" / "dark"
    a, b = load_file(last / WEIGHTS), load_file(expert / WEIGHTS)
    assert all((a[name] - b[name]).abs().max() < 1e-6 for name in b)
    rows = [json.loads(x) for x in (expert / "metrics.jsonl").read_text().splitlines()]
    first = [json.loads(x) for x in (out / "sequential/experts/red/metrics.jsonl").read_text().splitlines()]
    assert [r["update"] for r in rows] == [first[-1]["update"] + i + 1 for i in range(len(first))]
    final, merged = load_file(out / "final" / WEIGHTS), load_file(out / "morl_d" / "merged" / WEIGHTS)
    assert all((final[name] - merged[name]).abs().max() < 1e-6 for name in merged)
