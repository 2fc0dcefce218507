"""Menus: the models that a method offers, one for each preference among the rewards.

A merged model is a single point. Experts that were not merged offer a model for every convex combination of
their weights, and so do reward tokens. The evaluation asks a menu for the model at a preference; it never
asks which method made that model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..ops.merge_weights import simplex_lattice
from ..planning.plan import Plan, Round
from ..records.read import read_diagnostics
from ..reward_tokens.spec import TokenUse
from .reduce import DIAGNOSTICS


@dataclass(frozen=True)
class Mixed:
    """A model described as a sum over the base.

    adapters: folders below the run's folder. scales: the factor of each adapter. tokens: the reward tokens
    that follow every prompt. weighted: the folder of the embedding of weights, "" for none. weights: what it
    is given.
    """

    adapters: tuple[str, ...]
    scales: tuple[float, ...]
    tokens: tuple[TokenUse, ...] = ()
    weighted: str = ""
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class Menu:
    """The models of one method, one for each preference.

    fixed: adapters that every model of the menu has. experts, tokens: one for each reward, weighted by the
    preference; a menu has either of them, or neither. step: how much of the experts' mean is added. weighted:
    the folder of an embedding that gives the preference to the model itself.
    """

    method: str
    fixed: tuple[str, ...]
    experts: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    step: float = 1.0
    weighted: str = ""

    def at(self, preference: tuple[float, ...]) -> Mixed:
        """The model for a preference: one weight for each reward, and the weights sum to 1.

        The factor of an expert is its weight times the step, because experts are averaged. The scale of a
        token is its weight divided by the largest weight: the token that is wanted most has its full
        strength, as it has alone.
        """
        weighted = _positive(self.experts, preference)
        wanted = _positive(self.tokens, preference)
        top = max((p for _, p in wanted), default=1.0)
        return Mixed(
            (*self.fixed, *(e for e, _ in weighted)),
            (*(1.0 for _ in self.fixed), *(p * self.step for _, p in weighted)),
            tuple(TokenUse(t, scale=p / top) for t, p in wanted),
            self.weighted,
            preference if self.weighted else (),
        )


def _positive(names: tuple[str, ...], preference: tuple[float, ...]) -> list[tuple[str, float]]:
    if not names:
        return []
    return [(name, p) for name, p in zip(names, preference, strict=True) if p > 0]


def token_menu(rewards: tuple[str, ...], fixed: tuple[str, ...] = ()) -> Menu:
    """The menu of reward tokens, on the base or on the model that the adapters `fixed` make of the base."""
    return Menu("rate", fixed, tokens=rewards)


def step_of(round_: Round, run_folder: Path | None) -> float:
    """How much of a round's average is folded. A step that the run has yet to choose counts as 1.

    So does one that stands for 1/q of `dare-q`: it makes good what a mask left out, and a menu has no mask.
    """
    if isinstance(round_.step, float):
        return round_.step
    if round_.rescales:
        return 1.0
    chosen = None if run_folder is None else run_folder / round_.merged / DIAGNOSTICS
    if chosen is None or not chosen.exists():
        return 1.0
    return float(read_diagnostics(chosen).get("step", 1.0))


def menus_of(plan: Plan, run_folder: Path | None = None) -> list[Menu]:
    """The menus of those methods of a plan that offer more than one model.

    A method has a menu if its last round trained one expert for each reward, or if its model is given the
    preference. The menu weights these experts by the preference, on the model that the earlier rounds made. A
    soup has one round, so all its experts are weighted; of MapReduce only those of the last round are, with
    the step of that round (`step_of`) and without its momentum.
    """
    menus = []
    for method in plan.methods:
        last = method.rounds[-1]
        if len(last.tasks) > 1:
            experts = tuple(task.folder for task in last.tasks)
            step = step_of(last, run_folder)
            menus.append(Menu(method.name, last.tasks[0].parents, experts, step=step))
        elif method.weighted:
            menus.append(Menu(method.name, method.model, weighted=method.weighted))
    return menus


def preferences(recipe_weights: tuple[float, ...], divisions: int) -> list[tuple[float, ...]]:
    """The lattice of preferences without the recipe's weights, at which every method is measured anyway."""
    points = simplex_lattice(len(recipe_weights), divisions)
    return [p for p in points if any(abs(a - b) > 1e-9 for a, b in zip(p, recipe_weights, strict=True))]
