"""The closed form of DAREx's q, by values from its paper's formula and by its limits."""

from __future__ import annotations

import math

import pytest
import torch

from paretune.ops.analytic_q import analytic_q, phi


def test_phi() -> None:
    assert phi(0.9) == pytest.approx(0.3641, abs=5e-5)
    assert phi(0.1) == pytest.approx(phi(0.9))
    assert phi(0.5) == 0.5
    assert phi(0.5 + 1e-5) == pytest.approx(0.5, abs=1e-6)
    for p in (0.0, 1.0):
        with pytest.raises(ValueError, match="it lies in"):
            phi(p)


def test_q_is_the_root_of_the_bound() -> None:
    """60 entries of -1/2 have the sum -30 and the squares 15. At p .5 and eta 1 the bound is
    -30 (1 - .5/q) + 1.875 / q^2 + ln 40, whose root is .6750 on the grid of steps of 1/400.
    """
    c = torch.full((2, 60), -0.5)
    q = analytic_q(c, 0.5, 1.0)
    assert abs(-30 * (1 - 0.5 / q) + 1.875 / q**2 + math.log(40)) < 0.1
    assert q == pytest.approx(0.6750)


def test_without_inputs_q_is_dares() -> None:
    """All q give the same bound, of which the first, 1 - p, is taken: dare."""
    assert analytic_q(torch.zeros(3, 4), 0.9, 1.0) == pytest.approx(0.1)
