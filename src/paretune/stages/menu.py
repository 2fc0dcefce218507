"""Families of models: what a method offers for each preference among the rewards.

A merged model is one point; experts that were never melted into one offer a point for every convex
combination, and so do reward tokens. Evaluation asks a family for the model at a preference and never
which method made it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ops.merge_weights import simplex_lattice
from ..planning.plan import Plan
from ..reward_tokens.spec import TokenUse


@dataclass(frozen=True)
class Mixed:
    """A model as adapters over the base: folders below the run, and the factor of each; and its tokens."""

    adapters: tuple[str, ...]
    scales: tuple[float, ...]
    tokens: tuple[TokenUse, ...] = ()


@dataclass(frozen=True)
class PolicyFamily:
    """fixed: adapters of every member. One a reward, weighted by the preference: experts, tokens, or none."""

    method: str
    fixed: tuple[str, ...]
    experts: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()

    def at(self, preference: tuple[float, ...]) -> Mixed:
        """The model for a preference: weights that sum to 1, one a reward.

        An expert's factor is its weight, for experts are averaged. A token's scale is its weight over the
        largest: the most wanted is there in full, as alone, and the others follow it.
        """
        weighted = _positive(self.experts, preference)
        wanted = _positive(self.tokens, preference)
        top = max((p for _, p in wanted), default=1.0)
        return Mixed(
            (*self.fixed, *(e for e, _ in weighted)),
            (*(1.0 for _ in self.fixed), *(p for _, p in weighted)),
            tuple(TokenUse(t, scale=p / top) for t, p in wanted),
        )


def _positive(names: tuple[str, ...], preference: tuple[float, ...]) -> list[tuple[str, float]]:
    if not names:
        return []
    return [(name, p) for name, p in zip(names, preference, strict=True) if p > 0]


def token_family(rewards: tuple[str, ...], fixed: tuple[str, ...] = ()) -> PolicyFamily:
    """Reward tokens on the base, or on the model that the adapters `fixed` make of it."""
    return PolicyFamily("rate", fixed, tokens=rewards)


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


def preferences(own: tuple[float, ...], divisions: int) -> list[tuple[float, ...]]:
    """The lattice of preferences, without the recipe's own, which every method is measured at anyway."""
    points = simplex_lattice(len(own), divisions)
    return [p for p in points if any(abs(a - b) > 1e-9 for a, b in zip(p, own, strict=True))]
