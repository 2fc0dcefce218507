"""Losses on lists of answers that `training.language.lists` trains: what all of them share.

A loss is four choices: what a token's value is (its log-ratio to the reference, or its log-probability), what
each token counts, what each list counts, and a link from the scores of the answers to a loss.
`pair_losses` and `link_losses` hold them; docs/language-preferences.md is their table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from ...config import RunConfig
from ...data.answer_lists import Answer, AnswerList, read_answers
from ...data.prompts import load_prompts
from ...limits import PositiveReal, Whole
from ...ops.list_losses import Lists, score
from ...ops.token_weights import all_tokens
from ...types import ParetuneError, Prompt
from .base import SameAnswers
from .curriculum import check_stages, stages_of
from .record_needs import check_needs, check_score, margin_of
from .trl import Batches, TrlObjective, TrlOptions

# Settings of TRL's own losses; none of ours would read them.
OF_TRL_LOSSES = (
    "loss_type", "loss_weights", "f_divergence_type", "f_alpha_divergence_coef", "use_weighting", "ld_alpha",
    "label_smoothing", "precompute_ref_log_probs", "sync_ref_model", "max_length", "truncation_mode",
)  # fmt: skip


class ListOptions(TrlOptions):
    """Options of every loss on lists. Other settings of TRL's DPOConfig may be given by their names."""

    beta: PositiveReal | None = Field(None, description="temperature; default: objective.kl, or the loss's")
    curriculum: Literal["none", "rounds", "epochs"] = Field(
        "none", description="by the records' stages: a stage a round, or spread over the epochs (Curry-DPO)"
    )
    refresh_every: Annotated[Whole, Field(ge=0, le=1_000_000)] = Field(
        0, description="updates between copies of the policy into the reference; 0: the round's start"
    )
    reference_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="the reference is an average of the policy, decayed so an update; 0: it is not"
    )
    _reward: str = PrivateAttr("")

    def of_reward(self, reward: str) -> Self:
        """See `Options`."""
        made = self.model_copy()
        made._reward = reward
        return made

    def score_of(self, answer: Answer) -> float | None:
        """The score that option `score` names, or the only one, or that of the expert's own reward."""
        return answer.score(self.named, self._reward)

    @property
    def named(self) -> str:
        """The score that option `score` names; "" without that option, or where it names none."""
        return getattr(self, "score", "")


class ListLoss(TrlObjective):
    """One loss on lists of answers.

    beta: the default temperature. paper, formula: the source and what is computed. needs: what a record must
    hold for it: "values" (a score of every answer), "margin", "share" (or a margin), "weight" or
    "token_weights"; `needs_of` says what it is with some options. answers: which
    answers of a record it trains on: "pair" (the first and the last, of a triple the last two), "list" (all)
    or "triple" (the best, the second and the worst). reference: whether it looks at the reference.
    dimensions: its place in the survey's table (2503.11701): feedback, level, and what it constrains.
    framework: how it learns there: offline, or online where the policy is its own opponent.
    """

    options_kind = ListOptions
    place = "paretune.training.language.lists:ListTrainer:DPOConfig"
    beta: ClassVar[float] = 0.1
    paper: ClassVar[str]
    formula: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[Literal["pair", "list", "triple"]] = "pair"
    reference: ClassVar[bool] = True
    dimensions: ClassVar[tuple[str, str, str]] = ("pair", "sentence", "divergence")
    framework: ClassVar[Literal["offline", "online"]] = "offline"

    # ------------------------------------------------------------ the four choices

    @classmethod
    def values(cls, lists: Lists, options: Any) -> Tensor:
        """The value of every token, [B, K, T]: its log-ratio, or its log-probability without a reference."""
        return lists.log_probs if lists.reference is None else lists.log_probs - lists.reference

    @classmethod
    def token_weights(cls, lists: Lists, beta: float, options: Any) -> Tensor:
        """What every token counts, [B, K, T]."""
        return all_tokens(lists.mask)

    @classmethod
    def list_weights(cls, lists: Lists, options: Any) -> Tensor:
        """What every list counts, [B]."""
        return torch.ones(len(lists.present), device=lists.present.device)

    @classmethod
    def link(cls, s: Tensor, lists: Lists, beta: float, options: Any) -> Tensor:
        """The loss of every list, [B], from the scores of its answers, [B, K]."""
        raise NotImplementedError

    @classmethod
    def scores(cls, lists: Lists, beta: float, options: Any) -> Tensor:
        """The score of every answer, [B, K]."""
        return score(cls.values(lists, options), cls.token_weights(lists, beta, options))

    @classmethod
    def loss(cls, lists: Lists, beta: float, options: Any) -> Tensor:
        """The weighted loss of every list, [B]."""
        s = cls.scores(lists, beta, options)
        return cls.list_weights(lists, options) * cls.link(s, lists, beta, options)

    @classmethod
    def shown(cls, s: Tensor, lists: Lists) -> tuple[Tensor, Tensor]:
        """The scores of the best and of the worst answer, [B] each, for the metrics."""
        last = lists.present.sum(1, keepdim=True) - 1
        return s[:, 0], s.gather(1, last).squeeze(1)

    # ------------------------------------------------------------ the recipe and the records

    @classmethod
    def fixed(cls, config: RunConfig, kl: float, batches: Batches) -> dict[str, Any]:
        """See `TrlObjective`. The order of the rows is ours, and nothing is cut."""
        return {"train_sampling_strategy": "sequential", "max_length": None}

    @classmethod
    def defaults(cls, config: RunConfig, options: Any, kl: float) -> dict[str, Any]:
        """See `TrlObjective`."""
        return {"beta": options.beta or kl or cls.beta}

    @classmethod
    def extra(cls, options: Any) -> dict[str, Any]:
        """See `TrlObjective`."""
        return {"objective": cls, "options": options}

    @classmethod
    def check(cls, config: RunConfig, options: Any) -> None:
        """Refuse settings of TRL's losses, and a reference that is refreshed where there is none."""
        for key in OF_TRL_LOSSES:
            if key in (options.model_extra or {}):
                raise ParetuneError(
                    f"objective.options.{key} is a setting of TRL's losses, and {config.objective.name} is "
                    "none of them: leave it out"
                )
        moving = [key for key in ("refresh_every", "reference_decay") if getattr(options, key)]
        if moving and not cls.looks_at_reference(options):
            raise ParetuneError(
                f"objective.options.{moving[0]}: {config.objective.name} has no reference: leave it out"
            )
        if len(moving) == 2:
            raise ParetuneError(
                "objective.options: refresh_every and reference_decay both move the reference: give one"
            )

    @classmethod
    def check_expert(cls, name: str, config: RunConfig, reward: str, options: Any) -> None:
        """See `Objective.check_expert`. A curriculum needs stages that are large enough for an epoch."""
        super().check_expert(name, config, reward, options)
        if options.curriculum != "none":
            prompts = load_prompts(config.rewards[reward].prompts)
            check_stages(reward, prompts, config.train.prompts_per_epoch)

    @classmethod
    def follows_course(cls, options: Any) -> bool:
        """See `Objective.follows_course`."""
        return options.curriculum == "epochs"

    @classmethod
    def check_prompts(cls, name: str, prompts: Sequence[Prompt]) -> None:
        """See `Objective.check_prompts`. What options change is left to `check_records`."""
        for prompt in prompts:
            record = read_answers(prompt)
            check_needs(name, record, cls.taken(name, record), cls.needs)

    @classmethod
    def check_records(cls, name: str, prompts: Sequence[Prompt], options: Any) -> None:
        """See `Objective.check_records`."""
        cls.records(name, prompts, range(len(prompts)), options)
        if options.curriculum != "none":
            stages_of(prompts)
        for prompt in prompts:  # last, as the records of a data set that nobody can mend may have it
            answers = cls.taken(name, read_answers(prompt))
            compared = answers[1:] if cls.answers == "triple" else answers
            if len({(answer.text, answer.ends) for answer in compared}) < 2:
                raise SameAnswers(
                    f"objective {name} compares answers: the prompt {prompt.text[:60]!r} has the same text "
                    "as the better and the worse one; leave the record out"
                )

    @classmethod
    def needs_of(cls, options: Any) -> tuple[str, ...]:
        """What a record must hold with these options; see `needs`."""
        return cls.needs

    @classmethod
    def taken(cls, name: str, record: AnswerList) -> tuple[Answer, ...]:
        """The answers of a record that the loss trains on, best first.

        Raises ParetuneError, which names the prompt, for a record with too few answers, or without two that
        differ where the loss compares them.
        """
        answers, where = record.answers, f"the prompt {record.prompt.text[:60]!r}"
        least = 3 if cls.answers == "triple" else 2
        if len(answers) < least:
            raise ParetuneError(
                f"objective {name} trains on {least} answers or more: {where} has {len(answers)}"
            )
        if cls.answers == "pair":
            answers = record.pair
        elif cls.answers == "triple":
            answers = (answers[0], answers[1], answers[-1])
        return answers

    @classmethod
    def by_step(cls, options: Any) -> bool:
        """Whether it reads the record's weights of steps, and not of tokens."""
        return False

    @classmethod
    def looks_at_reference(cls, options: Any) -> bool:
        """Whether the reference's log-probabilities are needed."""
        return cls.reference

    @classmethod
    def streams(cls, record: AnswerList, answers: Sequence[Answer], options: Any) -> list[tuple[str, Answer]]:
        """What is read and the answer to it, for each of the K rows that a record makes."""
        return [(record.prompt.text, answer) for answer in answers]

    @classmethod
    def records(
        cls, name: str, prompts: Sequence[Prompt], index: Sequence[int], options: Any
    ) -> list[dict[str, Any]]:
        """The rows for the prompts at `index`, before tokenisation. Raises ParetuneError as `taken` does."""
        made: dict[int, dict[str, Any]] = {}
        scale = cls.scale_of(prompts, options)
        for i in dict.fromkeys(index):
            record = read_answers(prompts[i])
            answers = cls.taken(name, record)
            cls.check_held(name, record, answers, options)
            streams = cls.streams(record, answers, options)
            found = [options.score_of(answer) for _, answer in streams]
            made[i] = {
                "record": record, "streams": streams,
                "values": [value if scale is None or value is None else scale(value) for value in found],
                "margin": cls.margin(record, answers, options), "weight": cls.weight_of(record, options),
                "by_step": cls.by_step(options),
            }  # fmt: skip
        return [made[i] for i in index]

    @classmethod
    def check_held(cls, name: str, record: AnswerList, answers: Sequence[Answer], options: Any) -> None:
        """Raise ParetuneError, which names the prompt, if a record lacks what the loss needs."""
        check_needs(name, record, answers, cls.needs_of(options))
        check_score(record, answers, cls.needs_of(options), options.score_of, options.named)

    @classmethod
    def scale_of(cls, prompts: Sequence[Prompt], options: Any) -> Callable[[float], float] | None:
        """What scores of these prompts become; None where they are taken as they are."""
        return None

    @classmethod
    def margin(cls, record: AnswerList, answers: Sequence[Answer], options: Any) -> float | None:
        """The margin of a record, in log-odds."""
        return margin_of(record, answers, options.score_of, options.named)

    @classmethod
    def weight_of(cls, record: AnswerList, options: Any) -> float | None:
        """What the record counts, where it says so."""
        return record.weight
