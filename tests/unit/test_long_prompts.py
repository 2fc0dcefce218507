"""Prompts that a text encoder cuts are counted and told; those that fit are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paretune.cli.app import app
from paretune.config import ModelConfig
from paretune.planning.long_prompts import cuts
from tests.conftest import tiny_recipe

LONG = "a red circle " * 200


def _cuts(path: Path, prompts: list[str], **options: object) -> list[str]:
    return cuts(ModelConfig.model_validate({"path": str(path), "options": options}), prompts)


@pytest.mark.parametrize(("kind", "encoders"), [
    ("tiny_sd3", ["text_encoder", "text_encoder_2"]),
    ("tiny_flux", ["text_encoder", "text_encoder_2"]),
    ("tiny_hunyuan", ["text_encoder", "text_encoder_2"]),
])  # fmt: skip
def test_every_encoder_tells_what_it_cuts(
    request: pytest.FixtureRequest, kind: str, encoders: list[str]
) -> None:
    lines = _cuts(request.getfixturevalue(kind), ["a circle", LONG])
    assert [line.split(" that ")[1].split(" reads")[0] for line in lines] == encoders
    assert all(line.startswith("1 of 2 prompts is longer than the ") for line in lines)
    assert _cuts(request.getfixturevalue(kind), ["a circle"]) == []


def test_t5_reads_more_and_is_asked_only_where_it_is_loaded(tiny_sd3_t5: Path) -> None:
    assert len(_cuts(tiny_sd3_t5, [LONG])) == 2
    assert [line for line in _cuts(tiny_sd3_t5, [LONG], load_t5=True) if "the 256 tokens that" in line]
    assert [line for line in _cuts(tiny_sd3_t5, [LONG], load_t5=True, max_sequence_length=8)
            if "the 8 tokens that text_encoder_3 reads" in line]  # fmt: skip


def test_a_language_model_cuts_nothing(tiny_llama: Path) -> None:
    assert _cuts(tiny_llama, [LONG]) == []


def test_the_plan_tells_it_by_file(tiny_sd3: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, tiny_sd3)
    assert json.loads(CliRunner().invoke(app, ["plan", str(recipe), "--json"]).stdout)["cut"] == []
    (tmp_path / "prompts.txt").write_text(f"a red circle\n{LONG}\n{LONG}\n")
    found = json.loads(CliRunner().invoke(app, ["plan", str(recipe), "--json"]).stdout)["cut"]
    assert len(found) == 2
    assert found[0].startswith(f"{tmp_path / 'prompts.txt'}: 2 of 3 prompts are longer than the ")
    assert "note: " in CliRunner().invoke(app, ["plan", str(recipe)]).stdout
