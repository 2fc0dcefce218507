"""Pairs of a preference file, with what a model and its reference say of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data.answer_lists import Answer, AnswerList, read_answers
from ...models.causal_lm.given_answers import Given, entropies, given_answer, log_probs
from ...models.causal_lm.policy import CausalLMPolicy
from ...planning.plan import derive_seed
from ...training.objectives.lists import margin_of
from ...types import ParetuneError, Prompt
from .sides import Side

SHARE = 0.75  # of people who agree with a label, where the record does not say


@dataclass(frozen=True)
class Sums:
    """Of N answers: log-probability under the model and the reference, and the number of tokens."""

    model: Tensor
    reference: Tensor
    tokens: Tensor

    @property
    def ratio(self) -> Tensor:
        """The log-ratio of model and reference, [N]."""
        return self.model - self.reference


@dataclass(frozen=True)
class Measured:
    """N pairs. group: the number of each pair's prompt. margin: NaN where the record has none.

    unseen: M answers that nothing is trained on, and unseen_group their prompts. credits: the log-ratio of
    every token of the first pairs' answers.
    """

    lists: tuple[AnswerList, ...]
    group: Tensor
    better: Sums
    worse: Sums
    margin: Tensor
    share: Tensor
    unseen: Sums
    unseen_group: Tensor
    entropy: tuple[Tensor, Tensor]
    credits: list[tuple[Given, Tensor]]


def read_lists(prompts: Sequence[Prompt], limit: int = 0) -> tuple[AnswerList, ...]:
    """The records with two answers or more, of the first `limit` prompts. Raises ParetuneError for none."""
    lists = tuple(read_answers(prompt) for prompt in prompts[: limit or None])
    lists = tuple(record for record in lists if len(record.answers) > 1)
    if not lists:
        raise ParetuneError("no record of the file has two answers to compare")
    return lists


def groups_of(lists: Sequence[AnswerList]) -> Tensor:
    """The number of each record's prompt, [N]."""
    names: dict[str, int] = {}
    return torch.tensor([names.setdefault(record.prompt.text, len(names)) for record in lists])


def tokens_of(policy: CausalLMPolicy, record: AnswerList, answer: Answer) -> Given:
    """The tokens of an answer of a record."""
    return given_answer(policy, record.prompt.text, answer.steps or [answer.text], answer.ends, record.prefix)


def measure(lists: Sequence[AnswerList], model: Side, reference: Side, shown: int = 5) -> Measured:
    """Read all answers with both models.

    Args:
        lists: N records, each with its pair.
        model: what is analysed.
        reference: what it is compared with.
        shown: of how many pairs every token's credit is kept.
    """
    group, policy = groups_of(lists), model.policy
    policy.render([record.prompt.text for record in lists])  # all at once; each text is kept
    ends = [[tokens_of(policy, r, r.pair[i]) for r in lists] for i in (0, 1)]
    unseen, unseen_group = _unseen(lists, group, reference, policy)
    every = [*ends[0], *ends[1], *unseen]
    with model.at_work() as working:
        ours, spread = log_probs(working, every), entropies(working, ends[0])
    with reference.at_work() as working:
        theirs, before = log_probs(working, every), entropies(working, ends[0])
    n = len(lists)
    sums = [
        torch.tensor([float(x.double().sum()) for x in side], dtype=torch.float64) for side in (ours, theirs)
    ]
    lengths = torch.tensor([len(given.own) for given in every])
    better, worse, middle = (Sums(sums[0][part], sums[1][part], lengths[part]) for part in
                             (slice(0, n), slice(n, 2 * n), slice(2 * n, None)))  # fmt: skip
    margins = [margin_of(record, record.pair) for record in lists]
    margin = torch.tensor([float("nan") if m is None else m for m in margins], dtype=torch.float64)
    stated = [record.share for record in lists]
    share = torch.where(margin.isnan(), SHARE, margin.sigmoid())
    told = torch.tensor([float("nan") if s is None else s for s in stated], dtype=torch.float64)
    credits = [(every[i], ours[i] - theirs[i]) for k in range(min(shown, n)) for i in (k, n + k)]
    return Measured(
        tuple(lists), group, better, worse, margin, torch.where(told.isnan(), share, told),
        middle, unseen_group,
        (torch.tensor([float(x.mean()) for x in spread]), torch.tensor([float(x.mean()) for x in before])),
        credits,
    )  # fmt: skip


def _unseen(
    lists: Sequence[AnswerList], group: Tensor, reference: Side, policy: CausalLMPolicy
) -> tuple[list[Given], Tensor]:
    """The middle answers of lists; where there is none, one fresh answer of the reference to each prompt."""
    found = [
        (tokens_of(policy, record, answer), int(g))
        for record, g in zip(lists, group, strict=True)
        for answer in record.answers[record.first + 1 : -1]
    ]
    if not found:
        texts = {int(g): record.prompt.text for record, g in zip(lists, group, strict=True)}
        with reference.at_work() as working:
            for g, text in texts.items():
                (ids,) = working.answer_ids([text], derive_seed("analyse", text), 1)
                before = working.text_ids(working.render([text]))[0]
                if ids:
                    found.append((Given(tuple(before), tuple(ids)), g))
    return [given for given, _ in found], torch.tensor([g for _, g in found], dtype=torch.long)
