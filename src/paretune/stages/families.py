"""Families of models: what a method offers for each preference among the rewards.

A merged model is one point; experts that were never melted into one offer a point for every convex
combination. Evaluation asks a family for the model at a preference and never which method made it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ops.merge_weights import simplex_lattice
from ..plan import Plan


@dataclass(frozen=True)
class Mixed:
    """A model as adapters over the base: folders below the run, and the factor of each."""

    adapters: tuple[str, ...]
    scales: tuple[float, ...]


@dataclass(frozen=True)
class PolicyFamily:
    """fixed: adapters of every member. experts: one a reward, weighted by the preference; may be none."""

    method: str
    fixed: tuple[str, ...]
    experts: tuple[str, ...] = ()

    def at(self, preference: tuple[float, ...]) -> Mixed:
        """The model for a preference: weights that sum to 1, one a reward."""
        weighted = [(e, p) for e, p in zip(self.experts, preference, strict=True) if p > 0]
        return Mixed(
            (*self.fixed, *(e for e, _ in weighted)),
            (*(1.0 for _ in self.fixed), *(p for _, p in weighted)),
        )


def families_of(plan: Plan) -> list[PolicyFamily]:
    """The families of a plan's methods that have more than one member.

    A method whose last round trained one expert a reward weighs those by the preference, on the model that
    the rounds before it made: for a soup all it has, for MapReduce the last round alone.
    """
    families = []
    for method in plan.methods:
        last = method.rounds[-1]
        if len(last.tasks) > 1:
            experts = tuple(task.folder for task in last.tasks)
            families.append(PolicyFamily(method.name, last.tasks[0].parents, experts))
    return families


def preferences(rewards: int, divisions: int) -> list[tuple[float, ...]]:
    """The lattice of preferences, without the even one, which every method is measured at anyway."""
    even = 1 / rewards
    points = simplex_lattice(rewards, divisions)
    return [p for p in points if any(abs(share - even) > 1e-9 for share in p)]
