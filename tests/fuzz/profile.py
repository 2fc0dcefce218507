"""How long the property tests search: a few examples in every run of the suite, minutes with -m slow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]


def quick(examples: int = 40) -> Any:
    """Seconds, the same examples every time."""
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None,
                    suppress_health_check=_QUIET)  # fmt: skip


def long(examples: int) -> Any:
    """A minute or two on an idle machine: with the run folders, all of them take less than ten."""
    return settings(max_examples=examples, deadline=None, database=None, suppress_health_check=_QUIET)


slow = pytest.mark.slow
