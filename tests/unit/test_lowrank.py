"""Low-rank algebra: literal numbers, and equality with the dense matrices it never forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paretune.ops.lowrank import (
    LowRank,
    compress,
    cosines,
    distance,
    gram,
    inner,
    normalised,
    rank_for_energy,
    singular_values,
    spread,
    stack,
)

few = settings(max_examples=20, deadline=None, derandomize=True, database=None)
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))


def random(m: int, n: int, r: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> LowRank:
    g = torch.Generator().manual_seed(seed)
    return LowRank(
        torch.randn(m, r, generator=g).to(dtype), torch.randn(r, n, generator=g).to(dtype)
    )


def rank_one(b: list[float], a: list[float]) -> LowRank:
    return LowRank(torch.tensor(b).unsqueeze(1), torch.tensor(a).unsqueeze(0))


def test_inner_and_norm_of_literal_factors():
    x = rank_one([1.0, 2.0], [3.0, 4.0])  # [[3, 4], [6, 8]]
    y = rank_one([1.0, 0.0], [1.0, -1.0])  # [[1, -1], [0, 0]]
    assert inner(x, y) == -1.0
    assert x.norm() == pytest.approx(math.sqrt(125))
    assert x.dense().tolist() == [[3.0, 4.0], [6.0, 8.0]]
    assert (x.rank, x.shape) == (1, (2, 2))


@few
@given(sizes, st.integers(1, 5), st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
def test_inner_and_distance_equal_the_dense_ones(size, other_rank, dtype):
    m, n, r = size
    x, y = random(m, n, r, 1, dtype), random(m, n, other_rank, 2, dtype)
    dense_x = x.B.double() @ x.A.double()
    dense_y = y.B.double() @ y.A.double()
    assert inner(x, y) == pytest.approx(float((dense_x * dense_y).sum()), abs=1e-9, rel=1e-9)
    assert distance(x, y) == pytest.approx(float((dense_x - dense_y).norm()), abs=1e-4)
    assert distance(x, x) == pytest.approx(0.0, abs=1e-5)


def test_stack_is_the_exact_weighted_sum_of_what_is_there():
    x, y = random(5, 7, 2, 1), random(5, 7, 3, 2)
    total = stack([x, None, y], [0.25, 9.0, -2.0])
    assert total.rank == 5
    torch.testing.assert_close(total.dense(), 0.25 * x.dense() - 2 * y.dense())
    assert stack([x, y], [1.0, 0.0]).rank == 2
    zero = stack([x], [0.0])
    assert (zero.rank, zero.shape) == (0, (5, 7))
    assert zero.norm() == 0.0


@few
@given(sizes, st.integers(1, 9))
def test_compression_leaves_exactly_the_tail_singular_values(size, rank):
    x = random(*size, seed=3)
    dense = x.dense().double()
    values = torch.linalg.svdvals(dense)
    cut = compress(x, rank=rank)
    tail = float(values[rank:].norm() / values.norm())
    assert cut.relative_error == pytest.approx(tail, abs=2e-6)
    left = float((cut.delta.dense().double() - dense).norm() / dense.norm())
    assert left == pytest.approx(tail, abs=2e-6)
    assert cut.delta.rank <= rank
    ours = singular_values(x)
    torch.testing.assert_close(ours, values[: len(ours)], atol=1e-5, rtol=1e-5)


def test_energy_keeps_the_least_sufficient_rank():
    x = LowRank(torch.diag(torch.tensor([4.0, 3.0, 0.0])), torch.eye(3))  # energies 16/25, 9/25
    assert compress(x, energy=0.64).delta.rank == 1
    assert compress(x, energy=0.64).relative_error == pytest.approx(0.6)
    assert compress(x, energy=0.65).delta.rank == 2
    assert compress(x, energy=1.0).delta.rank == 2
    assert rank_for_energy(torch.tensor([2.0, 1.0, 1.0]), 0.8) == 2


def test_compressed_factors_do_not_depend_on_the_signs_of_the_input():
    x = random(6, 5, 3)
    first = compress(x, rank=2).delta
    second = compress(LowRank(-x.B, -x.A), rank=2).delta
    torch.testing.assert_close(first.B, second.B)
    torch.testing.assert_close(first.A, second.A)
    assert bool((first.B.gather(0, first.B.abs().argmax(0, keepdim=True)) > 0).all())


def test_zero_and_overcomplete_factors_compress():
    assert compress(LowRank(torch.zeros(3, 2), torch.zeros(2, 4)), energy=0.9).relative_error == 0.0
    assert compress(LowRank(torch.zeros(3, 0), torch.zeros(0, 4)), rank=1).delta.rank == 0
    wide = random(3, 4, 9)
    torch.testing.assert_close(compress(wide, rank=3).delta.dense(), wide.dense())


def test_gram_counts_an_absent_module_as_zero():
    x, y = rank_one([1.0], [3.0]), rank_one([1.0], [4.0])
    assert gram([{"a": x, "b": y}, {"b": x}]).tolist() == [[25.0, 12.0], [12.0, 9.0]]
    assert cosines(gram([{"a": x}, {"b": y}])).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_cosines_of_opposite_and_zero_experts():
    x, zero = rank_one([1.0], [3.0]), rank_one([0.0], [1.0])
    minus = rank_one([-2.0], [3.0])
    matrix = cosines(gram([{"a": x}, {"a": minus}, {"a": zero}]))
    assert matrix.tolist() == [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


@few
@given(st.lists(st.floats(0.1, 3), min_size=3, max_size=3))
def test_spread_is_the_greatest_distance_to_the_mean(weights):
    experts = [{"a": random(4, 6, 2, s), "b": random(3, 3, 1, s + 9)} for s in range(3)]
    w = torch.tensor(normalised(weights, 3))
    flat = torch.stack([torch.cat([d.dense().flatten() for d in e.values()]) for e in experts])
    expected = float((flat - w @ flat).norm(dim=1).max())
    assert spread(experts, weights) == pytest.approx(expected, rel=1e-4)
    assert spread([experts[0], experts[0]], [1, 2]) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0, -0.5], "not negative"), ([0.0, 0.0], "all weights are zero"),
     ([math.nan, 1.0], "finite"), ([math.inf, 1.0], "finite"), ([1.0], "1 weights for 2")],
)  # fmt: skip
def test_weights_that_make_no_sense_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        normalised(weights, 2)


def test_bad_arguments_are_refused():
    x = random(3, 4, 2)
    with pytest.raises(ValueError, match="do not fit"):
        LowRank(torch.zeros(3, 2), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="shapes differ"):
        stack([x, random(4, 3, 2)], [1, 1])
    with pytest.raises(ValueError, match="shapes differ"):
        inner(x, random(4, 3, 2))
    with pytest.raises(ValueError, match="absent everywhere"):
        stack([None], [1.0])
    with pytest.raises(ValueError, match="1 weights for 2"):
        stack([x, x], [1.0])
    for wrong in ({}, {"rank": 2, "energy": 0.5}, {"rank": 0}, {"energy": 0.0}, {"energy": 1.5}):
        with pytest.raises(ValueError, match=r"rank|energy"):
            compress(x, **wrong)
