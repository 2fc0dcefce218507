"""Losses on lists of answers with a link of their own: see `pair_losses` for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from ...config import RunConfig
from ...data.answer_lists import WINS, Answer, AnswerList, read_answers
from ...limits import NonNegative, PositiveReal, Whole
from ...ops import list_losses as links
from ...ops import rankings, symbolic
from ...ops import token_weights as tokens
from ...ops.list_losses import Lists, score
from ...types import ParetuneError, Prompt
from .lists import ListLoss, ListOptions
from .pair_losses import PairLink, UnitShare, given_of
from .record_needs import refuse_squashed
from .revision import REVISION, revised


class ASFTOptions(ListOptions):
    """Options of `asft`."""

    weight: NonNegative = Field(1.0, description="of the two alignment terms")
    likelihood: NonNegative = Field(1.0, description="of -log p_w; 0 after a supervised stage of its own")


class ASFT(ListLoss):
    """Aligned supervised fine-tuning: absolute likelihoods of a mean token, without a reference."""

    options_kind, beta, reference = ASFTOptions, 1.0, False
    paper, formula = "2409.10571 (ASFT)", "-k log p_w - a (log s(b o_w) + log s(-b o_l))"
    dimensions = ("point", "sentence", "reference-free")

    @classmethod
    def token_weights(cls, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        return tokens.mean_tokens(lists.mask)

    @classmethod
    def link(cls, s: Tensor, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        return links.asft_link(s, options.weight, beta) + (1 - options.likelihood) * s[:, 0]


class TargetOptions(ListOptions):
    """Options of `adpo_text`."""

    target: Literal["rewards", "hard", "pair", "teacher"] = Field(
        "rewards",
        description="softmax of standardised scores; all on the first; a pair's share, or the sigmoid of its "
        "margin; softmax of plain scores, such as a teacher's log-ratios (score: guide)",
    )
    target_temperature: PositiveReal = Field(0.5, description="of the scores' softmax")
    score: str = Field(
        "", description="the score to train on; default: the only one, and for a pair its share or margin"
    )


class AnchoredDPO(ListLoss):
    """ADPO: a whole list towards a soft target. Its temperature is 1 / beta."""

    options_kind, answers, needs = TargetOptions, "list", ("values",)
    given_answers = 4
    paper, formula = "2510.18913 (ADPO)", "-sum_i q_i log softmax(b D)_i"
    dimensions = ("list", "sentence", "dynamic")

    @classmethod
    def link(cls, s: Tensor, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        assert lists.values is not None
        if options.target == "rewards":
            target = rankings.reward_targets(lists.values, options.target_temperature, lists.present)
        elif options.target == "hard":
            target = rankings.first_targets(s)
        elif options.target == "teacher":
            target = rankings.plain_targets(lists.values, options.target_temperature, lists.present)
        else:
            assert lists.margin is not None
            target = rankings.pair_targets(lists.margin)
        return links.list_link(s, target, 1 / beta, lists.present)

    @classmethod
    def check(cls, config: RunConfig, options: Any) -> None:
        """See `ListLoss`. The target of a pair reads log-odds."""
        super().check(config, options)
        if options.target == "pair":
            refuse_squashed(config, ("margin", "share"), options.score)

    @classmethod
    def needs_of(cls, options: Any) -> tuple[str, ...]:
        """See `ListLoss`. The first answer needs no scores, and a pair may have a share."""
        return {"hard": (), "pair": ("share",)}.get(options.target, cls.needs)

    @classmethod
    def margin(cls, record: AnswerList, answers: Sequence[Answer], options: Any) -> float | None:
        """See `ListLoss`. A share has log-odds, infinite for 0 and 1. A named score comes before it."""
        if record.share is None or options.named not in ("", WINS):
            return super().margin(record, record.pair, options)
        return float(torch.logit(torch.tensor(record.share, dtype=torch.float64)))

    @classmethod
    def streams(cls, record: AnswerList, answers: Sequence[Answer], options: Any) -> list[tuple[str, Answer]]:
        """See `ListLoss`. The target of a pair takes the record's pair."""
        taken = record.pair if options.target == "pair" else answers
        return super().streams(record, taken, options)


class TreeOptions(ListOptions):
    """Options of `tree_tpo`."""

    score: str = Field("", description="the score to train on; default: the only one")
    weighted: bool = Field(True, description="whether a pair counts by what swapping it changes")
    steps: bool = Field(False, description="whether answers are scored by their steps and step_weights")


class TreeTPO(ListLoss):
    """Tree preference optimisation: all pairs of a list, by what swapping them changes in the ranking.

    Its weights are made for scores in [0, 1]. Where one of a file lies outside, all of the file are scaled,
    the least to 0 and the greatest to 1.
    """

    options_kind, answers, needs, beta = TreeOptions, "list", ("values",), 0.5
    given_answers = 4
    paper, formula = "2410.12854 (tree TPO)", "-sum_(v_i > v_j) w_ij log s(b (s_i - s_j))"
    dimensions = ("list", "step", "divergence")

    @classmethod
    def token_weights(cls, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        if not options.steps:
            return super().token_weights(lists, beta, options)
        assert lists.step is not None
        return tokens.step_tokens(lists.step, given_of(lists))

    @classmethod
    def link(cls, s: Tensor, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        assert lists.values is not None
        return links.tree_link(s, lists.values, beta, options.weighted, lists.present)

    @classmethod
    def by_step(cls, options: Any) -> bool:
        """See `ListLoss`."""
        return options.steps

    @classmethod
    def streams(cls, record: AnswerList, answers: Sequence[Answer], options: Any) -> list[tuple[str, Answer]]:
        """See `ListLoss`. Steps must be there where they are asked for."""
        if options.steps and any(not answer.step_weights for answer in answers):
            raise ParetuneError(
                f"objective.options.steps: an answer of the prompt {record.prompt.text[:60]!r} has no "
                '"steps" with "step_weights" in its record'
            )
        return super().streams(record, answers, options)

    @classmethod
    def scale_of(cls, prompts: Sequence[Prompt], options: Any) -> Callable[[float], float] | None:
        """See `ListLoss`."""
        low, high = _range_of(prompts, options)
        if low >= 0 and high <= 1:
            return None
        return lambda value: (value - low) / ((high - low) or 1.0)

    @classmethod
    def told_of(cls, name: str, prompts: Sequence[Prompt], options: Any) -> str:
        """See `Objective.told_of`."""
        low, high = _range_of(prompts, options)
        if low >= 0 and high <= 1:
            return ""
        return f"objective {name} scales the scores, which reach from {low:g} to {high:g}, to [0, 1]"


def _range_of(prompts: Sequence[Prompt], options: TreeOptions) -> tuple[float, float]:
    """The least and the greatest score of some prompts; 0 and 0 where there is none."""
    answers = [answer for prompt in prompts for answer in read_answers(prompt).answers]
    scores = [score for answer in answers if (score := options.score_of(answer)) is not None]
    return min(scores, default=0.0), max(scores, default=0.0)


class RevisionOptions(ListOptions):
    """Options of `srpo`."""

    share: UnitShare = Field(0.8, description="of the revisions in the loss; the rest is of first answers")
    revision: str = Field(REVISION, description="the revision prompt, with {prompt} and {answer}")

    @field_validator("revision")
    @classmethod
    def _holds_both(cls, revision: str) -> str:
        if "{prompt}" not in revision or "{answer}" not in revision:
            raise ValueError("give a text that holds {prompt} and {answer}")
        return revision


class SRPO(ListLoss):
    """Self-improving robust preference optimisation: the model also learns to revise an answer."""

    options_kind, paper, given_answers = RevisionOptions, "2406.01660 (SRPO)", 6
    formula = (
        "a ((1/2 - b (r_wl - r_ll))^2 + (1/2 - b (r_ww - r_lw))^2) "
        "+ (1 - a) (b (r_wl + r_w - r_lw - r_l) - 1)^2"
    )
    dimensions = ("pair", "turn", "divergence")

    @classmethod
    def streams(cls, record: AnswerList, answers: Sequence[Answer], options: Any) -> list[tuple[str, Answer]]:
        """See `ListLoss`. Six rows: each answer in the revision prompt of each, then by itself."""
        asked, (best, worst) = record.prompt.text, answers
        of_worst, of_best = (revised(options.revision, asked, a.text) for a in (worst, best))
        return [(of_worst, best), (of_worst, worst), (of_best, best), (of_best, worst), (asked, best),
                (asked, worst)]  # fmt: skip

    @classmethod
    def link(cls, s: Tensor, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        return links.revision_link(s, beta, options.share)

    @classmethod
    def shown(cls, s: Tensor, lists: Lists) -> tuple[Tensor, Tensor]:
        """See `ListLoss`."""
        return s[:, 4], s[:, 5]


class ChaseOptions(ListOptions):
    """Options of `ofs_dpo`."""

    alpha: UnitShare = Field(0.1, description="how much the two policies chase each other")
    slow_rate: Annotated[PositiveReal, Field(le=1)] = Field(0.1, description="rate of the slow one, a share")
    every: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(
        16, description="updates after which the better policy becomes the fast one"
    )


class OFSDPO(PairLink):
    """Online fast-slow chasing DPO: two adapters that chase each other; the fast one is the expert."""

    options_kind, paper = ChaseOptions, "2406.05534 (OFS-DPO)"
    given_answers = 4  # two, by two policies
    formula = "dpo(F) + a c(F, S), dpo(S) - a c(F, S), c = -log s(b (m_F - m_S))"
    place = "paretune.training.language.two_policies:TwoPolicyTrainer:DPOConfig"
    dimensions, framework = ("pair", "sentence", "dynamic"), "online"

    @classmethod
    def check(cls, config: RunConfig, options: Any) -> None:
        """See `ListLoss`."""
        super().check(config, options)
        for key in ("refresh_every", "reference_decay"):
            if getattr(options, key):
                raise ParetuneError(f"objective.options.{key}: ofs_dpo keeps its reference: leave it out")
        if config.model.gradient_checkpointing:
            raise ParetuneError(
                "model.gradient_checkpointing: ofs_dpo trains two adapters, of which the checkpoints would "
                "recompute only one: leave it out"
            )


class TripleOptions(ListOptions):
    """Options of `triple_tpo`."""

    alpha: NonNegative = Field(1.0, description="weight of the best answer's mean log-probability")
    gamma: NonNegative = Field(0.0, description="the margin")
    mean: bool = Field(False, description="compare means of a token, not sums (TPO-L, with a margin of 0.5)")


class TripleTPO(ListLoss):
    """Triple preference optimisation: learn the best answer, and prefer the second to the worst."""

    options_kind, answers, reference, beta = TripleOptions, "triple", False, 0.01
    given_answers = 3
    paper, formula = "2405.16681 (triple TPO)", "-log s(b (log p_2 - log p_3) - g) - a mean log p_1"
    dimensions = ("list", "sentence", "reference-free")

    @classmethod
    def link(cls, s: Tensor, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        means = score(lists.log_probs, tokens.mean_tokens(lists.mask))
        compared = means if options.mean else s
        return links.triple_link(compared, means[:, 0], beta, options.alpha, options.gamma)

    @classmethod
    def shown(cls, s: Tensor, lists: Lists) -> tuple[Tensor, Tensor]:
        """See `ListLoss`."""
        return s[:, 1], s[:, 2]


class SymbolicOptions(ListOptions):
    """Options of `symbolic`."""

    good: str = Field("w", description="the worlds that the loss raises: a formula of w and l")
    bad: str = Field("l", description="the worlds that it lowers")
    anchored: bool = Field(True, description="whether the reference's ratio is subtracted")

    @field_validator("good", "bad")
    @classmethod
    def _read(cls, formula: str) -> str:
        if not symbolic.worlds_of(formula):
            raise ValueError(f"{formula!r} is true in no world")
        return formula

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if symbolic.worlds_of(self.good) == symbolic.worlds_of(self.bad):
            raise ValueError(f"good ({self.good}) and bad ({self.bad}) are true in the same worlds: no loss")
        return self


class Symbolic(ListLoss):
    """Any loss with a symbolic form. Probabilities are those of a mean token."""

    options_kind, beta = SymbolicOptions, 1.0
    paper, formula = "2412.17696 (the logic of DPO)", "-log s(b (log good/bad - that of the reference))"

    @classmethod
    def looks_at_reference(cls, options: Any) -> bool:
        """See `ListLoss`."""
        return options.anchored

    @classmethod
    def values(cls, lists: Lists, options: Any) -> Tensor:
        """See `ListLoss`. The link subtracts the reference, not here."""
        return lists.log_probs

    @classmethod
    def token_weights(cls, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        return tokens.mean_tokens(lists.mask)

    @classmethod
    def link(cls, s: Tensor, lists: Lists, beta: float, options: Any) -> Tensor:
        """See `ListLoss`."""
        form, start = symbolic.Form.of(options.good, options.bad), None
        if lists.reference is not None:
            start = score(lists.reference, tokens.mean_tokens(lists.mask))
        return symbolic.symbolic_link(form, s, beta, start)
