"""Preference pairs: prompts whose records hold `chosen` and `rejected` answers, as TRL reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...types import ParetuneError, Prompt


def pair_rows(
    objective: str, prompts: Sequence[Prompt], texts: Sequence[str], index: Sequence[int]
) -> list[dict[str, Any]]:
    """The rows of the pairs at `index`, in its order. texts: the prompts as the model reads them.

    KTO wants single answers, each with its label. Raises ParetuneError for a prompt without a pair.
    """
    rows: list[dict[str, Any]] = []
    for i in index:
        answers = [prompts[i].metadata.get(key) for key in ("chosen", "rejected")]
        if not all(isinstance(answer, str) and answer.strip() for answer in answers):
            raise ParetuneError(
                f"objective {objective} trains on pairs: the prompt {prompts[i].text[:60]!r} has no "
                '"chosen" and "rejected" texts in its record'
            )
        if objective == "kto":
            rows += [{"prompt": texts[i], "completion": answer, "label": label}
                     for answer, label in zip(answers, (True, False), strict=True)]  # fmt: skip
        else:
            rows.append({"prompt": texts[i], "chosen": answers[0], "rejected": answers[1]})
    return rows
