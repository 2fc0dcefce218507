"""What every command has: the same words for the same things, one line for a wrong one, and completion."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from paretune.cli import app as cli
from tests.integration.commands import call as start

GROUP: Any = typer.main.get_command(cli.app)
COMMANDS: dict[str, Any] = GROUP.commands
READ_RECIPES = {
    "quickstart", "run", "plan", "eval", "tokens", "merge", "pairs", "init", "doctor", "sft", "tune",
    "advise", "check-rewards",
}


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    """Exit code, stdout and stderr of `paretune WORDS`."""
    monkeypatch.setattr(sys, "argv", ["paretune", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return (left.value.code, *capsys.readouterr())


def options_of(command: str) -> dict[str, Any]:
    return {name: p for p in COMMANDS[command].params for name in p.opts}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_shared_options_are_on_every_command_and_mean_the_same(command: str) -> None:
    own = options_of(command)
    assert own["--quiet"].help == "Print nothing but the result."
    assert own["--json"].help == "Print JSON, for machines."
    assert ("--set" in own) == (command in READ_RECIPES)
    if command in READ_RECIPES - {"tokens"}:
        assert own["--set"].help == "Override a key: --set train.epochs=4. May be repeated."


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["plan", "smoke", "--measur"], "no such option: --measur; did you mean --measure? See `paretune"),
        (["run", "smoke", "--xyzzy"], "no such option: --xyzzy. See `paretune run --help`"),
        (["merge", "a", "--sett", "x=1"], "no such option: --sett; did you mean --set? See `paretune"),
        (["plan"], "missing argument RECIPE. See `paretune plan --help`"),
        (["export", "x"], "missing option --out. See `paretune export --help`"),
        (["merge", "a", "b", "--out", "c", "--rank", "x"], "invalid value for '--rank': "),
        (["demo", "x", "--port", "1.5"], "invalid value for '--port': "),
        (["run", "smoke", "--set"], "option '--set' requires an argument. See `paretune run --help`"),
        (["plan", "smoke", "more"], "got unexpected extra argument"),
        (["plna", "smoke"], "no such command 'plna'. Did you mean 'plan'? See `paretune --help`"),
        (["xyzzy"], "no such command 'xyzzy'. See `paretune --help`"),
        (["--verbose"], "no such option: --verbose. See `paretune --help`"),
        (["plan", "--a\nb"], "no such option: --a b. See `paretune plan --help`"),
        (["merge", "a", "b", "--out", "c", "--set", "x=1"], "--set overrides a key of the recipe that --by"),
    ],
)  # fmt: skip
def test_wrong_words_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    code, out, err = call(monkeypatch, capsys, *words)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"error: {told}")


def test_no_words_at_all_are_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(monkeypatch, capsys)
    assert code == 0
    assert "Usage: paretune" in out


@pytest.fixture
def adapters(tmp_path: Path) -> list[Path]:
    """Two peft adapters of one module, and a base model's file that they fit."""
    import torch
    from safetensors.torch import save_file

    made = []
    for name, value in (("a", 1.0), ("b", 2.0)):
        folder = tmp_path / name
        folder.mkdir()
        facts = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q"],
                 "base_model_name_or_path": "base"}  # fmt: skip
        (folder / "adapter_config.json").write_text(json.dumps(facts))
        stem = "base_model.model.layers.q"
        save_file(
            {f"{stem}.lora_A.weight": torch.full((1, 3), value), f"{stem}.lora_B.weight": torch.ones(4, 1)},
            folder / "adapter_model.safetensors",
        )
        made.append(folder)
    return made


@pytest.mark.parametrize("quiet", [False, True])
def test_merge_and_inspect_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    adapters: list[Path], quiet: bool,
) -> None:  # fmt: skip
    flags = ["--json", *(["--quiet"] if quiet else [])]
    code, out, err = call(monkeypatch, capsys, "merge", *adapters, "--out", tmp_path / "merged", *flags)
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["folder"] == str(tmp_path / "merged")
    assert (told["method"], told["weights"], told["modules"]) == ("exact", [0.5, 0.5], 1)
    assert told["relative_error"] < 1e-6
    code, out, err = call(monkeypatch, capsys, "inspect", *adapters, *flags)
    assert (code, err) == (0, "")
    assert json.loads(out)["cosines"][0][1] == pytest.approx(1.0)


def test_merge_without_json_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, adapters: list[Path]
) -> None:
    _, out, err = call(monkeypatch, capsys, "merge", *adapters, "--out", tmp_path / "merged", "--quiet")
    assert (len(out.splitlines()), err) == (1, "")


@pytest.mark.parametrize("words", [("doctor",), ("plan", "smoke"), ("init", "smoke")])
def test_json_is_one_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    _, out, err = call(monkeypatch, capsys, *words, "--json", "--quiet")
    assert json.loads(out)
    assert err == ""


def test_sft_hands_its_options_on_and_tells_the_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: list[Any] = []

    def supervise(
        config: Any, out: Path, epochs: float, *, limit: int, side: str, adapter_alone: bool, quiet: bool
    ) -> int:
        asked.append((config.lora.rank, out, epochs, limit, side, adapter_alone, quiet))
        return 12

    monkeypatch.setattr("paretune.training.language.supervised.supervise", supervise)
    words = ("sft", "assistant", "--out", tmp_path / "new", "--epochs", "0.5", "--limit", "6",
             "--set", "lora.rank=3")  # fmt: skip
    code, out, err = call(monkeypatch, capsys, *words, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"model": str(tmp_path / "new"), "answers": 12}
    assert asked == [(3, tmp_path / "new", 0.5, 6, "chosen", False, True)]
    code, out, err = call(monkeypatch, capsys, *words, "--quiet")
    assert (out, err) == (f"model: {tmp_path / 'new'} (fine-tuned on 12 answers)\n", "")


def test_completion_names_commands_options_and_recipes() -> None:
    def complete(*words: str) -> list[str]:
        asked = {
            "_PARETUNE_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }  # fmt: skip
        return start(environment={**os.environ, **asked}).stdout.split()

    assert "plan" in complete("paretune", "pl")
    assert "--measure" in complete("paretune", "plan", "--me")
    assert complete("paretune", "plan", "quick") == ["quickstart"]
