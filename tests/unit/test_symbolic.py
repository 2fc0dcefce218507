"""Symbolic forms of losses: their tables, their closed forms, and which loss bounds which."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from paretune.commands.analyse.losses import losses
from paretune.ops.list_losses import asft_link, pair_link
from paretune.ops.symbolic import (
    FORMS,
    FORMULAS,
    all_forms,
    entails,
    form_of,
    log_ratio,
    symbolic_link,
    worlds_of,
)

AT = torch.tensor([[0.6, 0.25]], dtype=torch.float64).log()
# name -> e^rho and -log sigmoid(rho) at p_w = .6 and p_l = .25
VALUES = {
    "ce": (1.5, 0.5108), "ce_unl": (0.8182, 0.7985), "cpo": (2.4, 0.3483), "orpo": (4.5, 0.2007),
    "un_cpo": (9.0, 0.1054), "c_cpo": (6.0, 0.1542), "cf_unl": (7.5, 0.1252), "qf_unl": (1.875, 0.4274),
}  # fmt: skip


def _drawn() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(500, 2, generator=generator, dtype=torch.float64).clamp(0.01, 0.99)


@pytest.mark.parametrize("name", FORMS)
def test_values_of_the_table(name: str) -> None:
    ratio, loss = VALUES[name]
    assert float(log_ratio(FORMS[name], AT).exp()) == pytest.approx(ratio, abs=5e-5)
    assert float(symbolic_link(FORMS[name], AT, 1.0)) == pytest.approx(loss, abs=5e-5)


@pytest.mark.parametrize("name", FORMS)
def test_counting_worlds_gives_the_closed_form(name: str) -> None:
    p = _drawn()
    closed = FORMULAS[name].replace("(1 - p_l (1 - p_w))", "(1 - p_l * (1 - p_w))")
    closed = closed.replace("p_w (", "p_w * (").replace("p_l (", "p_l * (").replace(") (", ") * (")
    wanted = eval(closed, {"p_w": p[:, 0], "p_l": p[:, 1]})
    torch.testing.assert_close(log_ratio(FORMS[name], p.log()).exp(), wanted)


def test_dpo_is_cpo_minus_its_reference() -> None:
    reference = torch.tensor([[0.5, 0.4]], dtype=torch.float64).log()
    found = symbolic_link(FORMS["cpo"], AT, 1.0, reference)
    assert float(found) == pytest.approx(0.4193, abs=5e-5)
    torch.testing.assert_close(found, pair_link(AT - reference, 1.0))


def test_the_alignment_of_asft_is_its_form() -> None:
    log_p = _drawn().log()
    alignment = asft_link(log_p, 1.0) + log_p[:, 0]
    torch.testing.assert_close(alignment, symbolic_link(FORMS["ce_unl"], log_p, 1.0))


def test_what_entails_bounds() -> None:
    assert entails(FORMS["ce_unl"], FORMS["ce"])
    assert entails(FORMS["ce"], FORMS["un_cpo"])
    assert not entails(FORMS["un_cpo"], FORMS["ce"])
    log_p = _drawn().log()
    for a, b in itertools.permutations(FORMS, 2):
        if entails(FORMS[a], FORMS[b]):
            above, below = (symbolic_link(FORMS[name], log_p, 1.0) for name in (a, b))
            assert bool((above >= below - 1e-9).all()), (a, b)


def test_two_propositions_have_256_losses() -> None:
    forms = all_forms()
    assert len(set(forms)) == 256
    named = [name for form in forms if (name := form_of(*form)) is not None]
    assert sorted(named) == sorted(FORMS)


def test_formulas() -> None:
    assert worlds_of("not (w or l)") == {(False, False)}
    assert worlds_of("w or not l and w") == {(True, True), (True, False)}
    assert worlds_of("not not l") == worlds_of("l")
    for wrong in ("w and", "w l", "x", "(w", "__import__('os')", "", "w &"):
        with pytest.raises(ValueError, match="is no formula of w, l") as caught:
            worlds_of(wrong)
        assert "\n" not in str(caught.value)


def test_every_loss_on_pairs_has_a_row_and_most_squares_and_hinges_no_form() -> None:
    rows = {row["loss"]: row["form"] for row in losses()}
    assert {"dpo", "ipo", "robust", "sppo_hard", "apo_zero", "apo_down", "cpo", "list_dpo"} <= rows.keys()
    assert [rows[name] for name in ("ipo", "hinge", "kto", "cdpo")] == ["none"] * 4
    assert (rows["dpo"], rows["simpo"], rows["orpo"], rows["asft"]) == ("cpo", "cpo", "orpo", "ce_unl")


def test_the_row_of_dpo_subtracts_its_reference() -> None:
    """.6 and .25 under the policy, .5 and .4 under the reference; asft shows its alignment alone."""
    rows = {row["loss"]: row for row in losses()}
    for name in ("dpo", "list_dpo", "ln_dpo", "madpo_text", "sem_dpo_text"):
        assert rows[name]["reference"]
        assert (rows[name]["ratio"], rows[name]["value"]) == (
            pytest.approx(1.92), pytest.approx(0.4193, abs=5e-5),
        )  # fmt: skip
    assert rows["asft"]["value"] == pytest.approx(0.7985, abs=5e-5)
    assert rows["asft"]["more"] == "and -k log p_w"
    assert not rows["simpo"]["reference"]
