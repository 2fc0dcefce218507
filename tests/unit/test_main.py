"""The entry point of the command."""

import sys

import pytest

from paretune import __main__ as entry


class Interrupted:
    """Finds `paretune.cli.app` and is interrupted, as by Ctrl-C in the middle of an import."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "paretune.cli.app":
            raise KeyboardInterrupt


def test_ctrl_c_while_the_libraries_load_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "paretune.cli.app", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
        entry.main()
    assert isinstance(ended.value, SystemExit)
    assert ended.value.code == 130
