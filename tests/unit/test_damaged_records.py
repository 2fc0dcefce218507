"""Damaged records of runs without a seal: one line that names the file, or a right result; nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paretune.demo.front import read_front
from paretune.files import read_json, read_rows
from paretune.records.read import read_candidates, read_evaluation, read_summary, read_timing
from paretune.report import page, write_report
from paretune.report.compare import compare_runs
from paretune.run import Clock
from paretune.types import ParetuneError
from tests.damage import DAMAGES, WRONG, copy, set_value
from tests.unit.test_report import write_run

RECORDS = (
    "config.yaml", "plan.json", "environment.json", "summary.json", "evaluation.jsonl", "samples/index.json",
    "samples/base/ocr-000.png", "round-1/merged/diagnostics.json", "round-2/experts/ocr/metrics.jsonl",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return copy(made, tmp_path / "run")


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page without its plots, which take seconds; those of damaged figures are in the slow tests."""
    monkeypatch.setattr(page, "all_plots", lambda run: [])


READERS: dict[str, Callable[[Path], object]] = {
    "report": write_report,
    "compare": lambda run: compare_runs([str(run)], draws=10),
    "front": lambda run: read_front(run, dict.fromkeys(("geneval", "ocr", "preference"), 1 / 3)),
}


def outcome(work: Callable[[], object], told_of: Path) -> str | None:
    """None if it works, else the one line, which names the file that was damaged."""
    try:
        work()
    except ParetuneError as error:
        (line,) = str(error).splitlines()
        assert str(told_of) in line or told_of.name in line, line
        return line
    return None


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_one_line_or_not_needed(run: Path, damage: str) -> None:
    for name in RECORDS:
        path, before = run / name, (run / name).read_bytes()
        DAMAGES[damage](path)
        for reader, read in READERS.items():
            outcome(lambda read=read: read(run), path)
            if reader != "report" and name not in {"summary.json", "evaluation.jsonl"}:
                assert outcome(lambda read=read: read(run), path) is None
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        path.write_bytes(before)


def places(value: Any, before: tuple[str | int, ...] = ()) -> Iterator[list[str | int]]:
    """The way to every value of a JSON value, of lists to the first two."""
    if before:
        yield list(before)
    inner = dict(enumerate(value[:2])) if isinstance(value, list) else value
    for key, one in inner.items() if isinstance(inner, dict) else ():
        yield from places(one, (*before, key))


@pytest.mark.parametrize("name", ["summary.json", "samples/index.json", "round-1/merged/diagnostics.json"])
@pytest.mark.usefixtures("_quick")
def test_a_wrong_value_is_one_line_or_shown(run: Path, name: str) -> None:
    """One of the values at every third place: tests/fuzz has the others."""
    path, before = run / name, (run / name).read_bytes()
    for number, keys in enumerate(list(places(json.loads(before)))[::3]):
        path.write_bytes(before)
        set_value(path, keys, WRONG[number % len(WRONG)])
        for reader in READERS.values():
            outcome(lambda reader=reader: reader(run), path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"phase": "map"}\n', "a row has no 'seconds' (line 1)"),
        ('{"phase": "map", "seconds": 1}\n{"phase": "map", "seconds": "1"}\n', "line 2.seconds: input"),
        ('{"phase": "map", "seconds": NaN}\n', "line 1.seconds: input should be a finite number"),
        ('{"phase": "map", "seconds": -3}\n', "line 1.seconds: input should be greater than or equal to 0"),
        ('{"phase": 3, "seconds": 1}\n', "line 1.phase: input should be a valid string"),
    ],
)
def test_a_time_that_is_none_is_reported_and_how_to_go_on(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "timing.jsonl").write_text(text)
    with pytest.raises(ParetuneError) as caught:
        Clock(tmp_path)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path}/timing.jsonl is damaged: {told}")
    assert line.endswith("; delete it and resume: only the recorded times are lost")
    (tmp_path / "timing.jsonl").unlink()
    assert Clock(tmp_path).seconds() == {"total": 0}


def test_a_table_whose_last_line_is_cut_is_refused_where_nothing_says_so(run: Path) -> None:
    path = run / "evaluation.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ParetuneError, match="is damaged: its last line is cut off"):
        compare_runs([str(run)])


def test_figures_as_training_leaves_them_are_read(tmp_path: Path) -> None:
    """A loss may be NaN or infinite: that is no damage."""
    from paretune.records.read import read_metrics

    path = tmp_path / "metrics.jsonl"
    path.write_text('{"update": 1, "loss": Infinity, "reward": NaN, "kl": null}\n{"update": 2, "loss"')
    assert [row["update"] for row in read_metrics(path)] == [1]


@pytest.mark.parametrize("value", ["[" * 100_000, "[" * 200 + "]" * 200, '{"a": ' + "9" * 5000 + "}"])
def test_json_that_breaks_its_reader_is_damage(tmp_path: Path, value: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(value)
    with pytest.raises(ParetuneError, match=r"a\.json is missing or damaged"):
        read_json(path)
    path.write_text(value + "\n{}\n")
    with pytest.raises(ParetuneError, match="line 1 is not JSON"):
        read_rows(path)


def test_a_folder_in_the_place_of_rows_is_reported(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    for read in (read_rows, read_evaluation, read_timing, read_candidates, read_summary):
        with pytest.raises(ParetuneError, match=r"rows\.jsonl cannot be read: Is a directory"):
            read(tmp_path / "rows.jsonl")
