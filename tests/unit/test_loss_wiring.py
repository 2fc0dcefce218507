"""Every loss on lists by its class: its choices, its default beta and options give the published values."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from paretune.commands.answer_pairs.options import AnswerOptions
from paretune.data.answer_lists import AnswerList
from paretune.ops.list_losses import Lists, chase_link, list_link
from paretune.ops.rankings import pair_targets
from paretune.training.objectives.settings import Options
from paretune.training.objectives.table import find_objective
from paretune.types import Prompt

LOG2 = math.log(2)


def lists(log_probs: Any, reference: Any = None, **more: Any) -> Lists:
    """One list. log_probs: of every token of every answer; a NaN where there is no token."""
    own = torch.tensor([log_probs])
    mask = ~own.isnan()
    other = own if reference is None else torch.tensor([reference])
    given = {name: torch.tensor([value]) for name, value in more.items()}
    return Lists(own.nan_to_num(), other.nan_to_num(), mask, mask.any(-1), **given)


def loss(name: str, seen: Lists, **options: Any) -> float:
    kind: Any = find_objective(name)
    read: Options = kind.options_kind.model_validate(options)
    return float(kind.loss(seen, kind.beta, read))


PAIR = [[-3.0, -5.0, -1.0], [-8.0, -9.0, float("nan")]]  # sums -9 and -17: a gap of 8
GIVEN = [[0.2, 0.0, 0.1], [-0.2, 0.3, 0.0]]
NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "options", "more", "wanted"),
    [
        ("list_dpo", {}, {}, LOG2),
        ("flex_dpo", {}, {}, LOG2),
        ("ld_dpo", {}, {}, LOG2),
        ("ln_dpo", {}, {}, LOG2),
        ("cdpo", {}, {"given": GIVEN}, LOG2),
        ("tgdpo", {}, {"given": GIVEN}, LOG2),
        ("dpo_gamma", {"gamma": 0.5}, {}, 0.5130),
        ("madpo_text", {"at": 2.0}, {"margin": 1.0}, 0.7551),
        ("madpo_text", {}, {"margin": 1.0}, 0.8343),
        ("tree_tpo", {}, {"values": [1.0, 0.0]}, 0.5325 * LOG2),
    ],
)
def test_at_the_reference(name: str, options: dict[str, Any], more: dict[str, Any], wanted: float) -> None:
    assert loss(name, lists(PAIR, **more), **options) == pytest.approx(wanted, abs=5e-5)


@pytest.mark.parametrize(("options", "wanted"), [({"alpha": 2.0}, 0.2550), ({}, 0.4204)])
def test_a_drift_at_the_reference(options: dict[str, Any], wanted: float) -> None:
    kind: Any = find_objective("sem_dpo_text")
    record = AnswerList(Prompt("x"), (), drift=0.5)
    weight = kind.weight_of(record, kind.options_kind.model_validate(options))
    assert loss("sem_dpo_text", lists(PAIR, weight=weight), **options) == pytest.approx(wanted, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "more", "wanted"),
    [("adpo_text", {"values": [1.0, 0.0, -1.0]}, math.log(3)), ("tree_tpo", {"values": [1, 0.5, 0]}, 0.7704)],
)
def test_lists_at_the_reference(name: str, more: dict[str, Any], wanted: float) -> None:
    assert loss(name, lists([[-1.0], [-2.0], [-3.0]], **more)) == pytest.approx(wanted, abs=5e-5)


def test_revisions_at_the_reference() -> None:
    assert loss("srpo", lists([[-1.0]] * 6)) == pytest.approx(0.6)


def test_the_running_example() -> None:
    """Log-ratios that sum to 2 and -5, of 20 and 25 tokens; beta is each loss's own default."""
    reference = [[-1.0] * 25, [-1.0] * 25]
    policy = [[-0.9] * 20 + [NAN] * 5, [-1.2] * 25]
    seen = lists(policy, reference)
    assert loss("list_dpo", seen) == pytest.approx(0.4032, abs=5e-5)
    assert loss("flex_dpo", seen) == pytest.approx(0.4932, abs=5e-5)
    assert loss("ln_dpo", seen) == pytest.approx(0.2014, abs=5e-5)
    assert loss("dpo_gamma", lists([[15.0], [0.0]], [[8.0], [0.0]])) == pytest.approx(0.2873, abs=5e-5)


def test_token_weights_reach_their_losses() -> None:
    critical = lists([[2.0, NAN], [-1.0, -1.0]], [[0.0, 0.0]] * 2, given=[[0.3, 0.3], [0.9, 0.2]])
    assert loss("cdpo", critical) == pytest.approx(0.5586, abs=5e-5)
    guided = lists([[1.0, 1.0], [-1.0, -1.0]], [[0.0, 0.0]] * 2, given=[[0.2, 0.0], [-0.2, 0.0]])
    assert loss("tgdpo", guided) == pytest.approx(0.5050, abs=5e-5)
    tail = lists([[0.5, 0.5, 1.0], [-1.0, -1.0, NAN]], [[0.0] * 3] * 2)
    assert loss("ld_dpo", tail) == pytest.approx(0.5334, abs=5e-5)


def test_the_likelihood_of_asft_may_have_a_stage_of_its_own() -> None:
    """-(1 + a) log p_w - a log(1 - p_l) with the default options, and the alignment alone without it."""
    seen = replace(lists([[math.log(0.6)], [math.log(0.25)]]), reference=None)
    assert loss("asft", seen) == pytest.approx(-2 * math.log(0.6) - math.log(0.75), abs=5e-5)
    assert loss("asft", seen) == pytest.approx(1.3093, abs=5e-5)
    assert loss("asft", seen, weight=0.3) == pytest.approx(0.7504, abs=5e-5)
    assert loss("asft", seen, likelihood=0) == pytest.approx(0.7985, abs=5e-5)


@pytest.mark.parametrize(
    ("good", "bad", "wanted"),
    [("w", "not w", 0.5108), ("w and not l", "l and not w", 0.2007), ("w", "l and not w", 0.1542),
     ("w or not l", "l and not w", 0.1054), ("not l", "l and not w", 0.1252), ("not l", "not w", 0.4274)],
)  # fmt: skip
def test_any_form_is_a_loss(good: str, bad: str, wanted: float) -> None:
    """The survey's values at p_w .6 and p_l .25, without a reference and with a beta of 1."""
    kind: Any = find_objective("symbolic")
    read = kind.options_kind.model_validate({"good": good, "bad": bad, "anchored": False})
    log_probs = torch.tensor([[[math.log(0.6)], [math.log(0.25)]]], requires_grad=True)
    mask = torch.ones(1, 2, 1, dtype=torch.bool)
    found = kind.loss(Lists(log_probs, None, mask, mask.any(-1)), 1.0, read)
    assert float(found.detach()) == pytest.approx(wanted, abs=5e-5)
    found.sum().backward()
    assert float(log_probs.grad.abs().sum()) > 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("ld_dpo", {"alpha": 0.5}), ("flex_dpo", {"slower": 0.5}), ("tgdpo", {"alpha": 0.5}),
        ("madpo_text", {"most": 2.0, "slope": 1.0, "at": 6.907}), ("sem_dpo_text", {"alpha": 1.0}),
        ("adpo_text", {"target_temperature": 0.5}), ("tree_tpo", {"steps": False, "weighted": True}),
        ("srpo", {"share": 0.8}), ("ofs_dpo", {"alpha": 0.1, "slow_rate": 0.1, "every": 16}),
    ],
)  # fmt: skip
def test_defaults(name: str, defaults: dict[str, Any]) -> None:
    options = find_objective(name).options_kind()
    assert {key: getattr(options, key) for key in defaults} == defaults


def test_default_temperatures() -> None:
    betas = {"adpo_text": 0.1, "tree_tpo": 0.5, "srpo": 0.1, "list_simpo": 2.5, "triple_tpo": 0.01}
    assert {name: find_objective(name).beta for name in betas} == betas  # type: ignore[attr-defined]
    assert AnswerOptions().guide_beta == 0.1


def test_no_gradient_reaches_the_other_policy() -> None:
    for share in (0.1, -0.1):
        own, other = (torch.tensor([v], requires_grad=True) for v in (7.0, 3.0))
        chase_link(own, other, 0.1, share).sum().backward()
        assert own.grad is not None
        assert other.grad is None


def test_a_soft_pair_is_its_cross_entropy() -> None:
    """softplus(z) - q z, with q of the margin."""
    z, margin = torch.tensor(0.7), torch.tensor([2.0])
    found = list_link(torch.stack([z, torch.zeros(())])[None], pair_targets(margin), 1.0)
    wanted = torch.nn.functional.softplus(z) - margin.sigmoid() * z
    torch.testing.assert_close(found, wanted)
