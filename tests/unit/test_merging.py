"""The reducers: identities, literal numbers, closed forms, and peft's own on dense deltas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paretune.ops.lowrank import LowRank, gram
from paretune.ops.merge_weights import (
    min_norm_point,
    min_norm_weights,
    search_weights,
    simplex_lattice,
)
from paretune.ops.merging import REDUCERS, merge_experts
from paretune.ops.reducers import dare, dare_q, factor, ties

few = settings(max_examples=15, deadline=None, derandomize=True, database=None)

# With these options every method answers one expert with itself.
NEUTRAL = {
    "exact": {}, "compressed": {"rank": 9}, "factor": {}, "ties": {"density": 1.0},
    "dare": {"density": 1.0}, "dare-q": {"density": 1.0}, "min-norm": {}, "slerp": {}, "distil": {},
    "nesterov": {"momentum": 0.0, "outer_lr": 1.0}, "search": {"evaluate": max},
}  # fmt: skip


def random(m: int, n: int, r: int, seed: int) -> LowRank:
    g = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(m, r, generator=g), torch.randn(r, n, generator=g))


def experts(count: int = 3, ranks: tuple[int, ...] = (2, 2, 2)) -> list[dict[str, LowRank]]:
    """`count` experts of two modules, the second of which only the first expert lacks."""
    made = [
        {"a": random(5, 7, ranks[i], i), "b": random(4, 3, ranks[i], 50 + i)} for i in range(count)
    ]
    del made[0]["b"]
    return made


def matrix(rows: list[list[float]]) -> LowRank:
    dense = torch.tensor(rows)
    return LowRank(dense, torch.eye(dense.shape[1]))


def test_every_method_of_the_table_is_tried_here():
    assert set(NEUTRAL) == set(REDUCERS)
    assert all(reducer.paper and reducer.formula for reducer in REDUCERS.values())


@pytest.mark.parametrize("method", REDUCERS)
def test_one_adapter_merged_is_itself(method):
    expert = {"a": random(5, 7, 2, 0), "b": random(4, 3, 1, 1)}
    merged = merge_experts([expert], method=method, **NEUTRAL[method])
    assert merged.relative_error < 1e-6
    for name, delta in expert.items():
        torch.testing.assert_close(merged.deltas[name].dense(), delta.dense(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", [m for m in REDUCERS if not m.startswith("dare") and m != "slerp"])
def test_order_does_not_matter(method):
    options = dict(NEUTRAL[method])
    if method == "ties":
        options["density"] = 0.4
    if method == "search":
        options |= {"evaluate": lambda weights: -sum(w * w for w in weights), "divisions": 3}
    forward = merge_experts(experts(), method=method, **options)
    backward = merge_experts(experts()[::-1], method=method, **options)
    assert forward.deltas.keys() == backward.deltas.keys()
    for name, delta in forward.deltas.items():
        torch.testing.assert_close(
            delta.dense(), backward.deltas[name].dense(), atol=1e-5, rtol=1e-4
        )


@few
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=4),
    st.lists(st.floats(0, 5), min_size=4, max_size=4),
    st.tuples(st.integers(1, 8), st.integers(1, 8)),
)
def test_exact_equals_the_dense_sum_whatever_the_ranks(ranks, weights, shape):
    weights = [w + (i == 0) for i, w in enumerate(weights[: len(ranks)])]
    made = [{"a": random(*shape, r, i)} for i, r in enumerate(ranks)]
    dense = sum(
        w / sum(weights) * (e["a"].B.double() @ e["a"].A.double())
        for e, w in zip(made, weights, strict=True)
    )
    merged = merge_experts(made, weights)
    error = float((merged.deltas["a"].dense().double() - dense).norm())
    assert error <= 1e-6 * sum(e["a"].norm() for e in made)
    assert merged.relative_error == 0.0


def test_a_missing_module_counts_as_zero_and_zero_weight_leaves_out():
    made = experts()
    merged = merge_experts(made, [1, 1, 2])
    expected = made[1]["b"].dense() / 4 + made[2]["b"].dense() / 2
    torch.testing.assert_close(merged.deltas["b"].dense(), expected)
    assert set(merge_experts(made, [1, 0, 0]).deltas) == {"a"}


def test_compression_error_is_reported_for_the_whole_model():
    made = experts()
    full, cut = merge_experts(made), merge_experts(made, rank=1)
    lost = sum(float((cut.deltas[k].dense() - full.deltas[k].dense()).norm() ** 2) for k in "ab")
    size = sum(full.deltas[k].norm() ** 2 for k in "ab")
    assert cut.relative_error == pytest.approx(math.sqrt(lost / size), rel=1e-4)
    same = merge_experts(made, method="compressed", rank=1)
    torch.testing.assert_close(same.deltas["a"].dense(), cut.deltas["a"].dense())
    assert merge_experts(made, energy=0.99).relative_error <= 0.1


def test_factor_misses_the_exact_sum_by_the_covariance_of_the_factors():
    deltas = [random(5, 7, 2, i) for i in range(3)]
    weights = [0.5, 0.3, 0.2]
    merged = factor(deltas, weights)
    mean_b = sum(w * d.B for w, d in zip(weights, deltas, strict=True))
    mean_a = sum(w * d.A for w, d in zip(weights, deltas, strict=True))
    missed = sum(w * (d.B - mean_b) @ (d.A - mean_a) for w, d in zip(weights, deltas, strict=True))
    exact = sum(w * d.dense() for w, d in zip(weights, deltas, strict=True))
    torch.testing.assert_close(exact - merged.dense(), missed)
    whole = merge_experts([{"a": d} for d in deltas], weights, "factor")
    assert whole.relative_error == pytest.approx(float(missed.norm() / exact.norm()), rel=1e-4)


def test_factor_is_exact_when_experts_share_a_and_refuses_other_ranks():
    a = torch.randn(2, 7)
    deltas = [LowRank(torch.randn(5, 2), a) for _ in range(2)]
    torch.testing.assert_close(
        factor(deltas, [1, 1]).dense(), (deltas[0].dense() + deltas[1].dense()) / 2
    )
    with pytest.raises(ValueError, match=r"equal ranks, these are \[2, 3\]"):
        factor([random(5, 7, 2, 0), random(5, 7, 3, 1)], [1, 1])


def test_ties_on_literal_numbers():
    # Top half of each: (5, -4) and (-3, 6). Signs elected: 5 - 3 -> +, -4 -> -, 6 -> +.
    x, y = matrix([[5.0, -4.0, 1.0, 0.5]]), matrix([[-3.0, 1.0, 0.5, 6.0]])
    assert ties([x, y], [1, 1], density=0.5).dense().tolist() == [[5.0, -4.0, 0.0, 6.0]]
    z = matrix([[1.0, -4.0, 0.0, 0.0]])
    assert ties([x, z], [3, 1], density=0.5).dense()[0].tolist() == [4.0, -4.0, 0.0, 0.0]


def test_ties_equals_peft_on_dense_deltas():
    from peft.utils.merge_utils import ties as peft_ties

    deltas = [random(6, 8, 3, i) for i in range(3)]
    theirs = peft_ties([d.dense() for d in deltas], torch.ones(3), density=0.3)
    torch.testing.assert_close(ties(deltas, [1, 1, 1], density=0.3).dense(), theirs)


@pytest.mark.parametrize("density", [0.3, 0.7])
def test_dare_equals_peft_on_dense_deltas(density):
    from peft.utils.merge_utils import dare_linear

    deltas = [random(6, 8, 3, i) for i in range(3)]
    torch.manual_seed(7)
    theirs = dare_linear([d.dense() for d in deltas], torch.tensor([0.2, 0.3, 0.5]), density)
    ours = dare(deltas, [0.2, 0.3, 0.5], density=density, seed=7)
    torch.testing.assert_close(ours.dense(), theirs)


def test_dare_masks_repeat_by_seed_and_differ_between_modules():
    x = random(6, 6, 2, 0)
    made = [{"a": x, "b": x}]
    once = merge_experts(made, method="dare", seed=1).deltas
    again = merge_experts(made, method="dare", seed=1).deltas
    other = merge_experts(made, method="dare", seed=2).deltas
    torch.testing.assert_close(once["a"].dense(), again["a"].dense())
    assert bool((once["a"].dense() != once["b"].dense()).any())
    assert bool((once["a"].dense() != other["a"].dense()).any())


def test_dare_q_rescales_best_where_the_adapter_looks():
    x = random(20, 30, 2, 0)
    basis = torch.linalg.qr(x.A.T)[0]

    def missed(merged: LowRank) -> float:
        return float(((merged.dense() - x.dense()) @ basis).norm())

    best = missed(dare_q([x], [1], density=0.4, seed=3))
    others = [missed(dare_q([x], [1], density=0.4, seed=3, q=q)) for q in (0.3, 0.4, 0.6, 1.0)]
    assert best <= min(others) + 1e-5
    same = dare_q([x], [1], density=0.4, seed=3, q=0.4)
    torch.testing.assert_close(same.dense(), dare([x], [1], density=0.4, seed=3).dense())


def test_min_norm_of_two_is_its_closed_form():
    # Norms 2 and 1, orthogonal: w_1 = g_22 / (g_11 + g_22) = 0.2.
    assert min_norm_point(torch.tensor([[4.0, 0.0], [0.0, 1.0]])).tolist() == [0.2, 0.8]
    # The shorter vector already points along the longer one: all weight on it.
    assert min_norm_point(torch.tensor([[4.0, 1.9], [1.9, 1.0]])).tolist() == [0.0, 1.0]
    # Merge weights are those of the unit vectors, so two experts' norms are balanced.
    assert min_norm_weights(torch.tensor([[4.0, 0.5], [0.5, 1.0]])) == pytest.approx([1 / 3, 2 / 3])
    assert min_norm_weights(torch.zeros(2, 2)) == [0.5, 0.5]
    assert min_norm_weights(torch.diag(torch.tensor([4.0, 0.0, 4.0]))) == [0.5, 0.0, 0.5]


@few
@given(st.integers(3, 6), st.integers(1, 5), st.integers(0, 10_000))
def test_min_norm_of_many_is_the_least_of_the_simplex(count, dimensions, seed):
    g = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, dimensions, generator=g, dtype=torch.float64) + 0.7
    products = vectors @ vectors.T
    w = min_norm_point(products)
    assert float(w.min()) >= 0
    assert float(w.sum()) == pytest.approx(1.0)
    # Kuhn-Tucker: no vertex lies below the hyperplane through the answer.
    value = w @ products @ w
    assert float((products @ w - value).min()) >= -1e-8 * float(products.diagonal().max())


def test_min_norm_direction_moves_no_expert_backwards():
    made = experts()
    merged = merge_experts(made, method="min-norm")
    mixed = merge_experts([merged.deltas, *made]).deltas  # for the union of modules only
    assert set(mixed) == {"a", "b"}
    products = gram([merged.deltas, *made])[0, 1:]
    assert float(products.min()) > 0
    with pytest.raises(ValueError, match="finds the weights itself"):
        merge_experts(made, [1, 2, 3], "min-norm")


def test_nesterov_follows_its_recursion_over_two_rounds():
    first, second = matrix([[1.0, 0.0]]), matrix([[0.0, 2.0]])
    one = merge_experts([{"a": first}], method="nesterov")
    # M = (1, 0); change = 0.7 (1 + 0.9) (1, 0)
    torch.testing.assert_close(one.deltas["a"].dense(), torch.tensor([[1.33, 0.0]]))
    assert one.state is not None
    two = merge_experts([{"a": second}], method="nesterov", state=one.state)
    # M = 0.9 (1, 0) + (0, 2); change = 0.7 ((0, 2) + 0.9 M) = (0.567, 2.66)
    torch.testing.assert_close(two.deltas["a"].dense(), torch.tensor([[0.567, 2.66]]))
    torch.testing.assert_close(two.state["a"].dense(), torch.tensor([[0.9, 2.0]]))
    # The state's rank is held to the matrix's own, and a module that stops changing drifts on.
    assert two.state["a"].rank == 1
    three = merge_experts([{"b": second}], method="nesterov", state=two.state)
    torch.testing.assert_close(three.deltas["a"].dense(), 0.7 * 0.81 * torch.tensor([[0.9, 2.0]]))


def test_simplex_lattice_and_search():
    assert list(simplex_lattice(2, 2)) == [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]
    points = list(simplex_lattice(3, 4))
    assert len(points) == math.comb(6, 4)
    assert all(sum(p) == pytest.approx(1.0) for p in points)
    found = search_weights(lambda w: -abs(w[0] - 0.5) - w[1], 3, 4)
    assert (found.weights, found.value) == ([0.5, 0.0, 0.5], 0.0)
    assert search_weights(lambda w: 1.0, 2, 2).weights == [0.5, 0.5]  # ties go to the even split
    merged = merge_experts(experts(), method="search", evaluate=lambda w: w[1], divisions=2)
    assert merged.weights == [0.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="not a number"):
        search_weights(lambda w: math.nan, 2, 2)
    with pytest.raises(ValueError, match="lattice"):
        list(simplex_lattice(0, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "average"}, "unknown merge method average"),
        ({"method": "compressed"}, "needs a rank or an energy"),
        ({"rank": 2, "energy": 0.5}, "either a rank or an energy"),
        ({"method": "ties", "dense": 0.5}, "no option dense; it takes: density"),
        ({"density": 0.5}, "exact has no option density; it takes: none"),
        ({"method": "ties", "density": 0.0}, "density"),
        ({"method": "dare", "density": 1.5}, "density"),
        ({"method": "dare-q", "q": 0.0}, "q 0.0"),
        ({"method": "nesterov", "momentum": 1.0}, "momentum"),
        ({"method": "search"}, "search needs evaluate"),
        ({"weights": [1, -1, 1]}, "not negative"),
        ({"weights": [0, 0, 0]}, "all weights are zero"),
        ({"weights": [math.nan, 1, 1]}, "finite"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        merge_experts(experts(), **arguments)


def test_nothing_to_merge_is_refused():
    with pytest.raises(ValueError, match="no adapter given"):
        merge_experts([])
