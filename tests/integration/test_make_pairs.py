"""`paretune pairs`, and a whole run in which one expert learns from what it wrote and another by NFT."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from paretune.cli import app as cli
from paretune.commands.make_pairs import Drawing, make_pairs
from paretune.data.preferences import load_preferences
from paretune.recipes import load_config
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe

from .commands import begin, call


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def made(tiny_sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four samples of each of three prompts, ordered by `dark`."""
    folder = tmp_path_factory.mktemp("pairs")
    config = load_config(tiny_recipe(folder, tiny_sd3))
    summary = make_pairs(config, Drawing("dark", form="list"), folder / "list.jsonl")
    assert (summary["lists"], summary["ties"]) == (3, 0)
    assert summary["mean_gap"] > 0
    (told,) = summary["agreement"]
    assert (told["rewards"], told["pairs"]) == (["red", "dark"], 3 * 6)
    assert 0 <= told["alike"] <= 1
    return folder


def test_lists_are_ordered_by_the_reward_and_keep_all_scores(made: Path) -> None:
    rows = records(made / "list.jsonl")
    assert [row["prompt"] for row in rows] == ["a red circle", "two blue squares", "a sign saying kite"]
    for row in rows:
        scores = [answer["score"] for answer in row["answers"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 4
        assert [a["scores"]["dark"] for a in row["answers"]] == scores
        assert all({"red", "dark"} == a["scores"].keys() for a in row["answers"])
        assert {a["source"] for a in row["answers"]} == {"base"}
    read = load_preferences(str(made / "list.jsonl"))
    assert all(isinstance(s, Path) and s.is_file() for record in read for s in record.samples)


def test_the_best_and_the_worst_and_a_part_are_the_same_samples(made: Path, tiny_sd3: Path) -> None:
    config = load_config(made / "recipe.yaml")
    summary = make_pairs(config, Drawing("dark", limit=1), made / "best.jsonl")
    (row,), whole = records(made / "best.jsonl"), records(made / "list.jsonl")[0]
    assert summary["lists"] == 1
    assert [a["score"] for a in row["answers"]] == [whole["answers"][i]["score"] for i in (0, 3)]
    first, second = ((made / r["answers"][0]["file"]).read_bytes() for r in (row, whole))
    assert first == second


def test_rewards_vote(made: Path) -> None:
    """Red's and dark's orders are joined by the share of rivals that a sample beats."""
    config = load_config(made / "recipe.yaml")
    make_pairs(config, Drawing("red", form="wins"), made / "wins.jsonl")
    for row in records(made / "wins.jsonl"):
        for answer in row["answers"]:
            beaten = [
                sum(answer["scores"][name] > other["scores"][name] for other in row["answers"])
                for name in ("red", "dark")
            ]
            assert answer["score"] == pytest.approx(sum(beaten) / 6)


@pytest.mark.parametrize(
    ("drawing", "out", "told"),
    [
        (Drawing("rde"), "a.jsonl", "--reward: there is no reward rde; did you mean red?"),
        (Drawing("red", form="best"), "a.jsonl", "--form: best is none of extremes, list, wins"),
        (Drawing("red", count=1), "a.jsonl", "-n: a list has 2 to 1000 samples, not 1"),
        (Drawing("red"), "a.json", "--out: the file of pairs ends in .jsonl"),
        (Drawing("red"), "list.jsonl", "list.jsonl exists already"),
    ],
)
def test_wrong_words(made: Path, drawing: Drawing, out: str, told: str) -> None:
    with pytest.raises(ParetuneError) as caught:
        make_pairs(load_config(made / "recipe.yaml"), drawing, made / out)
    assert told in str(caught.value)


def test_where_all_lists_tie_nothing_is_left(tiny_sd3: Path, tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path, tiny_sd3)
    (tmp_path / "rewards.py").write_text(
        "def red(images, prompts):\n    return [1.0] * len(images)\n\n"
        "def dark(images, prompts):\n    return [1.0] * len(images)\n"
    )
    with pytest.raises(ParetuneError, match="--reward red: all 3 lists tie"):
        make_pairs(load_config(path), Drawing("red"), tmp_path / "pairs.jsonl")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["prompts.txt", "recipe.yaml", "rewards.py"]


def test_the_command(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pairs", made / "recipe.yaml", "--reward", "red", "--out", made / "told.jsonl", "--json"]
    monkeypatch.setattr("sys.argv", ["paretune", *map(str, words), "--limit", "1", "-n", "2"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    assert json.loads(capsys.readouterr().out)["lists"] == 1


# ---------------------------------------------------------------- a run of two kinds of experts


def mixed(folder: Path, pipeline: Path, pairs: Path) -> Path:
    """`dark` learns from the file by Diffusion-DPO, `red` by NFT."""
    path = tiny_recipe(folder, pipeline, methods=["mapreduce"])
    raw = yaml.safe_load(path.read_text())
    raw["rewards"]["dark"] |= {"objective": "diffusion_dpo", "pairs": str(pairs)}
    raw["objective"] = {"name": "nft", "others": {"diffusion_dpo": {"beta": 2000, "loser": 0.5}}}
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def whole(made: Path, tiny_sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixed run."""
    folder = tmp_path_factory.mktemp("mixed")
    done = call("run", mixed(folder, tiny_sd3, made / "list.jsonl"), "--out", folder / "run", "--quiet")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_mixed_run(whole: Path) -> None:
    summary = json.loads((whole / "run" / "summary.json").read_text())
    assert {"mapreduce", "expert:dark", "expert:red"} <= summary["methods"].keys()
    # Two rounds of two epochs: NFT draws two groups of three, and the file gives two lists.
    assert summary["budget"]["mapreduce"] == 2 * 2 * (2 * 3 + 2)
    rows = records(whole / "run" / "round-2" / "experts" / "dark" / "metrics.jsonl")
    assert [row["kept_groups"] for row in rows] == [2, 2]
    assert all("accuracy" in row and "reward" not in row for row in rows)
    assert "expert dark" in (whole / "run" / "report.html").read_text()


@pytest.mark.slow
def test_a_mixed_run_goes_on_bit_for_bit(whole: Path, tmp_path: Path) -> None:
    out, ready = tmp_path / "run", Path("round-1") / "experts" / "dark" / "checkpoints" / "epoch-0001"
    process = begin("run", whole / "recipe.yaml", "--out", out, "--quiet")
    deadline = time.monotonic() + 120
    while not (out / ready).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    assert process.wait(timeout=10).returncode == -signal.SIGKILL
    again = call("run", whole / "recipe.yaml", "--out", out, "--quiet", "--resume")
    assert again.returncode == 0, again.stderr
    final = Path("final") / "adapter_model.safetensors"
    assert (out / final).read_bytes() == (whole / "run" / final).read_bytes()
