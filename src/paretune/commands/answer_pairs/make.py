"""Draw answers to a reward's prompts, score them with the recipe's rewards, and write records.

The file is one that `rewards.NAME.prompts` reads for a loss on pairs or lists. A prompt's answers depend on
the prompt and the seed alone, so part of a set is the same as in the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from ...config import ObjectiveConfig, RunConfig
from ...data.answer_forms import FORMS, STEPS, Judging, Record, Scored, distinct
from ...data.answer_lists import WINS
from ...data.prompts import load_prompts
from ...environment import choose_device
from ...files import check_room, write_rows
from ...models.causal_lm.policy import CausalLMPolicy
from ...models.loading import open_policy
from ...models.lora import folded
from ...models.memory import memory_errors, to_draw
from ...models.text_encoder import TextEncoder
from ...ops.lowrank import LowRank
from ...planning.plan import derive_seed
from ...rewards.base import applies_to, reward_of
from ...stages.claim import check
from ...types import ParetuneError, Prompt, Reward
from ..guest_adapters import guest_changes
from ..make_pairs import Drawing, agreements
from .drawing import (
    Answered,
    Scorer,
    check_others,
    check_prompts,
    costs_of,
    draw_answers,
    head_of,
    judge,
    read_others,
    scorer_of,
)
from .numbers import (
    Deltas,
    add_contrast,
    add_drift,
    add_guide,
    add_step_weights,
    better_of,
    order_by_reference,
)
from .options import AnswerOptions, check_words
from .rewriting import picture_scorer
from .steps import Continued, StillRight, step_records

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Made:
    """Records, the text of each one's prompt, the gaps of lists, and the oriented scores of all prompts."""

    records: list[Record]
    texts: list[str]
    judged: list[dict[str, torch.Tensor]]
    left_out: int


def make_answer_pairs(
    config: RunConfig, drawing: Drawing, options: AnswerOptions, out: Path, say: Say = lambda line: None
) -> dict[str, Any]:
    """Draw, score and write. Nothing is left if it fails.

    Args:
        config: the recipe. Its objective does not matter.
        drawing: what to make.
        options: more of that.
        out: the new .jsonl file.
        say: receives lines about the progress and what is worth knowing.

    Returns:
        The summary: lists, prompts that gave none (`ties`), the mean gap of the scores, the mean length
        in characters of the best and of the worst answers, who wrote them, the rewards' agreement, and
        `notes`, lines that are worth knowing.
    """
    check_words(config, drawing, options, out)
    check_room(out)
    check(config.model_copy(update={"objective": ObjectiveConfig.model_validate({"name": "grpo"})}))
    others = read_others(options.answers)
    prompts = load_prompts(config.rewards[drawing.reward].prompts)
    prompts = prompts[: drawing.limit] if drawing.limit else prompts
    if others and not any(prompt.text in others for prompt in prompts):
        raise ParetuneError(f"--answers {options.answers}: it answers none of the {len(prompts)} prompts")
    policy = cast(CausalLMPolicy, open_policy(config.model, choose_device(config.executor.device)))
    check_prompts(policy, prompts, drawing, options)
    check_others(policy, prompts, others)

    def changes(option: str, name: str | None) -> dict[str, LowRank]:
        if name is None:
            return {}
        return guest_changes(option, name, config.model.path, policy.transformer, out.parent)

    start = changes("--adapter", drawing.adapter)
    passes = [changes("--contrast", name) for name in options.contrast or ()]
    guide = changes("--guide", options.guide)
    encoder = None if options.embed is None else TextEncoder(options.embed)
    if encoder is not None:
        for prompt in prompts:
            encoder.check_fits(str(prompt.text))
    with folded(policy.transformer, start), memory_errors(to_draw, config.model):
        made = _draw_all(policy, config, drawing, options, prompts, others, say)
    if not made.records:
        raise ParetuneError(
            f"--reward {drawing.reward}: none of {len(prompts)} prompts gives a record of the form "
            f"{drawing.form}: draw more answers with -n, or change --threshold"
        )
    notes: list[str] = []
    if encoder is not None:
        made, notes = _with_drift(encoder, made)
    with memory_errors(to_draw, config.model):
        notes += _add_numbers(policy, made, options, start, passes, guide)
    write_rows(out, made.records, finite=True)
    return {**_summary(out, made), "notes": notes}


def _with_drift(encoder: TextEncoder, made: _Made) -> tuple[_Made, list[str]]:
    """The records that the encoder can read, with their drift, and what is worth knowing of them."""
    here = [encoder.fits(better_of(record)) for record in made.records]
    records = [record for record, fits in zip(made.records, here, strict=True) if fits]
    texts = [text for text, fits in zip(made.texts, here, strict=True) if fits]
    if not records:
        raise ParetuneError(
            f"--embed {encoder.place}: it reads {encoder.most} tokens, and every better answer has more"
        )
    notes = [f"--embed: the records count {add_drift(encoder, texts, records):.3f} in the mean"]
    if len(records) < len(here):
        notes.append(
            f"--embed: {len(here) - len(records)} of {len(here)} records were left out: their better answers "
            f"have more than the {encoder.most} tokens that the encoder reads"
        )
    return replace(made, records=records, texts=texts), notes


def _add_numbers(
    policy: CausalLMPolicy, made: _Made, options: AnswerOptions, start: Deltas, passes: Sequence[Deltas],
    guide: Deltas,
) -> list[str]:  # fmt: skip
    """Write what some losses read of the records. Returns what is worth knowing."""
    notes: list[str] = []
    if passes:
        add_contrast(policy, made.texts, made.records, *passes)
    if options.guide is not None:
        beyond = add_guide(policy, made.texts, made.records, guide, start, options.guide_beta)
        if beyond:
            notes.append(f"--guide: {beyond:.1%} of the tokens would count with the opposite sign in tgdpo")
    if options.steps_like_best:
        with folded(policy.transformer, start):
            add_step_weights(policy, made.texts, made.records, options.step_mark)
    if options.ladder_by == "reference":
        with folded(policy.transformer, start):
            order_by_reference(policy, made.texts, made.records)
    return notes


def _draw_all(
    policy: CausalLMPolicy, config: RunConfig, drawing: Drawing, options: AnswerOptions,
    prompts: Sequence[Prompt], others: dict[str, list[Answered]], say: Say,
) -> _Made:  # fmt: skip
    """The records of all prompts."""
    rewards = [reward_of(r, name) for name, r in config.rewards.items()]
    if drawing.form == STEPS and options.judge:
        _check_judge({reward.name: reward for reward in rewards}, drawing.reward, options.judge, prompts)
    score = scorer_of(config, rewards)
    order, owner = drawing.reward, config
    if options.through is not None:
        owner = options.through
        order, score = options.judge or next(iter(owner.rewards)), picture_scorer(owner, drawing.seed)
    # Values are oriented, so that greater is better; of a cost the threshold is the greatest that is right.
    least = {r.name: options.threshold if r.higher_is_better else -options.threshold for r in rewards}
    squashed = bool(owner.rewards[order].options.get("squash"))
    cost = any(r.name == order and not r.higher_is_better for r in rewards)
    judging = Judging(least.get(order, options.threshold), squashed, cost)
    form = FORMS["list" if drawing.form == WINS else drawing.form] if drawing.form != STEPS else None
    made = _Made([], [], [], 0)
    for number, prompt in enumerate(prompts, start=1):
        answers = draw_answers(policy, prompt, drawing, options) + others.get(prompt.text, [])
        found: list[Record] = []
        costs: Record = {}
        if answers:
            raw, better = score(prompt, [answer.text for answer in answers])
            made.judged.append(better)
            costs = costs_of(raw, better)
            scored = judge(answers, raw, better, order, drawing.form == WINS)
            if drawing.form == WINS and len(scored) > 1:
                judging = Judging.of_wins(len(better) * (len(scored) - 1))
            if form is not None:
                found = form(scored, judging)
            else:
                found = _steps(policy, prompt, scored, drawing, options, score, least)
        made.records.extend({**head_of(prompt), **costs, **record} for record in found)
        made.texts.extend([prompt.text] * len(found))
        made = made if found else replace(made, left_out=made.left_out + 1)
        say(f"{number} of {len(prompts)} prompts")
    return made


def _check_judge(rewards: Mapping[str, Reward], own: str, judge: str, prompts: Sequence[Prompt]) -> None:
    """Raise ParetuneError for a prompt of the reward `own` whose steps the reward `judge` cannot judge."""
    for prompt in prompts:
        if applies_to(rewards[own], prompt) and not applies_to(rewards[judge], prompt):
            raise ParetuneError(f"--judge {judge} does not apply to the prompt {prompt.text[:60]!r}")


def _steps(
    policy: CausalLMPolicy, prompt: Prompt, answers: Sequence[Scored], drawing: Drawing,
    options: AnswerOptions, score: Scorer, least: Mapping[str, float],
) -> list[Record]:  # fmt: skip
    """The record of a prompt's first wrong step. The answer is the wrong one that was drawn most often.

    least: the least oriented value of what is right, by reward.
    """
    threshold = least[drawing.reward]
    wrong = [a for a in distinct(answers) if a.value < threshold]
    if not wrong:
        return []
    right = [a for a in answers if a.value >= threshold]

    def goes_on(asked: Prompt, prefix: str) -> list[Continued]:
        """Answers that go on after a prefix; those drawn already where it is empty."""
        if not prefix:
            return [Continued(a.text, a.ends, True, a.source) for a in right]
        before = policy.text_ids(policy.render([asked.text]))[0]
        before += policy.tokenizer(prefix, add_special_tokens=False)["input_ids"]
        seed = derive_seed("pairs-steps", drawing.seed, asked.text, prefix)
        rows = policy.continued(before, seed, options.rollouts)
        texts = [policy.tokenizer.decode(row, skip_special_tokens=True) for row in rows]
        _, better = score(asked, [prefix + text for text in texts])
        values = better[drawing.reward].tolist()
        return [
            Continued(text, policy.ends(row), value >= threshold, drawing.adapter or "base")
            for text, row, value in zip(texts, rows, values, strict=True)
        ]

    def judged(asked: Prompt, so_far: str) -> bool:
        """Whether the reward of --judge finds an answer right so far."""
        return float(score(asked, [so_far])[1][options.judge]) >= least[options.judge]

    by_judge: StillRight | None = judged if options.judge else None
    worst = max(wrong, key=lambda answer: answer.repeats)
    return step_records(prompt, worst, options.step_mark, goes_on, by_judge)


def _summary(out: Path, made: _Made) -> dict[str, Any]:
    pairs = [(record["answers"][0], record["answers"][-1]) for record in made.records]
    gaps = [best["score"] - worst["score"] for best, worst in pairs if "score" in best and "score" in worst]
    return {
        "file": str(out), "lists": len(made.records), "ties": made.left_out,
        "mean_gap": sum(gaps) / len(gaps) if gaps else None,
        "mean_characters": [
            sum(len(answer["text"]) for answer in side) / len(side) for side in zip(*pairs, strict=True)
        ],
        "sources": [dict(Counter(a["source"] for a in side)) for side in zip(*pairs, strict=True)],
        "agreement": agreements([scores for scores in made.judged if scores]),
    }  # fmt: skip
