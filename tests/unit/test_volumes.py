"""Hypervolumes of single models, by hand."""

import math

import pytest

from paretune.stages.volumes import Space

# One reward in [0, 10], one cost in [0, 4], one without a range.
SPACE = Space(
    {"reward": (0.0, 10.0), "cost": (0.0, 4.0), "free": (-math.inf, math.inf)},
    {"reward": True, "cost": False, "free": True},
)
MODELS = [{"reward": 5.0, "cost": 1.0, "free": 2.0}, {"reward": 8.0, "cost": 2.0, "free": 12.0}]


def test_reference_is_the_worst_end_or_below_the_worst_model() -> None:
    """free: 2 less a tenth of the 10 between the models."""
    assert SPACE.reference(MODELS) == pytest.approx({"reward": 0.0, "cost": 4.0, "free": 1.0}, abs=1e-5)


def test_hypervolume_is_the_product_of_the_scaled_gains() -> None:
    reference = {"reward": 0.0, "cost": 4.0, "free": 1.0}
    found = [SPACE.hypervolume(model, reference) for model in MODELS]
    assert found == pytest.approx([0.5 * 0.75 * 1, 0.8 * 0.5 * 11])


def test_a_cost_without_a_range_is_measured_from_above() -> None:
    space = Space({"cost": (0.0, math.inf)}, {"cost": False})
    reference = space.reference([{"cost": 1.0}, {"cost": 3.0}])
    assert reference["cost"] == pytest.approx(3.2, abs=1e-5)
    assert space.hypervolume({"cost": 1.0}, reference) == pytest.approx(2.2, abs=1e-5)
