"""`paretune tokens` on a run that another process works in."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretune.commands.add_tokens import add_tokens
from paretune.stages.claim import lock
from paretune.types import ParetuneError
from tests.made_run import make_run, make_tokens


def test_nothing_of_a_run_in_use_is_touched(tiny_sd3: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tiny_sd3)
    make_tokens(run, tiny_sd3)

    def held() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"}

    before = held()
    with lock(run), pytest.raises(ParetuneError, match="another process is working"):
        add_tokens(run, ["tokens.steps=1"], lambda _: None)
    assert held() == before
    with pytest.raises(ParetuneError, match="holds no finished run"):
        add_tokens(tmp_path, [], lambda _: None)
    assert not (tmp_path / ".lock").exists()
