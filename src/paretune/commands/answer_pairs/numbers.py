"""Numbers that some losses read of a record, each made by one pass over the answers.

    --contrast P N      token_weights c: where a model of right answers and one of wrong ones differ (cDPO)
    --guide ADAPTER     token_weights: beta times the guide's log-ratio to the start (TGDPO)
    --embed ENCODER     drift: 1 - cos of the prompt and the better answer (Sem-DPO)
    --steps-like-best   steps and step_weights: 1 + cos of a step and the best answer's (tree TPO)
    --ladder-by reference   stage: by the reference's gap of the two answers (Curry-DPO)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch

from ...data.answer_forms import Record
from ...models.causal_lm.answer_ids import as_drawn, tokenizer_digest
from ...models.causal_lm.given_answers import Given, distributions, given_answer, log_probs, states
from ...models.causal_lm.policy import CausalLMPolicy
from ...models.lora import folded
from ...models.text_encoder import TextEncoder
from ...ops.lowrank import LowRank
from ...ops.token_weights import contrast_scores
from .steps import split_steps

Deltas = Mapping[str, LowRank]
AT_ONCE = 16  # answers whose distributions over all words are held at a time


def _answers(policy: CausalLMPolicy, texts: Sequence[str], records: Sequence[Record]) -> list[Given]:
    """The tokens of every answer of every record, in order. texts: the prompts of the records."""
    policy.render(texts)  # all at once; each text is kept
    return [
        given_answer(policy, text, [answer["text"]], answer["ends"])
        for text, record in zip(texts, records, strict=True)
        for answer in record["answers"]
    ]


def _write(
    policy: CausalLMPolicy, records: Sequence[Record], numbers: Sequence[torch.Tensor], kind: str
) -> None:
    rows = iter(numbers)
    digest = tokenizer_digest(policy)
    for record in records:
        record |= {"tokenizer": digest, "weights": kind}
        for answer in record["answers"]:
            answer["token_weights"] = [float(f"{x:.6g}") for x in next(rows).tolist()]


def add_contrast(
    policy: CausalLMPolicy, texts: Sequence[str], records: Sequence[Record], good: Deltas, bad: Deltas
) -> None:
    """Write c of every token. good, bad: the adapters of right and of wrong answers, over the base."""
    answers = _answers(policy, texts, records)
    found: list[torch.Tensor] = []
    for first in range(0, len(answers), AT_ONCE):
        part = answers[first : first + AT_ONCE]
        with folded(policy.transformer, good):
            right = list(distributions(policy, part))
        with folded(policy.transformer, bad):
            for given, ours, theirs in zip(part, right, distributions(policy, part), strict=True):
                found.append(contrast_scores(ours, theirs, torch.tensor(given.own)))
    _write(policy, records, found, "contrast")


def add_guide(
    policy: CausalLMPolicy, texts: Sequence[str], records: Sequence[Record], guide: Deltas, start: Deltas,
    beta: float,
) -> float:  # fmt: skip
    """Write beta times the guide's log-ratio to the start, of tokens, and their sum as the score "guide".

    Returns the share of the tokens of best and worst answers that tgdpo would count with the opposite sign.
    """
    answers = _answers(policy, texts, records)
    with folded(policy.transformer, guide):
        guided = log_probs(policy, answers)
    with folded(policy.transformer, start):
        plain = log_probs(policy, answers)
    found = [beta * (g - p) for g, p in zip(guided, plain, strict=True)]
    _write(policy, records, found, "guide")
    rows, pairs = iter(found), []
    for record in records:
        own = [next(rows) for _ in record["answers"]]
        for answer, row in zip(record["answers"], own, strict=True):
            answer["scores"]["guide"] = float(row.sum())
        pairs.append((own[_first(record)], own[-1]))
    return turned_share(pairs)


def _first(record: Record) -> int:
    """The number of the better answer of a record's pair: a triple's best answer is no side of it."""
    return int(record.get("reference") is not None)


def better_of(record: Record) -> str:
    """The better answer of a record's pair."""
    return str(record["answers"][_first(record)]["text"])


def turned_share(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], strength: float = 0.5) -> float:
    """The share of tokens whose weight is negative in tgdpo: 1 + a g of the better, 1 - a g of the worse one.

    pairs: g of the tokens of the better and of the worse answer, [T] each. strength: a, tgdpo's default.
    """
    weights = [1 + sign * strength * row for pair in pairs for sign, row in zip((1, -1), pair, strict=True)]
    return float((torch.cat(weights) < 0).float().mean())


def order_by_reference(policy: CausalLMPolicy, texts: Sequence[str], records: Sequence[Record]) -> None:
    """Give the ladder of every prompt its stages by falling log-probability gap, better less worse answer.

    The model as it stands is the reference. Stage 1 is the pair that it ranks right by most.
    """
    sums = [float(row.double().sum()) for row in log_probs(policy, _answers(policy, texts, records))]
    ladders: list[list[tuple[float, Record]]] = []
    for number, record in enumerate(records):
        if record["stage"] == 1:  # a prompt that stands twice in its file has two ladders
            ladders.append([])
        ladders[-1].append((sums[2 * number] - sums[2 * number + 1], record))
    for ladder in ladders:
        for stage, (_, record) in enumerate(sorted(ladder, key=lambda rung: -rung[0]), start=1):
            record["stage"] = stage


def add_drift(encoder: TextEncoder, texts: Sequence[str], records: Sequence[Record]) -> float:
    """Write how far each better answer drifts from its prompt. Returns the mean weight at strength 1."""
    for text, record in zip(texts, records, strict=True):
        asked, answered = encoder.encode([str(text), better_of(record)])
        record["drift"] = 1 - float(torch.cosine_similarity(asked, answered, dim=0))
    return float(torch.tensor([-record["drift"] for record in records]).exp().mean())


def add_step_weights(
    policy: CausalLMPolicy, texts: Sequence[str], records: Sequence[Record], mark: str
) -> None:
    """Write the steps of every answer and how like each is to the same step of the best answer."""
    policy.render(texts)  # all at once; each text is kept
    for text, record in zip(texts, records, strict=True):
        split = [split_steps(answer["text"], mark) for answer in record["answers"]]
        given = [
            given_answer(policy, text, steps, answer["ends"])
            for steps, answer in zip(split, record["answers"], strict=True)
        ]
        means = [
            _means(policy, steps, state) for steps, state in zip(split, states(policy, given), strict=True)
        ]
        for answer, steps, own in zip(record["answers"], split, means, strict=True):
            shared = min(len(own), len(means[0]))
            like = torch.cosine_similarity(own[:shared], means[0][:shared], dim=1)
            answer["steps"] = steps
            # Beyond the best answer's steps there is nothing to compare with; losses leave such steps out.
            answer["step_weights"] = [1 + x for x in like.tolist()] + [1.0] * (len(steps) - shared)


def _means(policy: CausalLMPolicy, steps: Sequence[str], state: torch.Tensor) -> torch.Tensor:
    """The mean state of every step, [steps, H]."""
    drawn = as_drawn(policy, steps)  # as `given_answer` read them
    sizes = [len(policy.tokenizer(step, add_special_tokens=False)["input_ids"]) for step in drawn]
    ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
    return torch.stack([
        state[a:b].mean(0) if b > a else torch.zeros(state.shape[1]) for a, b in pairwise(ends)
    ])  # fmt: skip
