"""The symbolic form of every loss: which worlds it raises, and which it lowers (2412.17696)."""

from __future__ import annotations

import math
from typing import Any

import torch

from ...ops.symbolic import FORMS, FORMULAS, entails, log_ratio, symbolic_link
from ...training.objectives.list_table import list_losses, trl_losses

# Losses whose ratio is one of FORMS; those with a reference subtract the reference's. Token weights, squares,
# hinges and smoothed labels have no such form, and neither has a loss of whole lists or of single answers.
FORM_OF = {
    "dpo": "cpo", "list_dpo": "cpo", "ln_dpo": "cpo", "simpo": "cpo", "list_simpo": "cpo", "cpo": "cpo",
    "orpo": "orpo", "asft": "ce_unl", "madpo_text": "cpo", "sem_dpo_text": "cpo",
}  # fmt: skip
AT = (0.6, 0.25)  # p_w, p_l of the shown values
REFERENCE = (0.5, 0.4)  # the same under the reference, of losses that have one
MORE = {  # beside the form
    "asft": "and -k log p_w", "cpo": "and -k log p_w", "orpo": "and -k log p_w", "simpo": "less a margin",
    "list_simpo": "less a margin", "madpo_text": "times w(m)", "sem_dpo_text": "times a weight",
}  # fmt: skip


def losses() -> list[dict[str, Any]]:
    """One row a loss: its name, source, formula, form, e^rho and loss at AT, and its place in the survey.

    A loss with a reference subtracts the reference's rho, at REFERENCE. `more`: what a loss has beside its
    form, which is not in these numbers.
    """
    at, under = (
        torch.tensor([[math.log(p) for p in where]], dtype=torch.float64) for where in (AT, REFERENCE)
    )
    table = list_losses()
    rows: list[dict[str, Any]] = []
    for name in sorted({*table, *trl_losses()}):
        form = FORM_OF.get(name)
        kind = table.get(name)
        row: dict[str, Any] = {
            "loss": name, "paper": kind.paper if kind else "TRL", "formula": kind.formula if kind else "",
            "form": form or "none", "reference": False, "more": MORE.get(name, ""),
            "good": None, "bad": None, "ratio": None, "value": None,
            "dimensions": list(kind.dimensions) if kind else [],
            "framework": kind.framework if kind else "offline",
        }  # fmt: skip
        if name == "symbolic":
            row["form"] = "any: options.good, options.bad"
        if form is not None:
            anchored = kind.reference if kind else name == "dpo"
            row |= facts_of(form, at, under if anchored else None)
        rows.append(row)
    return rows


def facts_of(form: str, at: torch.Tensor, reference: torch.Tensor | None = None) -> dict[str, Any]:
    """A form in words and in numbers. at, reference: log p_w and log p_l, [1, 2]."""
    one = FORMS[form]
    rho = log_ratio(one, at) if reference is None else log_ratio(one, at) - log_ratio(one, reference)
    return {
        "reference": reference is not None, "good": one.reads[0], "bad": one.reads[1],
        "closed_form": FORMULAS[form], "ratio": float(rho.exp()),
        "value": float(symbolic_link(one, at, 1.0, reference)),
    }  # fmt: skip


def entailments() -> list[dict[str, str]]:
    """Every two forms of which the loss of the first is never below that of the second."""
    return [
        {"above": a, "below": b}
        for a in FORMS for b in FORMS
        if a != b and entails(FORMS[a], FORMS[b])
    ]  # fmt: skip
