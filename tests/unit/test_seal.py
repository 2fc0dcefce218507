"""The seal of a run: whatever changed since is named by every command that reads the run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from paretune.adapters.merge import merge_adapters
from paretune.commands.add_tokens import add_tokens
from paretune.commands.export import export_adapter, export_pipeline
from paretune.commands.measure import measure_adapters
from paretune.demo.serving import open_answers
from paretune.recipes import load_config
from paretune.records import seal
from paretune.records.manifest import read_manifest, write_manifest
from paretune.report import write_report
from paretune.report.compare import compare_runs
from paretune.sampling.command import sample_folder
from paretune.types import ParetuneError
from tests.damage import DAMAGES, copy, flip, set_value, swap
from tests.made_run import make_run, make_tokens


@pytest.fixture(scope="module")
def base(tiny_sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of these tests' own: some damage it."""
    return Path(shutil.copytree(tiny_sd3, tmp_path_factory.mktemp("base") / "pipeline"))


@pytest.fixture(scope="module")
def sealed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed run with tokens. Read it; to change it, take a copy."""
    run = make_run(tmp_path_factory.mktemp("made") / "run", base)
    make_tokens(run, base)
    seal.begin(run, base)
    seal.finish(run)
    return run


@pytest.fixture
def run(sealed: Path, tmp_path: Path) -> Path:
    """A copy, sizes and times and all."""
    return Path(shutil.copytree(sealed, tmp_path / "run"))


def refusal(work: Callable[[], object]) -> str:
    """The one line with which something is refused."""
    with pytest.raises(ParetuneError) as caught:
        work()
    (line,) = str(caught.value).splitlines()
    return line


def test_a_whole_run_passes_without_hashing(run: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paretune.records.seal.fault_of", lambda *_: pytest.fail("hashed"))
    seal.check_run(run, base=base)


def test_a_copy_with_other_times_passes_by_its_hashes(sealed: Path, base: Path, tmp_path: Path) -> None:
    seal.check_run(copy(sealed, tmp_path / "copy"), base=base)


def test_what_is_sealed(sealed: Path) -> None:
    names = set(json.loads((sealed / "seal.json").read_text())["files"])
    assert names >= {
        "config.yaml", "summary.json", "evaluation.jsonl", "final/manifest.json",
        "final/adapter_model.safetensors", "final/tokens/red/text_encoder.safetensors",
        "round-2/experts/dark/manifest.json", "round-1/merged/adapter_config.json",
    }  # fmt: skip
    assert not any("checkpoints" in name or name.startswith((".", "report")) for name in names)


@pytest.mark.parametrize("damage", [d for d in DAMAGES if d != "delete"])
def test_every_file_is_named_when_it_is_damaged(run: Path, damage: str) -> None:
    names = list(json.loads((run / "seal.json").read_text())["files"])
    assert len(names) > 20
    for name in names:
        path, before = run / name, (run / name).read_bytes()
        DAMAGES[damage](path)
        assert refusal(lambda: seal.check_run(run)).startswith(f"{path} "), name
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        path.write_bytes(before)
    seal.check_run(run)


def test_only_verify_sees_a_change_that_keeps_size_and_time(run: Path) -> None:
    path = run / "final" / "tokens" / "dark" / "text_encoder.safetensors"
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    seal.check_run(run)
    assert refusal(lambda: seal.check_run(run, verify=True)) == (
        f"{path} was changed or damaged (its hash differs); delete {run}/final and `paretune run ... --out "
        f"{run} --resume` makes it again"
    )


READERS: dict[str, Callable[[Path, Path], object]] = {
    "sample": lambda run, out: sample_folder(str(run), ["a kite"], out, method="base", count=1),
    "demo": lambda run, out: open_answers(run),
    "export": lambda run, out: export_adapter(run, out, None),
    "export --pipeline": lambda run, out: export_pipeline(run, out),
    "report": lambda run, out: write_report(run),
    "compare": lambda run, out: compare_runs([str(run)]),
    "tokens": lambda run, out: add_tokens(run, (), lambda _: None),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_command_that_reads_a_run_checks_it(run: Path, tmp_path: Path, reader: str) -> None:
    """The seal is one: even a file that the command itself does not read."""
    for name in ("evaluation.jsonl", "summary.json", "round-1/experts/red/manifest.json",
                 "final/tokens/red/text_encoder_2.safetensors"):  # fmt: skip
        before = (run / name).read_bytes()
        flip(run / name)
        told = refusal(lambda: READERS[reader](run, tmp_path / "out"))
        assert told.startswith(f"{run / name} was changed or damaged"), name
        (run / name).write_bytes(before)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("reader", ["sample", "demo", "export", "export --pipeline"])
def test_the_base_is_checked_where_it_is_read(run: Path, base: Path, tmp_path: Path, reader: str) -> None:
    weights = base / "transformer" / "diffusion_pytorch_model.safetensors"
    before = weights.read_bytes()
    try:
        flip(weights, 0.99)
        told = refusal(lambda: READERS[reader](run, tmp_path / "out"))
    finally:
        weights.write_bytes(before)
    assert told == (
        f"{weights} was changed or damaged (its hash differs) since {run} was made with it; put the base "
        "model back as it was"
    )


def test_an_adapter_of_a_run_is_checked(run: Path, tmp_path: Path) -> None:
    config = load_config(run / "config.yaml")
    adapters = [run / "round-1" / "experts" / name for name in ("red", "dark")]
    flip(adapters[1] / "adapter_model.safetensors", 0.99)
    told = f"{adapters[1]}/adapter_model.safetensors was changed or damaged (its hash differs)"
    assert refusal(lambda: measure_adapters(config, adapters, tmp_path / "o", print)).startswith(told)
    assert refusal(lambda: merge_adapters(list(map(str, adapters)), None, "exact", out=tmp_path / "m")) \
        .startswith(told)


def test_swapped_experts_are_seen_with_a_seal_and_without(run: Path, tmp_path: Path) -> None:
    a, b = (run / "round-2" / "experts" / name for name in ("red", "dark"))
    swap(a, b)
    ask = {"method": "mix", "prefer": "red=1", "count": 1}
    told = refusal(lambda: sample_folder(str(run), ["a kite"], tmp_path / "out", **ask))
    assert "round-2/experts" in told
    assert "was changed or damaged" in told


def test_a_manifest_stands_in_its_place(tmp_path: Path) -> None:
    from paretune.records.manifest import finished

    for name in ("ocr", "geneval"):
        folder = tmp_path / "round-2" / "experts" / name
        folder.mkdir(parents=True)
        write_manifest(folder, "expert", "same", [], place=f"round-2/experts/{name}")
    a, b = (tmp_path / "round-2" / "experts" / name for name in ("ocr", "geneval"))
    assert finished(a, "expert", "same") is not None
    swap(a, b)
    assert refusal(lambda: finished(a, "expert", "same")) == (
        f"{a} was made from other inputs: it is round-2/experts/geneval of a run; put it back, or delete it "
        "and resume to make it again"
    )


def test_a_fact_of_a_manifest_is_sealed(tmp_path: Path) -> None:
    write_manifest(tmp_path, "evaluation", "abc", [], scales=[{"high": None}])
    assert read_manifest(tmp_path)["scales"] == [{"high": None}]
    set_value(tmp_path / "manifest.json", ["scales", 0, "high"], 4.0)
    assert refusal(lambda: read_manifest(tmp_path)) == (
        f"{tmp_path}/manifest.json was changed or damaged; delete {tmp_path} and resume to make it again"
    )


def test_a_run_without_a_seal_is_read_and_not_verified(run: Path) -> None:
    (run / "seal.json").unlink()
    flip(run / "summary.json")
    seal.check_run(run)
    assert f"{run} is not sealed" in refusal(lambda: seal.check_run(run, verify=True))


@pytest.mark.parametrize("damage", [d for d in DAMAGES if d != "delete"])
def test_a_damaged_seal_is_named(run: Path, damage: str) -> None:
    DAMAGES[damage](run / "seal.json")
    assert refusal(lambda: seal.check_run(run)).startswith(f"{run}/seal.json is damaged; delete it")


def test_a_run_that_goes_on_keeps_the_seal_of_its_base_alone(run: Path, base: Path) -> None:
    seal.begin(run, base)
    table = json.loads((run / "seal.json").read_text())
    assert table["files"] == {}
    assert "transformer/diffusion_pytorch_model.safetensors" in table["base"]
    flip(run / "summary.json")  # it is made again
    seal.check_run(run)


def test_what_was_removed_is_missed_by_who_needs_it(run: Path) -> None:
    (run / "evaluation.jsonl").unlink()
    shutil.rmtree(run / "round-1" / "experts")
    seal.check_run(run, needed=("config.yaml", "final"))
    told = refusal(lambda: seal.check_run(run, needed=("evaluation.jsonl",)))
    assert told.startswith(f"{run}/evaluation.jsonl is missing; ")
    (run / "final" / "tokens" / "red" / "text_encoder_2.safetensors").unlink()
    assert "text_encoder_2.safetensors is missing" in refusal(lambda: seal.check_run(run, needed=("final",)))
