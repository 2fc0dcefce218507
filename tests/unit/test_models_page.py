"""The table of models in the documentation has a row for every family, with its pipelines and recipes."""

from __future__ import annotations

from pathlib import Path

from paretune.models.family import by_hub_id, families
from paretune.recipes import find_recipe, load_config
from tests.families import cases

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def _rows() -> dict[str, list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row for row in cells}


def test_every_family_of_a_pipeline_has_its_row() -> None:
    drawn = {name: family for name, family in families().items() if family.pipelines}
    rows = _rows()
    assert set(rows) == set(drawn)
    for name, family in drawn.items():
        row = rows[name]
        assert {f"`{pipeline}`" for pipeline in family.pipelines} <= set(row[2].replace(",", "").split())
        assert ("clip" in row[1]) == (family.medium == "clips")
        assert (row[9] == "yes") == ("float16" in family.dtypes)


def test_the_recipes_of_a_row_are_of_that_family() -> None:
    for name, row in _rows().items():
        for recipe in row[3].split(", "):
            assert load_config(find_recipe(recipe)).model.path in families()[name].published


def test_a_row_says_yes_where_a_case_runs_the_tests() -> None:
    paths = [load_config(find_recipe(case.recipe)).model.path for case in cases().values()]
    assert {by_hub_id()[path].name for path in paths} == set(_rows())
    assert all(case.tokens for case in cases().values())  # every row names the encoders of the tokens
