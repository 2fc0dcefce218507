"""`paretune merge` and `fold` as typed: every option arrives, every mistake is one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from paretune.adapters.inputs import open_adapter
from paretune.adapters.read import read_adapter
from paretune.adapters.write import write_adapter
from paretune.models.detect import family_of
from paretune.ops.lowrank import LowRank
from paretune.ops.merging import REDUCERS
from paretune.types import ParetuneError

from .test_cli import COMMANDS, call


@pytest.fixture
def merge(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run `paretune merge a b --out out WORDS`; gives back the exit code, stdout and stderr.

    a and b change the module `m` by diag(1, 0) and diag(0, 2); b names another base.
    """
    for name, diagonal in (("a", [1.0, 0.0]), ("b", [0.0, 2.0])):
        delta = LowRank(torch.diag(torch.tensor(diagonal)), torch.eye(2))
        write_adapter(tmp_path / name, {"m": delta}, "org/base")
    monkeypatch.chdir(tmp_path)

    def run(*words: str, out: str = "out") -> tuple[int, str, str]:
        return call(monkeypatch, capsys, "merge", "a", "b", "--out", out, *words)

    return run


def facts(folder: str = "out") -> dict[str, Any]:
    return json.loads((Path(folder) / "provenance.json").read_text())


def dense(folder: str = "out") -> list[list[float]]:
    return read_adapter(folder)["m"].dense().tolist()


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("--method ties --option density=0.5", {"density": 0.5}),
        ("--method dare --option density=0.9 --option seed=3", {"density": 0.9, "seed": 3}),
        ("--method dare-q --option density=1 --option q=0.5", {"density": 1.0, "q": 0.5}),
        ("--method nesterov --option momentum=0.5 --option outer_lr=1", {"momentum": 0.5, "outer_lr": 1.0}),
    ],
)
def test_options_arrive(merge: Any, words: str, options: dict[str, float]) -> None:
    code, out, err = merge(*words.split())
    assert (code, err) == (0, "")
    assert out.startswith("out: 1 modules of rank ")
    assert facts()["options"] == options


def test_dare_q_as_typed(merge: Any) -> None:
    merge("--method", "dare-q", "--option", "density=1", "--option", "q=0.5", "--weights", "1,3")
    assert dense() == [[0.5, 0.0], [0.0, 3.0]]


def test_energy_and_base_model(merge: Any) -> None:
    """The mean's singular values are 1 and 1/2."""
    assert merge("--energy", "0.8", "--base-model", "org/other")[0] == 0
    adapter = read_adapter("out")
    assert (adapter.rank("m"), adapter.base_model) == (1, "org/other")


def test_state_carries_nesterov_on(merge: Any) -> None:
    words = ("--method", "nesterov", "--option", "momentum=0.5", "--option", "outer_lr=1")
    merge(*words, out="one")
    assert merge(*words, "--state", "one", out="two")[0] == 0
    # ΔW̄ = diag(½, 1) both times: 1.5 ΔW̄, then 1.5 ΔW̄ + 0.25 ΔW̄.
    assert dense("one") == [[0.75, 0.0], [0.0, 1.5]]
    assert dense("two") == [[0.875, 0.0], [0.0, 1.75]]


def test_a_format_keeps_the_momentum_and_another_adapter_is_none(merge: Any) -> None:
    words = ("--method", "nesterov", "--option", "momentum=0.5", "--option", "outer_lr=1")
    merge(*words, "--format", "peft", out="one")
    for number, state in enumerate(("one", "one/momentum")):
        assert merge(*words, "--state", state, out=f"two-{number}")[0] == 0
        assert dense(f"two-{number}") == [[0.875, 0.0], [0.0, 1.75]]
    code, _, err = merge(*words, "--state", "a", out="three")
    assert (code, "--state a holds no momentum/: give the folder that nesterov wrote" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--method ties --option densty=1", "no option densty; it takes: density (did you mean density?)"),
        ("--method ties --option density", "--option wants NAME=VALUE, such as density=0.5, not 'density'"),
        ("--method ties --option =1", "--option wants NAME=VALUE"),
        ("--method ties --option density=much", "density much cannot be used; it lies in (0, 1]"),
        ("--option density=0.5", "the method exact has no option density; it takes: none"),
        ("--option out=x", "the method exact has no option out"),
        ("--method nesterov --option state=a", "no option state; it takes: momentum, outer_lr"),
        ("--method dare --option seed=1.5", "seed 1.5 cannot be used; it is a whole number"),
        ("--method teis", "unknown merge method teis; there are exact, compressed"),
        ("--method search", "name the recipe that has the model and the rewards, --by RECIPE"),
        ("--method search --option divisions=2", "--by RECIPE"),
        ("--method distil", "distil trains a student on prompts: it is for runs alone"),
        ("--method ties --by quickstart", "--by is for --method search"),
        ("--method search --by quickstart --weights 1,2", "which finds the weights"),
        ("--method search --by nowhere", "nowhere"),
        ("--method search --by quickstart --set seeed=1", "seeed"),
        ("--method search --by quickstart", "which the model does not have: it is for another model"),
        ("--method min-norm --weights 1,2", "min-norm finds the weights itself; leave them out"),
        ("--state a", "the method exact has no option state; it takes: none"),
        ("--method nesterov --state gone", "gone"),
        ("--rank 1 --energy 0.5", "give either a rank or an energy"),
        ("--weights 1e308,1e308", "the weights are too large to sum"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(merge: Any, words: str, told: str) -> None:
    code, out, err = merge(*words.split())
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert told in line
    assert sorted(p.name for p in Path().iterdir()) == ["a", "b"]


@pytest.mark.parametrize("out", ["a/adapter_config.json/out", "a/adapter_config.json/x/out", "n" * 300])
def test_a_place_where_no_folder_can_be_is_one_line(
    merge: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    code, _, err = merge(out=out)
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"cannot write {out}: " in err
    save_file({"m.weight": torch.zeros(2, 2)}, Path("base.safetensors"))
    Path("base").mkdir()
    Path("base.safetensors").rename("base/model.safetensors")
    code, _, err = call(monkeypatch, capsys, "fold", "base", "a", "--out", out)
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"cannot write {out}: " in err
    assert sorted(p.name for p in Path().iterdir()) == ["a", "b", "base"]


@pytest.mark.parametrize(
    ("out", "index", "told"),
    [
        ("base/sub/out", None, "the output base/sub/out lies in the base base"),
        ("out", {"weight_map": {"m.weight": 1}}, "is not a readable weight index"),
    ],
)
def test_a_fold_that_cannot_be_is_one_line(
    merge: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    out: str, index: Any, told: str,
) -> None:  # fmt: skip
    Path("base").mkdir()
    save_file({"m.weight": torch.zeros(2, 2)}, Path("base/model.safetensors"))
    if index is not None:
        Path("base/model.safetensors.index.json").write_text(json.dumps(index))
    code, _, err = call(monkeypatch, capsys, "fold", "base", "a", "--out", out)
    assert (code, len(err.splitlines())) == (2, 1)
    assert told in err
    assert not Path(out).parent.is_dir() or out == "out"
    assert sorted(p.name for p in Path().iterdir()) == ["a", "b", "base"]


def test_a_hub_that_cannot_be_reached_is_one_line(merge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a client below it is neither an OSError nor a ValueError."""
    import huggingface_hub

    class ConnectError(Exception):
        pass

    def unreachable(*_: object) -> None:
        raise ConnectError("[Errno -3] Temporary failure in name resolution\nmore")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", unreachable)
    with pytest.raises(ParetuneError, match=r"no adapter at org/lora, .*: \[Errno -3\].*resolution$"):
        open_adapter("org/lora")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(ParetuneError, match=r"the hub does not give org/nowhere: \[Errno -3\].*resolution$"):
        family_of("org/nowhere")


def test_the_help_names_every_method_and_option() -> None:
    told = {p.name: p.help for p in COMMANDS["merge"].params}
    for method, reducer in REDUCERS.items():
        assert method in told["method"]
        if method != "distil":  # of runs alone
            assert all(f"{name} " in told["option"] for name in reducer.settings()), method
    base = next(p for p in COMMANDS["fold"].params if p.name == "base")
    assert "local folder" in base.help


def test_the_page_on_merging_tells_every_method_and_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "merging.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert set(rows) == set(REDUCERS)
    for method, reducer in REDUCERS.items():
        assert all(f"`{name}`" in rows[method] for name in reducer.settings()), method


def test_a_base_that_is_no_folder(
    merge: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(monkeypatch, capsys, "fold", "org/base", "a", "--out", "folded")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "the base org/base is not a folder: fold reads local files alone" in err


def test_what_a_killed_merge_left_is_removed_by_the_next(merge: Any) -> None:
    code = (
        "import os, signal\n"
        "from paretune.adapters import write as adapter_writer\n"
        "from paretune.adapters.merge import merge_adapters\n"
        "adapter_writer.TensorSpool.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "merge_adapters(['a', 'b'], out='out')"
    )
    killed = subprocess.run([sys.executable, "-c", code], env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    assert [p.name for p in Path().glob(".out.*.partial")]
    assert merge()[0] == 0
    assert sorted(p.name for p in Path().iterdir()) == ["a", "b", "out"]
