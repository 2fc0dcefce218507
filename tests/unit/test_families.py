"""Families of models: what each method offers for a preference, and the grid of them."""

from __future__ import annotations

import pytest

from paretune.methods import build_plan
from paretune.stages.families import PolicyFamily, families_of, preferences
from paretune.stages.subjects import subjects_of
from tests.unit.test_plan import ALL, config


def test_a_family_weighs_its_experts() -> None:
    family = PolicyFamily("x", ("m",), ("a", "b", "c"))
    mixed = family.at((0.25, 0.0, 0.75))
    assert mixed.adapters == ("m", "a", "c")
    assert mixed.scales == (1.0, 0.25, 0.75)


def test_only_methods_with_experts_are_families() -> None:
    plan = build_plan(config("abc").model_copy(update={"methods": ALL}))
    found = {f.method: f for f in families_of(plan)}
    assert list(found) == ["mapreduce", "rewarded_soup", "selma"]
    assert found["mapreduce"].fixed == ("round-1/merged", "round-2/merged")
    assert found["mapreduce"].experts[0] == "round-3/experts/a"
    assert found["rewarded_soup"].fixed == ()


def test_the_grid_leaves_out_the_even_point() -> None:
    assert len(preferences(3, 3)) == 9
    assert preferences(2, 2) == [(1.0, 0.0), (0.0, 1.0)]
    assert all(sum(p) == pytest.approx(1) for p in preferences(3, 4))


def test_a_lattice_adds_subjects_after_all_others() -> None:
    recipe = config("ab", rounds=2)
    plan = build_plan(recipe)
    plain = subjects_of(recipe, plan)
    settings = recipe.evaluate.model_copy(update={"lattice": 2})
    more = subjects_of(recipe.model_copy(update={"evaluate": settings}), plan)
    assert more[: len(plain)] == plain
    added = more[len(plain) :]
    assert [s.name for s in added] == [
        "mapreduce@2~1-0", "mapreduce@2~0-1", "rewarded_soup~1-0", "rewarded_soup~0-1"
    ]  # fmt: skip
    assert all(s.lattice for s in added)
    assert added[0].adapters == ("round-1/merged", "round-2/experts/a")
    assert added[0].scales == (1.0, 1.0)
    assert added[0].method == "mapreduce@2"
    assert len({s.folder for s in more}) == len(more)
