"""The symbolic form of a preference loss: which of the four worlds it counts as good, and which as bad.

Propositions w and l say that the model deems the better and the worse answer valid; their probabilities p_w
and p_l are those of the answers. A world assigns a truth value to both, and weighs the product of p or 1 - p.
A loss is -log sigmoid(beta rho), where e^rho is the weight of the good worlds over that of the bad ones. A
world may be good, bad, both (its weight is on both sides), or neither.

Source: "Understanding the Logic of Direct Preference Alignment through Logic" (2412.17696). Probabilities of
whole answers underflow, so everything is computed from log-probabilities.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .list_losses import log1mexp

World: TypeAlias = tuple[bool, bool]  # (w, l)
WORLDS: tuple[World, ...] = ((True, True), (True, False), (False, True), (False, False))


@dataclass(frozen=True)
class Form:
    """good, bad: worlds (w, l). reads: the two in words, as formulas."""

    good: frozenset[World]
    bad: frozenset[World]
    reads: tuple[str, str]

    @classmethod
    def of(cls, good: str, bad: str) -> Form:
        """The form of two formulas. Raises ValueError as `worlds_of` does."""
        return cls(worlds_of(good), worlds_of(bad), (good, bad))


def worlds_of(formula: str) -> frozenset[World]:
    """The worlds in which a formula of w, l, not, and, or, and brackets is true.

    Raises ValueError, in one line, for anything else.
    """
    return frozenset(
        world for world in WORLDS if _Reader(formula, {"w": world[0], "l": world[1]}).whole()
    )


class _Reader:
    """Evaluates a formula by recursive descent: or binds loosest, not tightest."""

    def __init__(self, formula: str, values: Mapping[str, bool]) -> None:
        self.formula, self.values = formula, values
        self.words = formula.replace("(", " ( ").replace(")", " ) ").split()
        if len(self.words) > 100:
            raise ValueError("a formula has at most 100 words")

    def whole(self) -> bool:
        value = self._either()
        if self.words:
            raise self._wrong()
        return value

    def _either(self) -> bool:
        value = self._both()
        while self._take("or"):
            other = self._both()
            value = value or other
        return value

    def _both(self) -> bool:
        value = self._one()
        while self._take("and"):
            other = self._one()
            value = value and other
        return value

    def _one(self) -> bool:
        if self._take("not"):
            return not self._one()
        if self._take("("):
            value = self._either()
            if not self._take(")"):
                raise self._wrong()
            return value
        if self.words and self.words[0] in self.values:
            return self.values[self.words.pop(0)]
        raise self._wrong()

    def _take(self, word: str) -> bool:
        found = bool(self.words) and self.words[0] == word
        if found:
            self.words.pop(0)
        return found

    def _wrong(self) -> ValueError:
        rest = " ".join(self.words[:5])
        at = f"at {rest!r}" if rest else "at its end"
        return ValueError(f"{self.formula[:60]!r} is no formula of w, l, not, and, or, (, ) ({at})")


# Name -> its form. The propositions are those of the module; CPO is also DPO's, with a reference.
FORMS: dict[str, Form] = {
    "ce": Form.of("w", "not w"),
    "ce_unl": Form.of("w and not l", "not w or l"),
    "cpo": Form.of("w", "l"),
    "orpo": Form.of("w and not l", "l and not w"),
    "un_cpo": Form.of("w or not l", "l and not w"),
    "c_cpo": Form.of("w", "l and not w"),
    "cf_unl": Form.of("not l", "l and not w"),
    "qf_unl": Form.of("not l", "not w"),
}
FORMULAS: dict[str, str] = {
    "ce": "p_w / (1 - p_w)",
    "ce_unl": "p_w (1 - p_l) / (1 - p_w (1 - p_l))",
    "cpo": "p_w / p_l",
    "orpo": "p_w (1 - p_l) / (p_l (1 - p_w))",
    "un_cpo": "(1 - p_l (1 - p_w)) / (p_l (1 - p_w))",
    "c_cpo": "p_w / (p_l (1 - p_w))",
    "cf_unl": "(1 - p_l) / (p_l (1 - p_w))",
    "qf_unl": "(1 - p_l) / (1 - p_w)",
}


def log_weight(worlds: frozenset[World], log_p: Tensor) -> Tensor:
    """The log of the weight of some worlds. log_p: log p_w and log p_l, [B, 2]. Returns [B]."""
    sides = torch.stack([log1mexp(log_p), log_p.clamp(max=-1e-7)])  # false, true
    if not worlds:
        return torch.full_like(log_p[:, 0], -torch.inf)
    terms = [sides[int(w), :, 0] + sides[int(worse), :, 1] for w, worse in sorted(worlds)]
    return torch.logsumexp(torch.stack(terms), 0)


def log_ratio(form: Form, log_p: Tensor) -> Tensor:
    """rho. [B, 2] -> [B]."""
    return log_weight(form.good, log_p) - log_weight(form.bad, log_p)


def symbolic_link(form: Form, log_p: Tensor, beta: float, reference: Tensor | None = None) -> Tensor:
    """-log sigmoid(beta rho), with a reference of beta (rho - rho_ref). [B, 2] -> [B].

    log_p, reference: the log-probabilities of the better and the worse answer under the two models.
    """
    rho = log_ratio(form, log_p)
    if reference is not None:
        rho = rho - log_ratio(form, reference)
    return softplus(-beta * rho)


def entails(form: Form, other: Form) -> bool:
    """Whether the loss of `form` is never below that of `other`.

    It is if every good world of `form` is one of `other`'s, and every bad world of `other` one of `form`'s.
    """
    return form.good <= other.good and other.bad <= form.bad


def all_forms() -> list[tuple[frozenset[World], frozenset[World]]]:
    """The good and the bad worlds of all 256 losses of two propositions."""
    subsets = [
        frozenset(world for world, taken in zip(WORLDS, chosen, strict=True) if taken)
        for chosen in itertools.product((True, False), repeat=len(WORLDS))
    ]
    return list(itertools.product(subsets, subsets))


def form_of(
    good: frozenset[World], bad: frozenset[World]
) -> str | None:
    """The name in FORMS of the loss with these worlds, or None."""
    return next((name for name, form in FORMS.items() if (form.good, form.bad) == (good, bad)), None)
