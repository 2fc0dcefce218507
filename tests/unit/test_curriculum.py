"""Curricula over the stages of records, and decay towards the start."""

from __future__ import annotations

import pytest
import torch

from paretune.config import ReduceConfig, TrainConfig
from paretune.ops.lowrank import LowRank
from paretune.ops.merging import DIVISIONS
from paretune.ops.outer import scaled, steps_of_q
from paretune.ops.rankings import plain_targets
from paretune.ops.reducers import dare, dare_q
from paretune.training.decay import AdamR, optimiser_of
from paretune.training.objectives.curriculum import check_stages, drawn_from
from paretune.types import ParetuneError, Prompt


def prompts(*stages: int | None) -> list[Prompt]:
    return [
        Prompt(f"p{i}", {"chosen": "a", "rejected": "b", **({} if s is None else {"stage": s})})
        for i, s in enumerate(stages)
    ]


def drawn(kind: str, round_: int, epoch: int, epochs: int = 6) -> list[int]:
    allowed = drawn_from(kind, [prompts(1, 2, 3, 1)], round_, epoch, epochs)
    assert allowed is not None
    return allowed.nonzero().flatten().tolist()


def test_a_round_draws_its_stage_and_later_rounds_the_last() -> None:
    assert [drawn("rounds", r, 0) for r in (1, 2, 3, 4)] == [[0, 3], [1], [2], [2]]


def test_epochs_are_divided_among_the_stages() -> None:
    assert [drawn("epochs", 1, e) for e in range(6)] == [[0, 3], [0, 3], [1], [1], [2], [2]]
    assert [drawn("epochs", 1, e, 2) for e in range(2)] == [[1], [2]]  # ceil(e S / E) of e = 1, 2


def test_every_set_has_its_own_stages() -> None:
    allowed = drawn_from("rounds", [prompts(1, 2), prompts(5, 5, 7)], 2, 0, 1)
    assert allowed is not None
    assert allowed.tolist() == [False, True, False, False, True]
    assert drawn_from("none", [prompts(None)], 1, 0, 1) is None


def test_records_without_a_stage_and_stages_that_are_too_small() -> None:
    with pytest.raises(ParetuneError, match=r"the prompt 'p1' has no \"stage\".*--form ladder"):
        drawn_from("rounds", [prompts(1, None)], 1, 0, 1)
    with pytest.raises(ParetuneError, match="stage 2 of yes has 1 records, and an epoch draws 2: lower"):
        check_stages("yes", prompts(1, 1, 2), 2)
    check_stages("yes", prompts(1, 1, 2), 1)


# ---------------------------------------------------------------- AdamR


def test_a_parameter_decays_towards_its_start_before_adams_step() -> None:
    """p 2, p0 1, rate .1, decay .5, v 4: 1.975, and then Adam's own step of the rate."""
    p = torch.nn.Parameter(torch.tensor([1.0]))
    optimiser = AdamR([p], lr=0.1, decay=0.5)
    p.data.fill_(2.0)
    p.grad = torch.tensor([2.0])  # its square is v in the first step
    optimiser.step()
    assert p.item() == pytest.approx(1.975 - 0.1, abs=1e-6)


def test_at_the_start_it_is_adam_and_v_is_over_all_entries() -> None:
    p, q = (torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    ours, plain = AdamR([p], lr=0.1, decay=0.5), torch.optim.AdamW([q], lr=0.1, weight_decay=0.0)
    for one, optimiser in ((p, ours), (q, plain)):
        one.grad = torch.tensor([1.0, -3.0])
        optimiser.step()
    assert torch.equal(p, q)
    p.grad = torch.tensor([1.0, -3.0])
    assert ours._second_moment() == pytest.approx(5.0)
    p.grad.zero_()
    quiet = AdamR([p], lr=0.1, decay=0.5)
    p.data.add_(1.0)
    before = p.detach().clone()
    quiet.step()
    assert torch.allclose(p, before - 0.05)  # v is 0, so 1 is taken


def test_the_recipe_chooses_the_optimiser() -> None:
    p = [torch.nn.Parameter(torch.zeros(1))]
    assert isinstance(optimiser_of(TrainConfig.model_validate({"decay": "start"}), p), AdamR)
    assert not isinstance(optimiser_of(TrainConfig.model_validate({}), p), AdamR)
    none = TrainConfig.model_validate({"decay": "start", "weight_decay": 0.0})
    assert not isinstance(optimiser_of(none, p), AdamR)


# ---------------------------------------------------------------- q: search


def test_q_by_search_is_a_choice_of_steps() -> None:
    rule = ReduceConfig.model_validate({"method": "dare-q", "options": {"q": "search", "density": 0.5}})
    assert rule.options == {"q": 1.0, "density": 0.5}
    assert rule.step == steps_of_q(0.5, DIVISIONS)
    assert (steps_of_q(0.5, 10)[0], steps_of_q(0.5, 10)[-1], len(steps_of_q(0.5, 10))) == (2.0, 1.0, 11)
    assert ReduceConfig.model_validate(rule.model_dump()) == rule


def test_a_step_of_one_over_q_is_that_q_and_the_first_is_dare() -> None:
    generator = torch.Generator().manual_seed(0)
    delta = LowRank(torch.randn(6, 2, generator=generator), torch.randn(2, 5, generator=generator))
    merged = {"m": dare_q([delta], [1.0], density=0.5, seed=3, q=1.0)}
    for q in (0.5, 0.8):
        direct = dare_q([delta], [1.0], density=0.5, seed=3, q=q).dense()
        assert torch.allclose(scaled(merged, 1 / q)["m"].dense(), direct, atol=1e-6)
    plain = dare([delta], [1.0], density=0.5, seed=3).dense()
    assert torch.allclose(scaled(merged, steps_of_q(0.5, 10)[0])["m"].dense(), plain, atol=1e-6)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ({"method": "dare-q", "options": {"q": "search"}, "step": 2}, "leave step out"),
        ({"method": "dare-q", "options": {"q": "search", "density": 0.001}}, "needs a density from 0.01"),
        ({"method": "dare-q", "options": {"q": "serach"}}, "q serach cannot be used; it is positive"),
    ],
)
def test_a_search_that_cannot_be(raw: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ReduceConfig.model_validate(raw)


def test_a_teachers_target_is_its_softmax() -> None:
    found = plain_targets(torch.tensor([[1.0, 0.0, 5.0]]), 0.5, torch.tensor([[True, True, False]]))
    assert found[0].tolist() == pytest.approx([0.8808, 0.1192, 0.0], abs=1e-4)
