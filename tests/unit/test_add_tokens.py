"""`paretune tokens` on a run that another process works in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paretune.commands import add_tokens as command
from paretune.commands.add_tokens import add_tokens
from paretune.records import seal
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


def _refuse(error: BaseException) -> Any:
    def refuse(*words: Any, **named: Any) -> None:
        raise error

    return refuse


def test_a_refusal_or_a_kill_leaves_a_run_that_can_be_read(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine may have no such device; and what ends the command before the run begins."""
    run = make_run(tmp_path / "run", tiny_sd3)
    seal.finish(run)
    recipe = (run / "config.yaml").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(command, "choose_device", _refuse(ParetuneError("this machine has no GPU")))
        with pytest.raises(ParetuneError, match="no GPU"):
            add_tokens(run, ["tokens.steps=1"], lambda _: None, trust_rewards=True)
    assert (run / "config.yaml").read_bytes() == recipe
    seal.check_run(run, verify=True)
    with monkeypatch.context() as patch:
        patch.setattr(command, "run", _refuse(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            add_tokens(run, ["tokens.steps=1"], lambda _: None, trust_rewards=True)
        with pytest.raises(KeyboardInterrupt):  # the same command goes on
            add_tokens(run, ["tokens.steps=1"], lambda _: None, trust_rewards=True)
    assert b"steps: 1" in (run / "config.yaml").read_bytes()
    seal.check_run(run)
