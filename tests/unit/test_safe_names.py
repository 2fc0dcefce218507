"""Names from outside never lead out of the folder they are joined to, and nothing of a user's is deleted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.commands import measure
from paretune.commands.add_tokens import add_tokens
from paretune.files import write_json, write_rows
from paretune.recipes import find_recipe, load_config
from paretune.records.manifest import below, finished, write_manifest
from paretune.records.names import folder_names, is_plain
from paretune.report import write_comparison
from paretune.report.canvas import Plot, blank, save
from paretune.report.compare import compare_runs
from paretune.report.read import read_run
from paretune.samples.files import save_sample
from paretune.stages.claim import claim_eval, lock
from paretune.stages.evaluate import Subject, collect
from paretune.stages.train_tokens import export_tokens
from paretune.training.checkpoint import TrainState, latest_checkpoint, save_checkpoint
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe
from tests.executing import InThisProcess
from tests.made_run import make_run, make_tokens
from tests.unit.test_compare import seeds


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---------------------------------------------------------------- names


def test_a_safe_path_keeps_its_text() -> None:
    assert folder_names([Path("runs/a/final"), Path("/x/final")]) == ("runs-a-final", "-x-final")


@pytest.mark.parametrize(
    "text",
    ["..", ".", "/", "../..", "../x", ".hidden", "a b", "a\nb", "a:b", "ä", "base", "Base", "round-1/merged",
     "mapreduce@1", "rate", "expert-x", "x" * 250, "a\\b", "$(touch x)", "\udcff"],
)  # fmt: skip
def test_any_other_name_is_legible_safe_and_its_own(text: str) -> None:
    (name,) = folder_names([Path(text)])
    assert is_plain(name)
    assert name.startswith("adapter-")
    assert name.isascii()
    assert len(name) <= 80
    assert folder_names([Path(text), Path("other")])[0] == name  # whatever else is measured
    Subject(name, text, (), 1, ())


def test_two_paths_of_one_text_are_two_folders_and_one_place_is_refused(tmp_path: Path) -> None:
    one, other = Path("a/b"), Path("a-b")
    first, second = folder_names([one, other])
    assert first != second
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ParetuneError, match="are the same adapter; give it once"):
        folder_names([tmp_path / "real", tmp_path / "link"])
    assert len(set(folder_names([Path("A"), Path("a")]))) == 2


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/", "a\0b"])
def test_no_model_is_measured_under_a_name_that_leads_elsewhere(name: str) -> None:
    with pytest.raises(ParetuneError, match="it is no folder's"):
        Subject(name, name, (), 1, ())


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", 7, None, "a\0b"])
def test_a_manifest_names_files_of_its_own_folder_alone(tmp_path: Path, name: Any) -> None:
    if name == "":
        return  # json keys are texts; the folder itself is no file and its hash differs
    with pytest.raises(ParetuneError, match="which is no file of its folder"):
        below(tmp_path, name)


def test_a_manifest_that_leads_out_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"stage": "final", "inputs": "x", "files": {"../a": "0"}})
    with pytest.raises(ParetuneError, match=r"manifest.json was changed or damaged"):
        finished(tmp_path, "final", "x")


def test_a_report_shows_no_file_from_elsewhere(tmp_path: Path) -> None:
    secret = tmp_path / "private"
    secret.mkdir()
    (secret / "dark-000.png").write_bytes(b"secret")
    run = tmp_path / "run"
    (run / "samples" / "base").mkdir(parents=True)
    (run / "config.yaml").write_text("")
    (run / "samples" / "base" / "dark-000.png").symlink_to(secret / "dark-000.png")
    index = {"prompts": [{"set": "dark", "index": 0, "text": "x"}], "methods": ["base"]}
    write_json(run / "samples" / "index.json", index)
    assert read_run(run).samples[0].files == {}
    for changed in ({"methods": [str(secret)]}, {"methods": ["../../private"]}):
        write_json(run / "samples" / "index.json", index | changed)
        with pytest.raises(ParetuneError, match=r"index.json is damaged: .* is no name of a sample"):
            read_run(run)


def test_a_samples_file_keeps_a_name_with_a_dot(tmp_path: Path) -> None:
    files = save_sample(torch.zeros(3, 4, 4), tmp_path / "v1.5-000")
    assert [file.name for file in files] == ["v1.5-000.png"]


# ---------------------------------------------------------------- what is deleted


@pytest.fixture(scope="module")
def made(tiny_sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", tiny_sd3)


def test_an_adapter_called_dots_empties_nothing(
    made: Path, tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "open_executor", InThisProcess)
    config = load_config(tiny_recipe(tmp_path / "recipe", tiny_sd3, evaluate={"prompts": 1}))
    (made / "final" / "inner").mkdir(exist_ok=True)
    monkeypatch.chdir(made / "final" / "inner")
    out = tmp_path / "out"
    out.mkdir()
    first = measure.measure_adapters(config, [], out, lambda _: None)
    (out / "mine.txt").write_text("kept")
    (out / "samples" / "base" / "notes.txt").write_text("kept")
    before = tree(out)
    table = measure.measure_adapters(config, [Path("..")], out, lambda _: None)
    assert list(table["methods"]) == ["base", ".."]
    assert table["methods"]["base"] == first["methods"]["base"]
    after = tree(out)
    changing = {"eval.json", "evaluation.jsonl", "samples/index.json"}
    assert {k: v for k, v in after.items() if k in before and k not in changing} \
        == {k: v for k, v in before.items() if k not in changing}  # fmt: skip
    (place,) = (p.name for p in (out / "samples").iterdir() if p.is_dir() and p.name != "base")
    assert place.startswith("adapter-")
    assert sorted(p.name for p in (out / "samples" / place).iterdir()) == ["dark-000.png", "red-000.png"]


def test_what_holds_no_adapter_is_reported_before_anything_is_written(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "open_executor", InThisProcess)
    config = load_config(tiny_recipe(tmp_path / "recipe", tiny_sd3, evaluate={"prompts": 1}))
    for adapter in (Path("/"), tmp_path, tmp_path / "none"):
        with pytest.raises(ParetuneError, match=r"holds no safetensors file|no adapter"):
            measure.measure_adapters(config, [adapter], tmp_path / "out", lambda _: None)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_the_users_is_no_place_to_measure(made: Path, tmp_path: Path) -> None:
    (tmp_path / "samples" / "base").mkdir(parents=True)
    (tmp_path / "samples" / "base" / "red-000.png").write_bytes(b"mine")
    with pytest.raises(ParetuneError, match="is not empty and holds no measurement"):
        claim_eval(tmp_path)
    before = tree(made)
    with pytest.raises(ParetuneError, match="holds a run, whose tables eval would replace"):
        claim_eval(made)
    assert tree(made) == before
    claim_eval(tmp_path / "new")
    claim_eval(tmp_path / "new")  # goes on


def test_samples_of_an_earlier_evaluation_go_and_a_users_stay(made: Path, tmp_path: Path) -> None:
    config = load_config(made / "config.yaml")
    target = tmp_path / "samples" / "base"
    target.mkdir(parents=True)
    for name in ("red-005.png", "red-notes.png", "holiday-001.png"):
        (target / name).write_bytes(b"x")
    (tmp_path / "evaluation" / "base").mkdir(parents=True)
    (tmp_path / "evaluation" / "base" / "red-000.png").write_bytes(b"new")
    (target / "red-000.png").symlink_to(target / "holiday-001.png")
    write_rows(tmp_path / "evaluation" / "base" / "rows.jsonl", [])
    write_manifest(tmp_path / "evaluation" / "base", "evaluation", "x", ["rows.jsonl"])
    collect(config, tmp_path, (Subject("base", "base", (), 1, ()),))
    assert sorted(p.name for p in target.iterdir()) == ["holiday-001.png", "red-000.png", "red-notes.png"]
    assert (target / "holiday-001.png").read_bytes() == b"x"
    assert (target / "red-000.png").read_bytes() == b"new"


def test_a_checkpoint_that_a_user_set_aside_stays(tmp_path: Path) -> None:
    kept = tmp_path / "checkpoints" / "epoch-0001-good"
    kept.mkdir(parents=True)
    (kept / "state.safetensors").write_bytes(b"x")
    parameter = torch.nn.Parameter(torch.zeros(2))
    for epoch in (1, 9999, 10000):
        state = TrainState({"w": parameter}, torch.optim.SGD([parameter]), {}, {}, epoch)
        save_checkpoint(tmp_path, state)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["epoch-0001-good", "epoch-10000"]
    (tmp_path / "checkpoints" / "epoch-9999").mkdir()
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "epoch-10000"


def test_new_tokens_remove_those_of_the_run_alone(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", tiny_sd3)
    make_tokens(run, tiny_sd3)
    for name in ("final/tokens/borrowed", "evaluation/rated-by-hand", "evaluation/rate-red"):
        (run / name).mkdir(parents=True)
        (run / name / "rows.jsonl").write_text("")
    facts = {"subject": {"tokens": [{"name": "red"}]}}
    write_manifest(run / "evaluation/rate-red", "evaluation", "x", ["rows.jsonl"], **facts)
    monkeypatch.setattr("paretune.commands.add_tokens.run", lambda *_, **__: {})
    add_tokens(run, ["tokens.steps=1"], lambda _: None, trust_rewards=True)
    assert sorted(os.listdir(run / "final/tokens")) == ["borrowed"]
    assert sorted(os.listdir(run / "evaluation")) == ["rated-by-hand"]


def test_exported_tokens_follow_no_link(made: Path, tiny_sd3: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tiny_sd3)
    make_tokens(run, tiny_sd3)
    (tmp_path / "secret").write_text("secret")
    (run / "final/tokens/red/key").symlink_to(tmp_path / "secret")
    export_tokens(run, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["dark", "red"]
    names = [f"text_encoder{i}.safetensors" for i in ("", "_2")]
    assert sorted(os.listdir(tmp_path / "out/red")) == names


# ---------------------------------------------------------------- links in a stranger's folder


def test_a_link_as_the_lock_empties_no_file(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(ParetuneError, match="is a link, which no run makes"), lock(tmp_path / "run"):
        pass
    assert (tmp_path / "mine").read_text() == "kept"


def test_a_sample_replaces_a_link_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    (tmp_path / "red-000.png").symlink_to(tmp_path / "mine")
    save_sample(torch.zeros(3, 4, 4), tmp_path / "red-000")
    assert (tmp_path / "mine").read_text() == "kept"
    assert (tmp_path / "red-000.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_of_a_recipes_name_is_not_run_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("quickstart", "mine.yaml"):
        (tmp_path / name).write_text("name: other")
    monkeypatch.chdir(tmp_path)
    assert find_recipe("quickstart").name == "quickstart.yaml"
    assert find_recipe("mine.yaml") == Path("mine.yaml")
    assert find_recipe("./quickstart") == Path("./quickstart")


# ---------------------------------------------------------------- pages


def test_a_plots_name_leads_nowhere_else(tmp_path: Path) -> None:
    save(Plot("fronts", "compare-../../x-/etc/y", "", lambda: blank()), tmp_path / "a" / "plots")
    names = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert names == [f"a/plots/compare-.._.._x-_etc_y.{kind}" for kind in ("png", "svg")]


def test_a_comparison_replaces_a_comparison_alone(tmp_path: Path) -> None:
    page = tmp_path / "notes.html"
    page.write_text("<title>my notes</title>")
    with pytest.raises(ParetuneError, match="exists and is no page of paretune compare"):
        write_comparison({"rewards": []}, page)
    assert page.read_text() == "<title>my notes</title>"
    found = compare_runs(seeds(tmp_path), draws=20)
    first = write_comparison(found, tmp_path / "page.html").read_text()
    assert write_comparison(found, tmp_path / "page.html").read_text() == first
