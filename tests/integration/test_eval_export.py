"""`paretune eval` and `paretune export`: what they say and write when all is well."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import load_file
from typer.testing import CliRunner

from paretune.adapters.store import ADAPTER_FILES, WEIGHTS, load_delta
from paretune.cli import app as cli
from paretune.commands import measure
from paretune.files import read_json, read_rows
from paretune.recipes import load_config
from paretune.stages.summarise import tables
from tests.executing import InThisProcess

from .commands import call


def here(*words: object) -> str:
    """What `paretune WORDS` prints on stdout, run in this process: it saves a start of torch."""
    done = CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def told(
    recipe: Path, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """What `paretune eval --json` printed, and its folder."""
    out = tmp_path_factory.mktemp("eval") / "out"
    done = call("eval", recipe, "--adapter", whole / "final", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    *events, table = [json.loads(line) for line in done.stdout.splitlines()]
    assert all("folder" in event for event in events)
    return table, out


class TestEval:
    """The final adapter of the tiny run, measured again."""

    def test_it_measures_what_the_run_measured(
        self, told: tuple[dict[str, Any], Path], whole: Path
    ) -> None:
        table, _ = told
        final, summary = str(whole / "final"), read_json(whole / "summary.json")
        assert list(table["methods"]) == list(table["stderr"]) == ["base", final]
        for key in ("methods", "stderr"):
            assert table[key]["base"] == summary[key]["base"]
            # One adapter instead of one a round: the same sum, added in another order.
            assert table[key][final] == pytest.approx(summary[key]["mapreduce"], abs=1e-5)
            assert all(math.isfinite(v) for row in table[key].values() for v in row.values())
        assert table["methods"][final] != table["methods"]["base"]

    def test_it_keeps_the_table_the_rows_and_the_pictures(
        self, told: tuple[dict[str, Any], Path], whole: Path
    ) -> None:
        table, out = told
        assert read_json(out / "eval.json") == table
        rows = read_rows(out / "evaluation.jsonl")
        assert tables(rows) == (table["methods"], table["stderr"])
        assert len(rows) == 2 * 2 * 3  # models, rewards, prompts
        names = read_json(out / "samples" / "index.json")["methods"]
        assert names == ["base", str(whole / "final").replace("/", "-")]
        for name in names:
            pictures = [p.name for p in sorted((out / "samples" / name).iterdir())]
            assert pictures == [f"{reward}-{i:03d}.png" for reward in ("dark", "red") for i in range(3)]

    def test_it_prints_what_measure_adapters_gives(
        self, told: tuple[dict[str, Any], Path], recipe: Path, whole: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(measure, "open_executor", InThisProcess)
        monkeypatch.setenv("COLUMNS", "200")
        final = whole / "final"
        table = measure.measure_adapters(load_config(recipe), [final], tmp_path / "out", lambda _: None)
        for key in ("methods", "stderr"):
            for method, means in told[0][key].items():
                assert table[key][method] == pytest.approx(means, abs=1e-5)
        words = ("eval", recipe, "--adapter", final, "--out", tmp_path / "out", "--quiet")
        printed = here(*words)  # measured already: only read again
        for method, means in table["methods"].items():
            line = next(line for line in printed.splitlines() if method in line)
            for reward, mean in means.items():
                assert f"{mean:.3f} ± {table['stderr'][method][reward]:.3f}" in line

    def test_without_an_adapter_it_measures_the_base(
        self, recipe: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(measure, "open_executor", InThisProcess)
        table = json.loads(here("eval", recipe, "--out", tmp_path / "out", "--quiet", "--json"))
        base = read_json(whole / "summary.json")["methods"]["base"]
        assert list(table["methods"]) == ["base"]
        assert table["methods"]["base"] == pytest.approx(base, abs=1e-5)


def _pictures(pipe: StableDiffusion3Pipeline) -> torch.Tensor:
    """Two pictures [2, 3, 16, 16] of fixed prompts and latents."""
    pipe.set_progress_bar_config(disable=True)
    latents = torch.randn((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    return pipe(
        ["a red circle", "a sign saying kite"], latents=latents, num_inference_steps=4,
        guidance_scale=2.0, max_sequence_length=0 if pipe.text_encoder_3 is None else 16, output_type="pt",
    ).images  # fmt: skip


class TestExport:
    """The tiny run's model for other tools."""

    def test_a_pipeline_with_t5_that_plain_diffusers_loads(
        self, whole: Path, tiny_sd3_t5: Path, tmp_path: Path
    ) -> None:
        """A run on the pipeline with T5, whose transformer is the other's: so the adapter fits."""
        run, out = tmp_path / "run", tmp_path / "pipeline"
        shutil.copytree(whole / "final", run / "final")
        config = yaml.safe_load((whole / "config.yaml").read_text())
        config["model"] |= {"path": str(tiny_sd3_t5), "options": {"load_t5": True}}
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        assert here("export", run, "--out", out, "--pipeline") == f"pipeline: {out}\n"
        self.check(out, tiny_sd3_t5, whole / "final", {})

    def test_a_pipeline_without_t5_says_how_it_is_loaded(
        self, whole: Path, tiny_sd3: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "pipeline"
        told = here("export", whole, "--out", out, "--pipeline")
        assert told.splitlines()[0] == f"pipeline: {out}"
        assert "text_encoder_3=None, tokenizer_3=None" in told
        self.check(out, tiny_sd3, whole / "final", {"text_encoder_3": None, "tokenizer_3": None})

    def check(self, out: Path, base: Path, adapter: Path, absent: dict[str, None]) -> None:
        """The folder `out` is whole, and draws what the base draws with the adapter loaded."""
        files = {p.relative_to(base) for p in base.rglob("*") if p.is_file()}
        assert {p.relative_to(out) for p in out.rglob("*") if p.is_file()} == files
        pipe = StableDiffusion3Pipeline.from_pretrained(base, **absent)
        before = _pictures(pipe)
        pipe.load_lora_weights(str(adapter))
        exported = _pictures(StableDiffusion3Pipeline.from_pretrained(out, **absent))
        torch.testing.assert_close(exported, _pictures(pipe), atol=1e-5, rtol=0)
        assert (exported - before).abs().max() > 1e-3

    def test_an_adapter(self, whole: Path, tmp_path: Path) -> None:
        out = tmp_path / "adapter"
        assert here("export", whole, "--out", out).startswith(f"adapter: {out} (relative error")
        assert {*ADAPTER_FILES} <= {p.name for p in out.iterdir()}
        ours, theirs = load_file(out / WEIGHTS), load_file(whole / "final" / WEIGHTS)
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name])

    def test_a_compressed_adapter_and_its_error(self, whole: Path, tmp_path: Path) -> None:
        out = tmp_path / "adapter"
        told = here("export", whole, "--out", out, "--rank", 1)
        cut, final = load_delta([out]), load_delta([whole / "final"])
        assert {delta.rank for delta in cut.values()} == {1}
        lost = sum(float((cut[n].dense() - d.dense()).norm()) ** 2 for n, d in final.items())
        size = sum(float(d.dense().norm()) ** 2 for d in final.values())
        assert 0 < lost < size
        assert f"compression {(lost / size) ** 0.5:.2e})" in told

    def test_an_existing_folder_is_left_alone(self, whole: Path, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("years of work")
        done = CliRunner().invoke(cli.app, ["export", str(whole), "--out", str(tmp_path), "--pipeline"])
        assert "give a new folder" in str(done.exception)
        assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
