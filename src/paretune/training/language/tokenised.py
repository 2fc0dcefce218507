"""Records of answer lists as tokens, and a batch of them as tensors.

Shapes: B lists of up to K answers of up to T tokens with their prompts; N = B K sequences, list by list. An
answer that a list lacks is a copy of its first one of which no token is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...data.answer_lists import Answer
from ...models.causal_lm.answer_ids import answer_ids, as_drawn, check_fits, ending_ids, tokenizer_digest
from ...models.causal_lm.policy import CausalLMPolicy
from ...types import ParetuneError

Row = dict[str, Any]


def tokenised(policy: CausalLMPolicy, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows of `ListLoss.records` with tokens in place of texts.

    Raises ParetuneError for an answer that does not fit into the model's context, and for token weights that
    do not belong to its tokens.
    """
    asked = list(dict.fromkeys(text for row in rows for text, _ in row["streams"]))
    prompts = dict(zip(asked, policy.text_ids(policy.render(asked)), strict=True))
    end, digest = ending_ids(policy), tokenizer_digest(policy)
    made: dict[int, Row] = {}
    for row in rows:
        if id(row) not in made:
            made[id(row)] = _row(policy, row, prompts, end, digest)
    return [made[id(row)] for row in rows]


def _row(
    policy: CausalLMPolicy, row: Mapping[str, Any], prompts: Mapping[str, list[int]], end: list[int],
    digest: str,
) -> Row:  # fmt: skip
    record = row["record"]
    if record.tokenizer is not None and record.tokenizer != digest:
        raise ParetuneError(
            f"the token weights of the prompt {record.prompt.text[:60]!r} were made with the tokenizer "
            f"{record.tokenizer}, and this model's is {digest}: make them again with this model"
        )
    prefix = answer_ids(policy, as_drawn(policy, [record.prefix]), []) if record.prefix else []
    ids: list[list[int]] = []
    starts: list[int] = []
    given: list[list[float]] = []
    steps: list[list[int]] = []
    for text, answer in row["streams"]:
        before = [*prompts[text], *prefix]
        whole = answer.steps or [answer.text]
        parts = list(whole) if prefix else as_drawn(policy, whole)
        own = answer_ids(policy, parts, end if answer.ends else [])
        check_fits(policy, text, len(before) + len(own))
        numbers, places = _numbers(policy, answer, own, parts, text, row["by_step"])
        ids.append(before + own)
        starts.append(len(before))
        given.append(numbers)
        steps.append(places)
    absent = float("nan")  # a row of tables has every column; the loss that reads it was checked before
    values = [absent if value is None else value for value in row["values"]]
    margin, weight = (absent if row[key] is None else row[key] for key in ("margin", "weight"))
    return {"ids": ids, "starts": starts, "given": given, "steps": steps, "values": values,
            "margin": margin, "weight": weight}  # fmt: skip


def _numbers(
    policy: CausalLMPolicy, answer: Answer, own: Sequence[int], parts: Sequence[str], text: str, by_step: bool
) -> tuple[list[float], list[int]]:
    """The record's number for each token of an answer, and the step that it belongs to.

    parts: the texts whose tokens `own` are, one for each step.
    by_step: whether the loss reads the weights of steps; otherwise those of tokens.
    """
    if answer.token_weights is not None and len(answer.token_weights) != len(own):
        raise ParetuneError(
            f"an answer to the prompt {text[:60]!r} has {len(own)} tokens with its end, and "
            f"{len(answer.token_weights)} token_weights"
        )
    steps = parts if answer.steps else []
    sizes = [len(policy.tokenizer(step, add_special_tokens=False)["input_ids"]) for step in steps]
    places = [k for k, size in enumerate(sizes) for _ in range(size)]
    places += [max(len(sizes) - 1, 0)] * (len(own) - len(places))  # the end token belongs to the last step
    if answer.token_weights is not None and not by_step:
        return list(answer.token_weights), places
    if answer.step_weights and by_step:
        return [answer.step_weights[k] for k in places], places
    return [1.0] * len(own), places


@dataclass(frozen=True)
class ListCollator:
    """Makes a batch of B rows. pad: the token that pads on the right."""

    pad: int

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """The batch of some rows.

        Of input_ids, attention_mask, answer_mask, given and step the shape is [N, T]; of present and values
        [B, K]; of margin and weight [B].
        """
        most = max(len(row["ids"]) for row in rows)
        longest = max(len(ids) for row in rows for ids in row["ids"])
        shape = (len(rows), most, longest)
        ids = torch.full(shape, self.pad)
        attention, answer = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
        given, step = torch.zeros(shape), torch.full(shape, -1)
        present, values = torch.zeros(shape[:2], dtype=torch.bool), torch.zeros(shape[:2])
        for b, row in enumerate(rows):
            for k in range(most):
                here = k < len(row["ids"])
                own, start = (row["ids"][k if here else 0], row["starts"][k if here else 0])
                ids[b, k, : len(own)], attention[b, k, : len(own)] = torch.tensor(own), 1
                present[b, k] = here
                if here:
                    answer[b, k, start : len(own)] = True
                    given[b, k, start : len(own)] = torch.tensor(row["given"][k])
                    step[b, k, start : len(own)] = torch.tensor(row["steps"][k])
                    values[b, k] = row["values"][k]
        flat = {"input_ids": ids, "attention_mask": attention, "answer_mask": answer, "given": given,
                "step": step}  # fmt: skip
        return {
            **{name: value.flatten(0, 1) for name, value in flat.items()},
            "present": present, "values": values,
            "margin": torch.tensor([row["margin"] for row in rows]),
            "weight": torch.tensor([row["weight"] for row in rows]),
        }  # fmt: skip
