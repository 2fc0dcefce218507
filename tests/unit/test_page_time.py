"""The command that times the page."""

from __future__ import annotations

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from tests.made_run import make_run

FILE = Path(__file__).parents[2] / "benchmarks" / "page_time.py"


def test_the_first_and_a_changed_answer_are_timed(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_from_file_location("page_time", FILE)
    assert spec is not None
    assert spec.loader is not None
    timing = module_from_spec(spec)
    spec.loader.exec_module(timing)
    run = make_run(tmp_path / "run", tiny_sd3)
    monkeypatch.setattr(sys, "argv", ["page_time.py", str(run)])
    timing.main()
    lines = capsys.readouterr().out.splitlines()
    names = [line.partition(":")[0] for line in lines]
    assert names == ["loading", "first answer", "moved slider", "new prompt"]
    assert all(re.fullmatch(r".*: \d+\.\d\d s, of one core \d+\.\d\d s", line) for line in lines)
    monkeypatch.setattr(sys, "argv", ["page_time.py", str(tiny_sd3)])
    with pytest.raises(SystemExit) as left:
        timing.main()
    assert left.value.code == 2
    assert "is a model, not a run" in capsys.readouterr().err
