"""Losses on pairs of answers by one link, -log sigmoid of a scaled gap of scores, with several weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from ...config import RunConfig
from ...data.answer_lists import ROUNDING, Answer, AnswerList
from ...limits import NonNegative, PositiveReal
from ...ops import list_losses as links
from ...ops import token_weights as tokens
from ...ops.list_losses import Lists
from ...ops.preference_losses import margin_weights, semantic_weights
from ...types import ParetuneError
from .lists import ListLoss, ListOptions
from .record_needs import refuse_squashed

HUGE = 100.0  # of a guide's number for a token
UnitShare = Annotated[float, Field(ge=0, le=1)]


def given_of(lists: Lists) -> Tensor:
    """The numbers that the records hold for every token."""
    assert lists.given is not None
    return lists.given


class PairLink(ListLoss):
    """-log sigmoid(beta (s_w - s_l)), the link of most of the losses."""

    @classmethod
    def link(cls, s: Tensor, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        return links.pair_link(s, beta)


class ListDPO(PairLink):
    """DPO with our tokens: answers may go on a prefix and end open, as steps do (Step-DPO)."""

    paper = "2305.18290 (DPO); on steps 2406.18629 (Step-DPO)"
    formula = "-log s(b (D_w - D_l))"


class LNDPO(PairLink):
    """Length-normalised DPO: the mean log-ratio of a token."""

    beta, paper, formula = 5.0, "2407.15229 (LN-DPO)", "-log s(b (D_w/|y_w| - D_l/|y_l|))"
    dimensions = ("pair", "sentence", "length")

    @classmethod
    def token_weights(cls, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        return tokens.mean_tokens(lists.mask)


class LDOptions(ListOptions):
    """Options of `ld_dpo`."""

    alpha: UnitShare = Field(0.5, description="what tokens beyond the shorter answer's length count")


class LDDPO(PairLink):
    """Length-desensitised DPO: the tail beyond the common length is damped."""

    options_kind, paper, formula = LDOptions, "2409.06411 (LD-DPO)", "-log s(b (D^_w - D^_l))"
    dimensions = ("pair", "token", "length")

    @classmethod
    def token_weights(cls, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        return tokens.common_tokens(lists.mask, options.alpha)


class FlexOptions(ListOptions):
    """Options of `flex_dpo`."""

    slower: UnitShare = Field(0.5, description="beta of the rejected answer, as a share of the chosen one's")


class FlexDPO(PairLink):
    """Flex-DPO: the rejected answer falls more slowly than the chosen one rises."""

    options_kind, paper, formula = FlexOptions, "2406.07327 (3D-properties)", "-log s(b+ D_w - b- D_l)"
    dimensions = ("pair", "sentence", "likelihood collapse")

    @classmethod
    def token_weights(cls, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        return tokens.side_tokens(lists.mask, 1.0, options.slower)


class GammaOptions(ListOptions):
    """Options of `dpo_gamma`."""

    gamma: NonNegative = Field(0.5, description="how much the reference counts; 1: DPO, 0: no reference")


class DPOGamma(PairLink):
    """DPO with a weaker reference, which can rank pairs that the reference ranks wrong."""

    options_kind, paper = GammaOptions, "2405.19534 (preference learning and rankings)"
    formula = "-log s(b (log p_w/p_l - g log r_w/r_l))"

    @classmethod
    def values(cls, lists: Lists, options: Any) -> Tensor:
        """See `ListLoss`."""
        assert lists.reference is not None
        return lists.log_probs - options.gamma * lists.reference


class SimPOOptions(ListOptions):
    """Options of `list_simpo`."""

    gamma: NonNegative = Field(1.4, description="the margin")


class ListSimPO(ListLoss):
    """SimPO with our tokens: mean log-probabilities and a margin, without a reference."""

    options_kind, beta, reference = SimPOOptions, 2.5, False
    paper, formula = "2405.14734 (SimPO)", "-log s(b (m_w - m_l) - g)"
    dimensions = ("pair", "sentence", "reference-free")

    @classmethod
    def token_weights(cls, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        return tokens.mean_tokens(lists.mask)

    @classmethod
    def link(cls, s: Tensor, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        return links.pair_link(s, beta, options.gamma)


class CriticalDPO(PairLink):
    """DPO that spares the critical tokens of wrong answers. The record's token weights are contrasts c."""

    paper, formula = "2411.19943 (critical tokens)", "-log s(b (D_w - sum (1 - c_t) l_t))"
    needs, dimensions = ("token_weights",), ("pair", "token", "divergence")

    @classmethod
    def token_weights(cls, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        return tokens.noncritical_tokens(lists.mask, given_of(lists))

    @classmethod
    def check_held(cls, name: str, record: AnswerList, answers: Sequence[Answer], options: Any) -> None:
        """See `ListLoss`. A contrast is a probability."""
        super().check_held(name, record, answers, options)
        _check_kind(name, record, "contrast")
        _check_weights(name, record, answers, -ROUNDING, 1 + ROUNDING, "contrasts from 0 to 1")


class GuideOptions(ListOptions):
    """Options of `tgdpo`."""

    alpha: NonNegative = Field(0.5, description="how much the guide counts")


class GuidedDPO(PairLink):
    """DPO guided by another model. The record's token weights are beta times the guide's log-ratio."""

    options_kind, paper = GuideOptions, "2506.14574 (TGDPO)"
    formula = "-log s(b (sum (1 + a g) l |_w - sum (1 - a g) l |_l))"
    needs, dimensions = ("token_weights",), ("pair", "token", "divergence")

    @classmethod
    def token_weights(cls, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        return tokens.guided_tokens(lists.mask, given_of(lists), options.alpha)

    @classmethod
    def check_held(cls, name: str, record: AnswerList, answers: Sequence[Answer], options: Any) -> None:
        """See `ListLoss`. Beyond 100 no log-ratio times beta is meant."""
        super().check_held(name, record, answers, options)
        _check_kind(name, record, "guide")
        _check_weights(name, record, answers, -HUGE, HUGE, f"numbers from {-HUGE:g} to {HUGE:g}")


def _check_kind(name: str, record: AnswerList, wanted: str) -> None:
    """Raise ParetuneError, which names the prompt, for token weights that are said to be something else."""
    if record.weights not in (None, wanted):
        raise ParetuneError(
            f"objective {name} reads token_weights of a {wanted}: those of the prompt "
            f"{record.prompt.text[:60]!r} are of a {record.weights}; make them by --{wanted}"
        )


def _check_weights(
    name: str, record: AnswerList, answers: Sequence[Answer], least: float, most: float, words: str
) -> None:
    """Raise ParetuneError, which names the prompt, for a weight of a token outside its range."""
    for answer in answers:
        for weight in answer.token_weights or ():
            if not least <= weight <= most:
                raise ParetuneError(
                    f"objective {name} reads token_weights that are {words}: the prompt "
                    f"{record.prompt.text[:60]!r} has {weight:g}"
                )


class MarginOptions(ListOptions):
    """Options of `madpo_text`."""

    score: str = Field(
        "", description="the score whose gap is the margin; default: the record's margin, or its only score"
    )
    most: Annotated[PositiveReal, Field(gt=1)] = Field(2.0, description="the factor of small margins")
    slope: PositiveReal = Field(1.0, description="how fast the factor falls")
    at: PositiveReal = Field(6.907, description="the margin at which the factor is 1")


class MarginDPO(PairLink):
    """DPO whose pairs count by the margin of their rewards, in log-odds."""

    options_kind, paper, formula = MarginOptions, "2510.05342 (MADPO)", "-w(m) log s(b (D_w - D_l))"
    needs, dimensions = ("margin",), ("pair", "sentence", "divergence")

    @classmethod
    def list_weights(cls, lists: Lists, options: Any) -> Tensor:
        """See `ListLoss`."""
        assert lists.margin is not None
        return margin_weights(
            lists.margin, 1 / options.most, options.most, options.slope, options.at
        )

    @classmethod
    def check(cls, config: RunConfig, options: Any) -> None:
        """See `ListLoss`. A squashed reward is a share, and no log-odds."""
        super().check(config, options)
        refuse_squashed(config, named=options.score)


class DriftOptions(ListOptions):
    """Options of `sem_dpo_text`."""

    alpha: NonNegative = Field(1.0, description="how fast the weight falls with the drift")


class SemDPO(PairLink):
    """DPO on rewritten prompts, whose pairs count less the further the text drifts from the user's."""

    options_kind, paper = DriftOptions, "2507.20133 (Sem-DPO)"
    formula, needs = "-exp(-a d) log s(b (D_w - D_l))", ("weight",)

    @classmethod
    def weight_of(cls, record: AnswerList, options: Any) -> float | None:
        """The record's weight, or that of its drift."""
        if record.drift is None:
            return record.weight
        return float(semantic_weights(torch.tensor(record.drift), options.alpha))

    @classmethod
    def list_weights(cls, lists: Lists, options: Any) -> Tensor:
        """See `ListLoss`."""
        assert lists.weight is not None
        return lists.weight
