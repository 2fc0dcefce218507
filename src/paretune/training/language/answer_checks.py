"""Whether given answers fit a model: its context, and numbers for the tokens of its own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

from ...config import ObjectiveConfig
from ...models.causal_lm.answer_ids import check_fits
from ...models.causal_lm.policy import CausalLMPolicy
from ...types import Prompt
from ..objectives.lists import ListLoss
from ..objectives.preferences import PairLoss, pair_of
from ..objectives.settings import read_options
from ..objectives.table import find_objective
from .tokenised import tokenised


def check_tokens(
    policy: CausalLMPolicy, settings: ObjectiveConfig, prompts: Sequence[Prompt], reward: str = ""
) -> None:
    """Raise ParetuneError, which names the prompt, for a record whose answers training would refuse.

    Args:
        policy: the model; only its tokenizer is asked.
        settings: the objective, which reads the answers.
        prompts: with their records.
        reward: whose prompts they are.
    """
    kind, every = find_objective(settings.name), range(len(prompts))
    if issubclass(kind, ListLoss):
        tokenised(policy, kind.records(settings.name, prompts, every, read_options(settings, reward)))
    elif issubclass(kind, PairLoss):
        check_lengths(policy, settings, prompts, policy.render([prompt.text for prompt in prompts]), every)


def check_lengths(
    policy: CausalLMPolicy, settings: ObjectiveConfig, prompts: Sequence[Prompt], texts: Sequence[str],
    index: Sequence[int],
) -> None:  # fmt: skip
    """Raise ParetuneError for an answer that does not fit, unless the recipe says where TRL shall cut.

    Args:
        policy: the model.
        settings: the objective, one of TRL's losses on pairs.
        prompts: with their records.
        texts: the prompts as the model reads them.
        index: the prompts to look at.
    """
    if "max_length" in (read_options(settings).model_extra or {}):
        return
    drawn = list(dict.fromkeys(index))
    asked = policy.text_ids([texts[i] for i in drawn])
    for i, ids in zip(drawn, asked, strict=True):
        answers = pair_of(settings.name, prompts[i])
        longest = max(map(len, policy.tokenizer(list(answers))["input_ids"]))
        check_fits(policy, prompts[i].text, len(ids) + longest)
