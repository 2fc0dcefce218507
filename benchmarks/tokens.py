"""Reward tokens beside the LoRA experts that taught them: reward, control, memory, switching, mixed batches.

    python benchmarks/tokens.py runs/long-0 --prompts 64 --out tokens-0.json
    python benchmarks/tokens.py --pool tokens-0.json tokens-1.json tokens-2.json

The first measures one run (made by `paretune tokens RUN`): held-out prompts, the run's evaluation noise.
Pooling states means and standard errors over the runs' seeds; what tokens recover of their experts' gains
is of each prompt's mean over the seeds, its standard error over the prompts.

Memory: bytes of one reward's token (its float32 vectors in every encoder) and of its expert (its float32
low-rank factors). Switching: from one reward to another for the next sample. With tokens the prompt is
encoded again; a folded expert is multiplied out and added to the weights, and later taken off; one that
lies unfolded on the model (peft) is switched on and off, which is quick, but it stays in memory and every
step computes it too. Mixed batch: eight samples, each of another preference. Tokens draw pictures in one
batch of eight conditions; experts are folded at each preference in turn, for a batch has one weight. Answers
of a language model are drawn one after another either way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr

from paretune.adapters.store import load_delta, sum_deltas
from paretune.config import RunConfig
from paretune.data.prompts import load_prompts
from paretune.files import read_json, read_rows
from paretune.models.flow import Conditions, Sampling, sample
from paretune.models.loading import open_policy
from paretune.models.lora import folded
from paretune.ops.lowrank import LowRank
from paretune.ops.merge_weights import simplex_lattice
from paretune.planning.methods import build_plan
from paretune.planning.plan import derive_seed
from paretune.recipes import load_config
from paretune.reward_tokens.files import Token, read_bank
from paretune.reward_tokens.pipelines import Scaled, resolve
from paretune.rewards.base import load_reward, oriented, score_samples
from paretune.samples.media import medium_of
from paretune.stages.evaluate import draw
from paretune.stages.menu import token_menu
from paretune.stages.train_tokens import token_tasks
from paretune.training.token_distillation.teacher import Teacher
from paretune.types import ParetuneError

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
BATCH = 8  # samples, of as many preferences


class Ways(NamedTuple):
    """What is timed. switch: to a token. together: a sample for each of several wishes. one: of no token."""

    switch: Callable[[Scaled], object]
    together: Callable[[Sequence[tuple[Scaled, ...]]], object]
    one: Callable[[int], object]


class Bench:
    """A run's base, tokens and experts, and the scores of what they draw."""

    def __init__(self, run: Path, prompts: int) -> None:
        whole = load_config(run / "config.yaml")
        self.config: RunConfig = whole.model_copy(
            update={"evaluate": whole.evaluate.model_copy(update={"samples": 1})}
        )
        self.tokens: dict[str, Token] = dict(read_bank(run / "final" / "tokens"))
        if lacking := [name for name in self.config.rewards if name not in self.tokens]:
            lost = ", ".join(lacking)
            raise ParetuneError(f"{run} has no reward token for {lost}; `paretune tokens {run}` trains them")
        self.policy = open_policy(self.config.model)
        tasks = token_tasks(self.config, build_plan(self.config))
        self.experts = {t.reward: load_delta([run / a for a in t.teacher]) for t in tasks}
        own = self.config.rewards
        self.rewards = {n: load_reward(r.reward, name=n, **r.options) for n, r in own.items()}
        self.prompts = {n: load_prompts(r.eval_prompts)[:prompts] for n, r in own.items()}

    def score(self, on: str, tokens: tuple[Scaled, ...] = ()) -> float:
        """The mean reward `on` its own held-out prompts of what the model draws now."""
        return statistics.fmean(self.scores(on, tokens))

    def scores(self, on: str, tokens: tuple[Scaled, ...] = ()) -> list[float]:
        """The reward `on` of each of its own held-out prompts, of what the model draws now."""
        drawn = draw(
            self.policy, self.config, self.prompts[on], derive_seed(self.config.evaluate.seed, on), tokens
        )
        reward, prompts = self.rewards[on], list(self.prompts[on])
        return oriented(reward, score_samples(reward, drawn, prompts)).double().tolist()

    @contextmanager
    def mixed(self, scales: dict[str, float]) -> Iterator[None]:
        """The model with experts on it, each times its scale."""
        with folded(self.policy.transformer, self.mixture(scales)):
            yield

    def mixture(self, scales: dict[str, float]) -> dict[str, LowRank]:
        """Σ scale · expert."""
        return sum_deltas([self.experts[name] for name in scales], list(scales.values()))


def control(bench: Bench) -> dict[str, Any]:
    """Per reward: means at every scale of its token and of its expert, and Spearman with the scale.

    prompts: the base's, the token's and the expert's value on each prompt, both at scale 1.
    """
    told: dict[str, Any] = {}
    for name in bench.rewards:
        base: list[float] = bench.scores(name)
        rows: dict[str, list[list[float]]] = {"token": [], "expert": []}
        for scale in SCALES:
            token = Scaled(bench.tokens[name], 1, scale)
            rows["token"].append(bench.scores(name, (token,)) if scale else base)
            with bench.mixed({name: scale}):
                rows["expert"].append(bench.scores(name) if scale else base)
        told[name] = {"scales": SCALES}
        for kind, values in rows.items():
            told[name][kind] = [statistics.fmean(v) for v in values]
            told[name][f"spearman_{kind}"] = spearman(told[name][kind])
        at = SCALES.index(1.0)
        told[name]["prompts"] = {"base": base, **{kind: values[at] for kind, values in rows.items()}}
    return told


def spearman(means: Sequence[float]) -> float | None:
    """The rank correlation with the scale; None where all means are one, which have no ranks."""
    if len(set(means)) == 1:
        return None
    result: Any = spearmanr(SCALES, means)
    return float(result.statistic)


def gains(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a token recovers of its expert's gain, from `control` of one seed, or of several.

    share: (token - base) / (expert - base), null where the expert gains nothing. beyond_half: the mean of
    (token - base) - half of (expert - base) and its standard error over the prompts: paired, for all three
    drew the same prompts from the same noise. Several seeds: each prompt's value is the mean over them.
    """
    told: dict[str, Any] = {}
    for name in parts[0]:
        kept = [part[name]["prompts"] for part in parts]
        if len({len(own["base"]) for own in kept}) > 1:
            raise ParetuneError("these files are of different numbers of prompts: measure with one --prompts")
        base, token, expert = (np.mean([own[k] for own in kept], axis=0) for k in ("base", "token", "expert"))
        gain, half = float((expert - base).mean()), (token - base) - (expert - base) / 2
        error = float(half.std(ddof=1) / len(half) ** 0.5) if len(half) > 1 else 0.0
        share = float((token - base).mean()) / gain if gain else None
        told[name] = {"share": share, "beyond_half": [float(half.mean()), error]}
    return told


def training_cost(run: Path) -> float | None:
    """Seconds of training the tokens over those of MapReduce, its Map and Reduce; None where one is unknown.

    timing.jsonl has one name for every Reduce: a soup's, a tenth of a second, is in it.
    """
    rows = read_rows(run / "timing.jsonl")
    spent = {n: sum(r["seconds"] for r in rows if r["phase"] == n) for n in ("tokens", "map", "reduce")}
    whole = spent["map"] + spent["reduce"]
    return spent["tokens"] / whole if spent["tokens"] and whole else None


def pairs(bench: Bench) -> dict[str, Any]:
    """Two at once: the gain over the base of both rewards, of two tokens and of two half experts."""
    told: dict[str, Any] = {}
    for pair in combinations(bench.rewards, 2):
        both = tuple(Scaled(bench.tokens[name]) for name in pair)
        base = {on: bench.score(on) for on in pair}
        tokens = {on: bench.score(on, both) - base[on] for on in pair}
        with bench.mixed(dict.fromkeys(pair, 0.5)):
            experts = {on: bench.score(on) - base[on] for on in pair}
        told["+".join(pair)] = {"tokens": tokens, "experts": experts}
    return told


def wishes(rewards: int, count: int = BATCH) -> list[tuple[float, ...]]:
    """So many different preferences, spread over the coarsest lattice that has them."""
    if rewards < 2:
        raise ParetuneError("the run has one reward: there is nothing to prefer")
    divisions = 1
    while len(points := list(simplex_lattice(rewards, divisions))) < count:
        divisions += 1
    return [points[i * (len(points) - 1) // (count - 1)] for i in range(count)]


def flow_ways(bench: Bench, text: str) -> Ways:
    """Of a flow model: the prompt encoded, one batch of joined conditions, a picture."""
    policy, sampling = bench.policy, Sampling(bench.config.evaluate.steps, 1.0)
    whole = policy.encode([text], False)  # text encoders are warm
    noise = policy.initial_noise(BATCH, torch.Generator().manual_seed(0))

    def together(each: Sequence[tuple[Scaled, ...]]) -> None:
        parts = [policy.encode([text], False, tokens) for tokens in each]
        sample(policy, Conditions.join(parts), noise, sampling)

    return Ways(
        lambda token: policy.encode([text], False, (token,)),
        together,
        lambda i: sample(policy, whole, noise[i : i + 1], sampling),
    )


def text_ways(bench: Bench, text: str) -> Ways:
    """Of a language model: the prompt's ids, one answer after another, an answer."""
    policy = bench.policy

    def together(each: Sequence[tuple[Scaled, ...]]) -> None:
        for i, tokens in enumerate(each):
            policy.answer([text], i, 1, tokens)

    return Ways(
        lambda token: policy.prompt_ids([text], (token,)),
        together,
        lambda i: policy.answer([text], i, 1),
    )


@torch.no_grad()
def costs(bench: Bench) -> dict[str, float]:
    """Bytes kept a reward, seconds to switch, seconds of eight samples, each of its own preference."""
    policy, names = bench.policy, list(bench.rewards)
    ways = text_ways if medium_of(bench.config.model).name == "texts" else flow_ways
    timed = ways(bench, bench.prompts[names[0]][0].text)
    family, asked = token_menu(tuple(names)), wishes(len(names))

    def by_tokens() -> None:
        timed.together([resolve(family.at(p).tokens, bench.tokens) for p in asked])

    def by_experts() -> None:
        for i, preference in enumerate(asked):
            with bench.mixed({n: p for n, p in zip(names, preference, strict=True) if p}):
                timed.one(i)

    def fold_one() -> None:
        with bench.mixed({names[0]: 1.0}):
            pass

    token, expert = bench.tokens[names[0]], bench.experts[names[0]]
    told = {
        "bytes_token": sum(v.numel() * v.element_size() for v in token.vectors.values()),
        "bytes_expert": sum(4 * (d.A.numel() + d.B.numel()) for d in expert.values()),
        "switch_token": seconds(lambda: timed.switch(Scaled(token))),
        "switch_expert": seconds(fold_one),
        "batch_tokens": seconds(by_tokens),
        "batch_experts": seconds(by_experts),
    }
    # Last: once adapters lie on the model, its layers are peft's and nothing folds any more.
    teacher = Teacher(policy, expert)

    def switch_unfolded() -> None:
        with teacher.on():
            pass

    return {**told, "switch_unfolded": seconds(switch_unfolded)}


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """The median of a few; the first is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def pooled(parts: list[Any]) -> Any:
    """The same tree with [mean, standard error over the parts] at its numbers.

    A part that has none (null) is left out; null where no part has one.
    """
    parts = [part for part in parts if part is not None]
    if not parts:
        return None
    if isinstance(parts[0], dict):
        return {key: pooled([p[key] for p in parts]) for key in parts[0] if key not in {"prompts", "gains"}}
    if isinstance(parts[0], list):
        return [pooled(list(values)) for values in zip(*parts, strict=True)]
    error = statistics.stdev(parts) / len(parts) ** 0.5 if len(parts) > 1 else 0.0
    return [round(statistics.fmean(parts), 4), round(error, 4)]


def measure(run: Path, prompts: int) -> dict[str, Any]:
    """Everything about one run. Costs come last: they put adapters on the model."""
    bench = Bench(run, prompts)
    own = control(bench)
    return {
        "control": own, "gains": gains([own]), "training_cost": training_cost(run),
        "pairs": pairs(bench), "costs": costs(bench),
    }  # fmt: skip


def main() -> None:
    """Measure a run, or pool files of several."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pool", type=Path, nargs="+")
    args = parser.parse_args()
    if not args.pool and not args.run:
        parser.error("give a run, or --pool and the files of several")
    torch.set_num_threads(1)
    try:
        if args.pool:
            parts = [read_json(path) for path in args.pool]
            told = pooled(parts) | {"gains": gains([part["control"] for part in parts])}
        else:
            told = measure(args.run, args.prompts)
    except ParetuneError as error:
        parser.exit(2, f"error: {error}\n")
    text = json.dumps(told, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
