"""`reward: vlm_judge`: a large model that looks and answers, behind any chat endpoint of OpenAI's form.

vLLM and SGLang serve such endpoints, and so do providers. A picture goes as one PNG data URL, a clip as
several frames in order, an answer of a language model as text in the template. A score is read from the
answer by a number or a pattern, or is the probability of "yes" as the first word, as in VQAScore (Lin et al.
2024, arXiv 2404.01291). An answer without a score is a refusal: it counts as the worst score, and is told.
"""

from __future__ import annotations

import os
import string
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from paretune.types import ParetuneError, Prompt, Samples

from ..errors import RewardError
from .client import checked_variable
from .endpoint import Endpoint
from .http import checked_url
from .judge_answers import Judged, Reading
from .judge_cache import JudgeCache
from .judge_request import messages_of

TEMPLATES = {
    "yes": "Does this {medium} show \"{prompt}\"? Please answer yes or no.",
    "number": "How well does this {medium} fit the text \"{prompt}\"? Answer with one number from {low} to "
    "{high} and nothing else.",
}


class VlmJudge:
    """A judge behind a chat endpoint.

    url: the endpoint's base, such as http://127.0.0.1:8000/v1. model: its name there. score: "number", "yes",
    or a regular expression whose first group is the number. template: the question, in which {prompt},
    {answer}, {medium}, {low} and {high} are replaced. system: a message before it. range: of the score; "yes"
    gives 0 to 1. frames: of a clip, evenly spaced. max_tokens: of an answer. extra: more of the request's
    fields. concurrency: questions at a time. timeout: seconds for one. patience: seconds in which a question
    is asked again. key_env: the environment variable with the key. cache: a folder; by default in the cache
    of paretune. most_refused: the share of refusals in a batch above which the reward fails.
    """

    elsewhere = True  # asking costs somebody's time or money: `stages.reliability` asks no more than needed

    def __init__(
        self, url: str, model: str, score: str = "number", template: str | None = None,
        system: str | None = None, range: tuple[float, float] = (0.0, 10.0), higher_is_better: bool = True,
        frames: int = 8, max_tokens: int = 32, extra: dict[str, Any] | None = None, concurrency: int = 8,
        timeout: float = 60.0, patience: float = 60.0, key_env: str | None = None, cache: str | None = None,
        most_refused: float = 0.5,
    ) -> None:  # fmt: skip
        self.name, self.higher_is_better = "vlm_judge", higher_is_better
        self._reading = Reading(score, range)
        self.range = self._reading.range
        own = TEMPLATES["yes" if score == "yes" else "number"]
        self._template = own if template is None else template
        _check_template(self._template)
        if not 1 <= frames <= 256 or not 1 <= concurrency <= 256 or not 0 <= most_refused <= 1:
            raise ParetuneError("vlm_judge: frames and concurrency are 1 to 256, and most_refused 0 to 1")
        key = None if key_env is None else os.environ.get(checked_variable(key_env, "vlm_judge: key_env"))
        if key_env is not None and not key:
            raise ParetuneError(f"vlm_judge: the environment variable {key_env} holds no key: set it")
        address = checked_url(url, "vlm_judge: options.url")
        self._endpoint = Endpoint(address, key, key_env, timeout, patience)
        self._endpoint.check_model(model)
        self._asked = {
            "model": model, "max_tokens": max_tokens, "temperature": 0, "seed": 0,
            **self._reading.request, **(extra or {}),
        }  # fmt: skip
        self._system, self._frames, self._concurrency, self._most = system, frames, concurrency, most_refused
        self._cache = JudgeCache(cache)
        self.refused = 0

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> torch.Tensor:
        """float32 [B]. Equal questions are asked once, and never again once they are in the cache."""
        requests = [self._request(samples[i], prompt) for i, prompt in enumerate(prompts)]
        keys = [self._cache.key(request) for request in requests]
        open_ = {key: request for key, request in zip(keys, requests, strict=True) if key not in self._cache}
        pool = ThreadPoolExecutor(min(self._concurrency, max(1, len(open_))), "judge")
        try:
            for key, answer in zip(open_, pool.map(self._endpoint.ask, open_.values()), strict=True):
                self._cache[key] = answer
        finally:  # at an error, or when the time is over, nobody waits for the others
            pool.shutdown(wait=False, cancel_futures=True)
        judged = [self._reading.of(self._cache[key]) for key in keys]
        self._tell(judged)
        return torch.tensor([self._reading.least(self.higher_is_better) if j.score is None else j.score
                             for j in judged])  # fmt: skip

    def _request(self, sample: Any, prompt: Prompt) -> dict[str, Any]:
        low, high = (f"{value:g}" for value in self.range)
        is_text = isinstance(sample, str)
        medium = "answer" if is_text else "video" if sample.dim() == 4 else "picture"
        question = self._template.format(
            prompt=prompt.text, answer=sample if is_text else "", medium=medium, low=low, high=high
        )
        if is_text and "{answer" not in self._template:
            question = f"{question}\n\n{sample}"
        return {**self._asked, "messages": messages_of(question, self._system, sample, self._frames)}

    def _tell(self, judged: Sequence[Judged]) -> None:
        """One line about a batch's refusals; RewardError where they are too many to train on."""
        refused = [j for j in judged if j.score is None]
        if not refused:
            return
        self.refused += len(refused)
        first = " ".join(refused[0].text.split())[:80]
        told = f"vlm_judge: {len(refused)} of {len(judged)} answers hold no score (such as {first!r})"
        if len(refused) > self._most * len(judged):
            raise RewardError(f"{told}: change its template or score, or raise most_refused ({self._most:g})")
        line = f"note: {told}; they count as the worst score, {self.refused} so far"
        print(line, file=sys.stderr, flush=True)  # noqa: T201


def _check_template(template: str) -> None:
    known = {"prompt", "answer", "medium", "low", "high"}
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        told = f"vlm_judge: the template cannot be read ({error}); write {{{{ for a brace"
        raise ParetuneError(told) from error
    if wrong := sorted(names - known):
        may = ", ".join(f"{{{name}}}" for name in sorted(known))
        raise ParetuneError(f"vlm_judge: the template has {{{wrong[0]}}}; it may have {may}")
