"""Check, before anything is trained, that the answers in records fit the model, by its tokenizer alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from ..config import RunConfig
from ..rewards.checks import first_refused
from ..samples.media import medium_of
from ..training.objectives.settings import draws_samples
from ..types import ParetuneError, Prompt
from .prompt_checks import refuse, sets_of


def check_answers(config: RunConfig) -> None:
    """Raise ParetuneError, with file and line, for the first record that training would refuse.

    A tokenizer that does not open is not reported here: opening the model does that.
    """
    if draws_samples(config.objective) or medium_of(config.model).name != "texts":
        return
    from ..models.causal_lm.unloaded import UnloadedPolicy  # loads transformers
    from ..training.language.answer_checks import check_tokens

    try:
        policy = UnloadedPolicy(config.model)
    except ParetuneError:
        return

    def check(prompts: Sequence[Prompt], reward: str) -> None:
        check_tokens(policy, config.objective, prompts, reward)

    for file, reward in sets_of(config):
        asked = functools.partial(check, reward=reward)
        refuse("training cannot take", file, functools.partial(first_refused, asked))
