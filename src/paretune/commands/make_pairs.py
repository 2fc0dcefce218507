"""`paretune pairs`: draw samples for a reward's prompts, score them with the recipe's rewards, write lists.

The file is one that `rewards.NAME.pairs` reads (`data.preferences`). Samples lie in a folder beside it. A
prompt's samples depend on the prompt and the seed alone, so part of a set is the same as in the whole.
"""

from __future__ import annotations

import difflib
import itertools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..adapters.inputs import measurable
from ..config import RunConfig
from ..data.prompts import load_prompts
from ..environment import choose_device
from ..files import check_new, disk_errors, new_folder, write_bytes, write_rows
from ..models.flow import Sampling
from ..models.loading import open_policy
from ..models.memory import memory_errors, to_draw
from ..models.whole import add_changes
from ..ops.preference_losses import agreement, win_rates
from ..planning.plan import derive_seed
from ..rewards.base import applies_to, oriented, reward_of, score_samples
from ..samples.media import medium_of
from ..samples.stamped import restored
from ..stages.claim import check
from ..types import ParetuneError, Prompt, Reward

FORMS = ("extremes", "list", "wins")


@dataclass(frozen=True)
class Drawing:
    """How lists are made.

    reward: whose prompts are taken, and whose score orders a list. count: samples of a prompt. form:
    "extremes" writes the best and the worst, "list" all in order, "wins" all in the order of the share of
    rivals that they beat over all rewards. limit: the first so many prompts, 0 for all. adapter: over the
    base, or None.
    """

    reward: str
    count: int = 4
    form: str = "extremes"
    limit: int = 0
    seed: int = 0
    adapter: str | None = None


def make_pairs(
    config: RunConfig, drawing: Drawing, out: Path, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Draw, score and write. Nothing is left if it fails.

    Args:
        config: the recipe.
        drawing: what to make.
        out: the new .jsonl file; its samples are written into the folder NAME-samples beside it.
        say: receives lines about the progress.

    Returns:
        The summary: lists, ties that were dropped, the mean gap of the scores, and for every two rewards how
        often they order two samples of a prompt alike (`agreement`, with the number of pairs it is of).
    """
    _check(config, drawing, out)
    check(config)
    prompts = load_prompts(config.rewards[drawing.reward].prompts)
    prompts = prompts[: drawing.limit] if drawing.limit else prompts
    rewards = [reward_of(r, name) for name, r in config.rewards.items()]
    medium = medium_of(config.model)
    policy = open_policy(config.model, choose_device(config.executor.device))
    if drawing.adapter is not None:
        (place,) = measurable([drawing.adapter], (), out.parent)
        add_changes(policy.transformer, [place])
    sampling = Sampling(config.model.steps, config.model.guidance_scale, batch=config.train.micro_batch)
    records: list[dict[str, Any]] = []
    gaps: list[float] = []
    judged: list[dict[str, torch.Tensor]] = []
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(samples_folder(out)) as partial:
        for number, prompt in enumerate(prompts):
            seeds = [derive_seed("pairs", drawing.seed, prompt.text, i) for i in range(drawing.count)]
            with memory_errors(to_draw, config.model):
                drawn = medium.draw_each(policy, prompt.text, seeds, sampling)
            raw, better = scored(rewards, restored(drawn), prompt, config.executor.reward_timeout)
            judged.append(better)
            score = _ordering(better, drawing)
            order = sorted(range(drawing.count), key=lambda i: -score[i])
            if score[order[0]] > score[order[-1]]:
                gaps.append(score[order[0]] - score[order[-1]])
                kept = [order[0], order[-1]] if drawing.form == "extremes" else order
                files = [f"{number:05d}-{i}{medium.suffix}" for i in kept]
                for i, file in zip(kept, files, strict=True):
                    settings = _settings(prompt, seeds[i], sampling)
                    write_bytes(partial / file, medium.content(drawn, i, settings))
                records.append(_record(prompt, [f"{samples_folder(out).name}/{f}" for f in files],
                                       kept, score, raw, drawing))  # fmt: skip
            say(f"{number + 1} of {len(prompts)} prompts")
        if not records:
            raise ParetuneError(
                f"--reward {drawing.reward}: all {len(prompts)} lists tie, so there is nothing to write; "
                "draw more samples with -n"
            )
    _publish(out, records)
    return {
        "file": str(out), "lists": len(records), "ties": len(prompts) - len(records),
        "mean_gap": sum(gaps) / len(gaps), "agreement": agreements(judged),
    }  # fmt: skip


def agreements(judged: Sequence[dict[str, torch.Tensor]]) -> list[dict[str, Any]]:
    """For every two rewards the share of pairs of samples that they order alike: their conflict, untrained.

    judged: for each prompt the scores [n] of the rewards that apply to it, greater is better.
    """
    names = list(dict.fromkeys(name for scores in judged for name in scores))
    table: list[dict[str, Any]] = []
    for first, second in itertools.combinations(names, 2):
        both = [scores for scores in judged if first in scores and second in scores]
        if not both:
            continue
        found = [agreement(scores[first][None], scores[second][None]) for scores in both]
        pairs = sum(counted for _, counted in found)  # lists of answers differ in their length
        alike = sum(share * counted for share, counted in found) / max(pairs, 1)
        table.append({"rewards": [first, second], "alike": alike, "pairs": pairs})
    return table


def samples_folder(out: Path) -> Path:
    """The folder of a file's samples."""
    return out.with_name(f"{out.stem}-samples")


def _check(config: RunConfig, drawing: Drawing, out: Path) -> None:
    """Raise ParetuneError for words that do not fit, before anything is loaded."""
    if drawing.reward not in config.rewards:
        near = difflib.get_close_matches(drawing.reward, config.rewards, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the recipe has {', '.join(config.rewards)}"
        raise ParetuneError(f"--reward: there is no reward {drawing.reward}; {hint}")
    if drawing.form not in FORMS:
        raise ParetuneError(f"--form: {drawing.form} is none of {', '.join(FORMS)}")
    if not 2 <= drawing.count <= 1000:
        raise ParetuneError(f"-n: a list has 2 to 1000 samples, not {drawing.count}")
    if drawing.limit < 0:
        raise ParetuneError(f"--limit: a number of prompts, or 0 for all, not {drawing.limit}")
    if out.suffix != ".jsonl":
        raise ParetuneError(f"--out: the file of pairs ends in .jsonl: {out}")
    if medium_of(config.model).component is None or medium_of(config.model).lines:
        raise ParetuneError("this draws pictures and clips; answers are drawn by commands.answer_pairs")
    check_new(out)
    check_new(samples_folder(out))


Raw = list[dict[str, float]]


def scored(
    rewards: Sequence[Reward], samples: Any, prompt: Prompt, timeout: float
) -> tuple[Raw, dict[str, torch.Tensor]]:
    """The scores of every reward that applies: raw, for each sample; and with greater as better, [n]."""
    raw: Raw = [{} for _ in range(len(samples))]
    better: dict[str, torch.Tensor] = {}
    for reward in rewards:
        if not applies_to(reward, prompt):
            continue
        values = score_samples(reward, samples, [prompt] * len(samples), timeout=timeout)
        better[reward.name] = oriented(reward, values)
        for row, value in zip(raw, values.tolist(), strict=True):
            row[reward.name] = value
    return raw, better


def _ordering(better: dict[str, torch.Tensor], drawing: Drawing) -> list[float]:
    """The scores by which a list is ordered."""
    if drawing.form == "wins":
        return win_rates(torch.stack(list(better.values()))[:, None]).flatten().tolist()
    return better[drawing.reward].tolist()


def _record(
    prompt: Prompt, files: Sequence[str], kept: Sequence[int], score: Sequence[float], raw: Raw,
    drawing: Drawing,
) -> dict[str, Any]:  # fmt: skip
    """A line of the file, best first."""
    source = drawing.adapter or "base"
    return {
        "prompt": prompt.text,
        "answers": [
            {"file": file, "score": score[i], "scores": raw[i], "source": source}
            for file, i in zip(files, kept, strict=True)
        ],
    }


def _settings(prompt: Prompt, seed: int, sampling: Sampling) -> dict[str, Any]:
    return {"prompt": prompt.text, "seed": seed, "steps": sampling.steps, "guidance_scale": sampling.guidance}


def _publish(out: Path, records: list[dict[str, Any]]) -> None:
    """Write the file; the samples are there already, and go if it cannot be written."""
    try:
        check_new(out)
        write_rows(out, records, finite=True)
    except ParetuneError:
        shutil.rmtree(samples_folder(out), ignore_errors=True)
        raise

