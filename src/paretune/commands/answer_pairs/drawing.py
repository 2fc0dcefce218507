"""Answers to a prompt: drawn by the model, or read from a file of other models' answers, and scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...config import RunConfig
from ...data.answer_forms import Scored
from ...data.answer_lists import WINS, read_answers
from ...data.prompts import load_prompts
from ...models.causal_lm.given_answers import given_answer
from ...models.causal_lm.policy import CausalLMPolicy
from ...ops.preference_losses import win_rates
from ...planning.plan import derive_seed
from ...types import Dialogue, ParetuneError, Prompt, Reward, as_recorded
from ..make_pairs import Drawing, scored
from .options import AnswerOptions


@dataclass(frozen=True)
class Answered:
    """An answer before it is scored; see `Scored`."""

    text: str
    source: str
    own: bool = True
    ends: bool = True
    warned: bool = False


# The answers to a prompt -> raw scores of each by reward, and with greater as better [n] by reward.
Scorer = Callable[[Prompt, Sequence[str]], tuple[list[dict[str, float]], dict[str, torch.Tensor]]]


def scorer_of(config: RunConfig, rewards: Sequence[Reward]) -> Scorer:
    """Scores answers with every reward of the recipe that applies to a prompt."""
    return lambda prompt, texts: scored(rewards, list(texts), prompt, config.executor.reward_timeout)


def draw_answers(
    policy: CausalLMPolicy, prompt: Prompt, drawing: Drawing, options: AnswerOptions
) -> list[Answered]:
    """`count` answers to a prompt, and as many to the prompt after the words of --safety-prompt, if given.

    They depend on the prompt and the seed alone.
    """
    found: list[Answered] = []
    for text, source, own in _asked(prompt, drawing, options) if drawing.count else []:
        seed = derive_seed("pairs", drawing.seed, prompt.text, source)
        for ids in policy.answer_ids([text] * drawing.count, seed, drawing.count):
            answer = policy.tokenizer.decode(ids, skip_special_tokens=True)
            if answer.strip():  # an empty answer is no record's answer
                found.append(Answered(answer, source, own, policy.ends(ids), warned=not own))
    return found


def _asked(prompt: Prompt, drawing: Drawing, options: AnswerOptions) -> list[tuple[str, str, bool]]:
    """What the model answers, the source of its answers, and whether they are answers to the plain prompt."""
    asked = [(prompt.text, drawing.adapter or "base", True)]
    if options.safety_prompt:
        asked.append((preceded(options.safety_prompt, prompt.text), "safety-prompt", False))
    return asked


def check_prompts(
    policy: CausalLMPolicy, prompts: Sequence[Prompt], drawing: Drawing, options: AnswerOptions
) -> None:
    """Raise ParetuneError for a prompt, or one after the words of --safety-prompt, that is too long."""
    if drawing.count:
        for each in zip(*(_asked(prompt, drawing, options) for prompt in prompts), strict=True):
            policy.render([text for text, _, _ in each])


def preceded(words: str, prompt: str) -> str:
    """The prompt with words before it. In a dialogue they come before the last turn of the user."""
    if isinstance(prompt, Dialogue):
        last = dict(prompt.turns[-1])
        return Dialogue([*prompt.turns[:-1], {**last, "content": f"{words}\n\n{last['content']}"}])
    return f"{words}\n\n{prompt}"


def read_others(file: Path | None) -> dict[str, list[Answered]]:
    """Other models' answers by the text of their prompt. {} without a file.

    A record of the file has "text" and perhaps "source", or "answers", or "chosen" and perhaps "rejected".
    Without a source, an answer's source is the name of the file.
    """
    found: dict[str, list[Answered]] = {}
    for prompt in load_prompts(file) if file is not None else ():
        assert file is not None
        found.setdefault(prompt.text, []).extend(_answers(prompt, file.stem))
    return found


def _answers(prompt: Prompt, stem: str) -> list[Answered]:
    record = dict(prompt.metadata)
    source = str(record.get("source", stem))
    if isinstance(record.get("text"), str) and record["text"].strip():
        return [Answered(record["text"], source, own=False)]
    if record.get("answers") is None and "rejected" not in record and isinstance(record.get("chosen"), str):
        return [Answered(record["chosen"], source, own=False)]
    try:
        answers = read_answers(Prompt(prompt.text, record)).answers
    except ParetuneError as error:
        raise ParetuneError(f'--answers: {error}, nor a "text"') from error
    return [Answered(a.text, a.source or source, own=False, ends=a.ends) for a in answers]


def check_others(
    policy: CausalLMPolicy, prompts: Sequence[Prompt], others: Mapping[str, Sequence[Answered]]
) -> None:
    """Raise ParetuneError for an answer of --answers that no model could be trained on, as it is too long."""
    for prompt in prompts:
        for answer in others.get(prompt.text, ()):
            try:
                given_answer(policy, prompt.text, [answer.text], answer.ends)
            except ParetuneError as error:
                raise ParetuneError(f"--answers: {error}") from error


def judge(
    answers: Sequence[Answered], raw: Sequence[Mapping[str, float]], better: Mapping[str, torch.Tensor],
    order: str, wins: bool,
) -> list[Scored]:  # fmt: skip
    """The answers with their values: the score of the reward `order`, or the share of rivals beaten."""
    if order not in better or (wins and len(answers) < 2):  # one answer alone has no rivals
        return []
    values = better[order].tolist()
    if wins:
        values = win_rates(torch.stack(list(better.values()))[:, None]).flatten().tolist()
    return [
        Scored(a.text, value, {**scores, WINS: value} if wins else dict(scores), a.source, a.own, a.ends,
               warned=a.warned)
        for a, value, scores in zip(answers, values, raw, strict=True)
    ]


def costs_of(
    raw: Sequence[Mapping[str, float]], better: Mapping[str, torch.Tensor]
) -> dict[str, list[str]]:
    """What a record says of the scores of which less is better; {} where there is none."""
    turned = [
        name for name, values in better.items()
        if any(value != row[name] for value, row in zip(values.tolist(), raw, strict=True))
    ]  # fmt: skip
    return {"costs": turned} if turned else {}


def head_of(prompt: Prompt) -> dict[str, Any]:
    """What a record keeps of its prompt: the prompt as it can be read again, and what rewards read of it."""
    ours = {"answers", "chosen", "rejected", "reference", "prefix", "margin", "share", "right", "stage",
            "weight", "weights", "costs", "drift", "tokenizer", "messages", "conversations",
            "text"}  # fmt: skip
    kept = {key: value for key, value in prompt.metadata.items() if key not in ours}
    return {**kept, "prompt": as_recorded(prompt.text)}
