"""Trackers: what they are told of a run, once, whatever is resumed; with a real TensorBoard."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from paretune.config import RunConfig
from paretune.files import read_json, write_rows
from paretune.recipes import changed_keys, parse_config
from paretune.tracking.board import Board
from paretune.tracking.run import tracked
from paretune.tracking.table import KINDS, check_trackers
from paretune.types import ParetuneError

REWARD = {"reward": "pictures.ocr", "prompts": "a", "eval_prompts": "b"}
OCR = "round-1/experts/ocr"


def config(*trackers: str) -> RunConfig:
    return parse_config({"name": "mine", "trackers": list(trackers), "rewards": {"ocr": REWARD}}, "x")


def told(out: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar that TensorBoard's files hold: (step, value), as often as it was told."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted((out / "trackers" / "tensorboard" / "mine").glob("events.*")):
        events = EventAccumulator(str(file), {"scalars": 0, "images": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, []).extend((e.step, round(e.value, 4)) for e in events.Scalars(tag))
        for tag in events.Tags()["images"]:
            found.setdefault(tag, []).extend((e.step, e.width) for e in events.Images(tag))
    return found


def epoch(update: int, **values: float) -> dict[str, Any]:
    return {"folder": OCR, "epochs": 4, "update": update, "reward": update / 4, "loss": 1.0, **values}


def test_each_expert_is_reported_under_its_name(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    with tracked(config("tensorboard"), tmp_path) as tracking:
        report = tracking.watching(seen.append)
        report({"stage": "map", "method": "mapreduce", "round": 1})
        report(epoch(1))
        report({**epoch(1), "folder": "round-1/experts/geneval", "loss": float("nan")})
        report(epoch(2))
        report({"stage": "reduce", "method": "mapreduce", "round": 1, "cosines": [0.5], "spread": 2.0,
                "contraction": None})  # fmt: skip
    assert len(seen) == 5
    found = told(tmp_path)
    assert found[f"{OCR}/reward"] == [(1, 0.25), (2, 0.5)]
    assert found["round-1/experts/geneval/reward"] == [(1, 0.25)]
    assert "round-1/experts/geneval/loss" not in found
    assert found["rounds/mapreduce/ocr"] == [(1, 0.5)]
    assert found["rounds/mapreduce/geneval"] == [(1, 0.25)]
    assert found["rounds/mapreduce/cosine-0"] == [(1, 0.5)]
    assert "rounds/mapreduce/contraction" not in found


def test_a_resumed_run_doubles_no_step_and_catches_up(tmp_path: Path) -> None:
    with tracked(config("tensorboard"), tmp_path) as tracking:
        report = tracking.watching(lambda event: None)
        report(epoch(1))
        report(epoch(2))
    first = read_json(tmp_path / "trackers.json")["id"]
    # It was killed after epoch 3 had been written, and goes on from the checkpoint of epoch 1.
    rows = [{"update": i, "reward": i / 4, "loss": 1.0} for i in range(1, 6)]
    write_rows(tmp_path / OCR / "metrics.jsonl", rows)
    with tracked(config("tensorboard"), tmp_path) as tracking:
        report = tracking.watching(lambda event: None)
        report(epoch(2))
        report(epoch(4))
        report({"folder": OCR, "epochs": 5, "update": 5})  # finished already
        report({"stage": "reduce", "method": "soup", "round": 1})
        report({"folder": "evaluation/base", "epochs": 1, "update": 1})
    assert told(tmp_path)[f"{OCR}/reward"] == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0), (5, 1.25)]
    assert told(tmp_path)["rounds/soup/ocr"] == [(1, 1.25)]
    assert read_json(tmp_path / "trackers.json")["id"] == first
    written = list((tmp_path / "trackers").rglob("hparams.yml"))
    assert len(written) == 1  # the recipe, once
    assert "rewards.ocr.reward: pictures.ocr" in written[0].read_text()


def test_pictures_and_the_front_are_shown(tmp_path: Path) -> None:
    shown = tmp_path / OCR / "shown"
    shown.mkdir(parents=True)
    for i in range(2):
        Image.new("RGB", (8, 6), "red").save(shown / f"epoch-0002-{i}.png")
    summary = {
        "rounds": [{"round": 1, "means": {"ocr": 0.5}, "hypervolume": 0.2},
                   {"round": 3, "means": {"ocr": 0.75}, "hypervolume": 0.3}],
        "methods": {"base": {"ocr": 0.25}, "expert:ocr": {"ocr": 1.0}}, "hypervolume": {"base": 0.0},
    }  # fmt: skip
    for _ in range(2):
        with tracked(config("tensorboard"), tmp_path) as tracking:
            report = tracking.watching(lambda event: None)
            report(epoch(1))
            report(epoch(2))
            tracking.front(summary)
    found = told(tmp_path)
    assert found[f"{OCR}/samples"] == [(2, 16)]  # both side by side
    assert found["front/ocr"] == [(1, 0.5), (3, 0.75)]  # of many rounds some are measured
    assert found["front/hypervolume"] == [(1, 0.2), (3, 0.3)]
    assert found["measured/expert-ocr/ocr"] == [(3, 1.0)]


def test_without_trackers_nothing_is_made(tmp_path: Path) -> None:
    def report(event: dict[str, Any]) -> None: ...

    with tracked(config(), tmp_path) as tracking:
        assert tracking.watching(report) is report
        tracking.front({})
        tracking.plots()
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paretune.tracking.table.find_spec", lambda name: None)
    with pytest.raises(ParetuneError, match=r"^trackers: swanlab is not installed: pip install swanlab, or"):
        check_trackers(["swanlab"])


def test_a_tracker_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "trackers").write_text("a file")
    with pytest.raises(ParetuneError, match=r"trackers: tensorboard does not start: "), \
            tracked(config("tensorboard"), tmp_path):
        pass


def test_a_tracker_that_fails_later_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = Board(["tensorboard"], "mine", "1", tmp_path)

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("gone\naway")

    board._open["tensorboard"].log = fail
    for step in (1, 2):
        board.scalars("x", {"y": 1.0}, step)
    board.close()
    assert capsys.readouterr().err == (
        "note: tracker tensorboard failed and is told no more: ConnectionError: gone away\n"
    )


def test_a_damaged_state_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "trackers.json").write_text(json.dumps([1]))
    with pytest.raises(ParetuneError, match=r"trackers.json cannot be read: delete it"), \
            tracked(config("tensorboard"), tmp_path):
        pass


def test_wandb_gets_a_step_for_each_group_and_all_keep_their_id(tmp_path: Path) -> None:
    assert not KINDS["wandb"].stepped
    options = KINDS["wandb"].options("mine", "12ab", tmp_path)
    assert (options["id"], options["resume"], options["name"]) == ("12ab", "allow", "mine")
    assert KINDS["trackio"].options("mine", "12ab", tmp_path)["name"] == "mine-12ab"


def test_trackers_are_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    assert changed_keys(config(), config("tensorboard")) == []
    with pytest.raises(ParetuneError, match=r"trackers.0: Input should be 'tensorboard', 'wandb'"):
        config("tensorbord")
