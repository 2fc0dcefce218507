"""Other ways to decode a language model: a search by beams, and answers that the model itself revises.

Likelihood search on a policy that learned preferences is a search by value ("From r to Q*", 2404.12358). A
revision asks with the recipe's revision prompt for a better answer than the last one (SRPO, 2406.01660).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ..config import RunConfig
from ..models.causal_lm.policy import CausalLMPolicy
from ..models.policy import Policy
from ..planning.plan import derive_seed
from ..training.objectives.revision import REVISION, revised
from ..types import ParetuneError
from .request import Request
from .source import ModelSource

MOST_BEAMS, MANY_BEAMS, MOST_REVISIONS = 256, 5, 32


def check_decoding(source: ModelSource, requests: Sequence[Request], count: int) -> list[str]:
    """Raise ParetuneError where a request's decoding cannot be; returns lines that are worth knowing."""
    beams, revisions = requests[0].beams, requests[0].revisions
    if not beams and not revisions:
        return []
    option = "--beams" if beams else "--revise"
    if source.medium.name != "texts":
        raise ParetuneError(f"{option} is for language models; {source.name} makes {source.medium.name}")
    if any(source.mixed(request).tokens for request in requests):
        raise ParetuneError(f"{option} does not go with reward tokens: leave one of them out")
    if not 0 <= beams <= MOST_BEAMS:
        raise ParetuneError(f"--beams is from 1 to {MOST_BEAMS}, not {beams}")
    if beams and count > beams:
        raise ParetuneError(f"-n {count}: a search with {beams} beams finds {beams} answers: ask for fewer")
    if not 0 <= revisions <= MOST_REVISIONS:
        raise ParetuneError(f"--revise is from 0 to {MOST_REVISIONS}, not {revisions}")
    if beams > MANY_BEAMS:
        return [f"more than {MANY_BEAMS} beams tend to lengthen answers and to over-optimise the reward"]
    return []


def check_room(policy: Policy, prompts: Sequence[str], request: Request, pattern: str) -> None:
    """Raise ParetuneError where the longest answer could not be revised within the model's context."""
    if not request.revisions:
        return
    model = cast(CausalLMPolicy, policy)
    asked = model.render([revised(pattern, prompt, "") for prompt in prompts])
    most = model.settings.max_tokens
    for prompt, ids in zip(prompts, model.text_ids(asked), strict=True):
        if len(ids) + 2 * most > model.context:
            raise ParetuneError(
                f"--revise: the revision prompt for {prompt[:60]!r} has {len(ids)} tokens; with an answer of "
                f"{most} (model.options.max_tokens) to revise and one of {most} as its revision that is more "
                f"than the model's context of {model.context}: shorten the prompt, or ask for shorter answers"
            )


def pattern_of(config: RunConfig | None) -> str:
    """The revision prompt that a run was trained with, or the default one."""
    options = config.objective.options if config is not None else {}
    return str(options.get("revision", REVISION))


def decode(
    policy: Policy, prompt: str, request: Request, seeds: Sequence[int], pattern: str
) -> list[str]:
    """One answer for each seed, and after each its revisions, in order.

    Args:
        policy: the language model.
        prompt: the prompt.
        request: says how many beams and revisions.
        seeds: of the answers; a search has none, and gives its likeliest answers in order.
        pattern: the revision prompt.
    """
    model = cast(CausalLMPolicy, policy)

    def answer(asked: str, seed: int) -> str:
        if request.beams:
            return model.likeliest(asked, request.beams, 1)[0]
        return model.answer([asked], seed, 1)[0]

    if request.beams:
        firsts = model.likeliest(prompt, request.beams, len(seeds))
    else:
        firsts = [answer(prompt, seed) for seed in seeds]
    rows: list[str] = []
    for seed, first in zip(seeds, firsts, strict=True):
        rows.append(first)
        for number in range(1, request.revisions + 1):
            rows.append(answer(revised(pattern, prompt, rows[-1]), derive_seed("revise", seed, number)))
    return rows
