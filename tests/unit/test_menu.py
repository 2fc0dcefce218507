"""Menus of models: what each method offers for a preference, and the grid of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paretune.planning.methods import build_plan
from paretune.recipes import parse_config
from paretune.reward_tokens.spec import TokenUse
from paretune.stages.menu import Menu, menus_of, preferences, token_menu
from paretune.stages.subjects import subjects_of
from tests.unit.test_plan import ALL, config


def test_a_menu_weighs_its_experts() -> None:
    menu = Menu("x", ("m",), ("a", "b", "c"))
    mixed = menu.at((0.25, 0.0, 0.75))
    assert mixed.adapters == ("m", "a", "c")
    assert mixed.scales == (1.0, 0.25, 0.75)


def test_a_chosen_q_is_no_step_of_a_menu(tmp_path: Path) -> None:
    """1/q makes good what the mask of `dare-q` left out, and a menu averages without a mask."""
    recipe = config("ab", rounds=1)
    for rule, step in (
        ({"method": "dare-q", "options": {"q": "search", "density": 0.1}}, 1),
        ({"method": "dare-q", "step": "search"}, 3),
        ({"method": "exact", "step": "search"}, 3),
    ):
        plan = build_plan(parse_config(recipe.model_dump(mode="json") | {"reduce": rule}, "test"))
        merged = tmp_path / plan.methods[0].rounds[-1].merged
        merged.mkdir(parents=True, exist_ok=True)
        (merged / "diagnostics.json").write_text(json.dumps({"spread": 1.0, "step": 3.0}))
        assert menus_of(plan, tmp_path)[0].at((0.5, 0.5)).scales == (step / 2, step / 2)


def test_a_menu_of_tokens_holds_the_most_wanted_in_full() -> None:
    menu = token_menu(("a", "b", "c"), fixed=("final",))
    assert menu.at((0.0, 1.0, 0.0)).tokens == (TokenUse("b"),)
    mixed = menu.at((0.25, 0.5, 0.25)).tokens
    assert mixed == (TokenUse("a", scale=0.5), TokenUse("b"), TokenUse("c", scale=0.5))
    even = menu.at((1 / 3, 1 / 3, 1 / 3))
    assert even.tokens == (TokenUse("a"), TokenUse("b"), TokenUse("c"))
    assert (even.adapters, even.scales) == (("final",), (1.0,))


def test_tokens_are_measured_beside_the_rest_and_on_the_grid() -> None:
    recipe = config("ab", rounds=2)
    plan = build_plan(recipe)
    plain = subjects_of(recipe, plan)
    wanted = parse_config(recipe.model_dump(mode="json") | {"tokens": {}}, "test")
    more = subjects_of(wanted, plan)
    assert more[: len(plain)] == plain
    assert {s.name: s.tokens for s in more[len(plain) :]} == {
        "rate:a": (TokenUse("a"),),
        "rate:b": (TokenUse("b"),),
        "rate": (TokenUse("a"), TokenUse("b")),
    }
    settings = wanted.evaluate.model_copy(update={"lattice": 4})
    grid = subjects_of(wanted.model_copy(update={"evaluate": settings}), plan)
    found = {s.name: s for s in grid if s.method == "rate" and s.lattice}
    assert found["rate~0.25-0.75"].tokens == (TokenUse("a", scale=0.25 / 0.75), TokenUse("b"))
    assert len(found) == 4


def test_only_methods_with_experts_have_menus() -> None:
    plan = build_plan(config("abc").model_copy(update={"methods": ALL}))
    found = {f.method: f for f in menus_of(plan)}
    assert list(found) == ["mapreduce", "rewarded_soup", "selma"]
    assert found["mapreduce"].fixed == ("round-1/merged", "round-2/merged")
    assert found["mapreduce"].experts[0] == "round-3/experts/a"
    assert found["rewarded_soup"].fixed == ()


def test_the_grid_leaves_out_the_recipes_own_point() -> None:
    assert len(preferences((1 / 3,) * 3, 3)) == 9
    assert preferences((0.5, 0.5), 2) == [(1.0, 0.0), (0.0, 1.0)]
    assert preferences((0.75, 0.25), 4) == [(1.0, 0.0), (0.5, 0.5), (0.25, 0.75), (0.0, 1.0)]
    assert all(sum(p) == pytest.approx(1) for p in preferences((1 / 3,) * 3, 4))


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
