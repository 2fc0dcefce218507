"""`paretune init`: a commented recipe that is the shipped one, word for word in its configuration."""

import sys
from pathlib import Path

import pytest

from paretune.cli import app as cli
from paretune.commands.new_recipe import new_recipe
from paretune.recipes import find_recipe, load_config, shipped_recipes
from paretune.types import ParetuneError


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_it_loads_and_equals_the_shipped_recipe(name: str, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    new_recipe(name, out=out)
    assert load_config(out) == load_config(find_recipe(name))


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_comment_can_be_taken_away(name: str, tmp_path: Path) -> None:
    """A key behind a # is there with its default: without the # the recipe means the same."""
    _, _, text = new_recipe(name).partition("take the # away to change it.\n")  # the head is prose
    bare = [line.replace("# ", "", 1) if _is_key(line) else line for line in text.splitlines()]
    (tmp_path / "mine.yaml").write_text("\n".join(bare))
    # Options that a family has anyway are spelled out now, and the section on tokens is there.
    left_out = {"tokens": True, "model": {"options"}}
    changed = load_config(tmp_path / "mine.yaml").model_dump(exclude=left_out)
    assert changed == load_config(find_recipe(name)).model_dump(exclude=left_out)


def _is_key(line: str) -> bool:
    bare = line.strip().removeprefix("#").strip()
    return line.strip().startswith("# ") and (bare.split(":")[0].isidentifier() or bare.startswith("- "))


def test_the_comments_are_the_descriptions_of_the_fields() -> None:
    text = new_recipe("quickstart")
    assert "  path: pictures  # an embedded model, a folder, or a hub id" in text
    assert "  # dtype: float32  # dtype of the frozen base" in text
    assert "    old_decay: 0.0  # how much of the sampling copy stays each epoch" in text
    assert text.startswith("# The main job, small: three conflicting rewards on the embedded model")


def test_overrides_are_in_it() -> None:
    assert "\nrounds: 7  # each starts from all before it\n" in new_recipe("quickstart", ["rounds=7"])


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    out.write_text("mine")
    with pytest.raises(ParetuneError, match="exists; give a new file"):
        new_recipe("quickstart", out=out)
    assert out.read_text() == "mine"


def test_without_out_standard_output_is_the_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["paretune", "init", "quickstart"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    assert load_config(tmp_path / "mine.yaml") == load_config(find_recipe("quickstart"))
