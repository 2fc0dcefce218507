"""Reward tokens beside the LoRA experts that taught them: reward, control, memory, switching, mixed batches.

    python benchmarks/tokens.py runs/long-0 --prompts 64 --out tokens-0.json
    python benchmarks/tokens.py --pool tokens-0.json tokens-1.json tokens-2.json

The first measures one run (made by `paretune tokens RUN`): held-out prompts, the run's evaluation noise.
Pooling states means and standard errors over the runs' seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr

from paretune.config import RunConfig
from paretune.data.prompts import load_prompts
from paretune.methods import build_plan
from paretune.ops.lowrank import LowRank
from paretune.plan import derive_seed
from paretune.policies.adapters import folded
from paretune.policies.flow import Conditions, Sampling, sample
from paretune.policies.opening import open_policy
from paretune.policies.token_files import Token, read_bank
from paretune.policies.tokens import Scaled
from paretune.recipes import load_config
from paretune.rewards.base import load_reward, oriented, score_samples
from paretune.stages.adapters import load_delta, sum_deltas
from paretune.stages.evaluate import draw
from paretune.stages.tokens import token_tasks

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
BATCH = 8  # pictures of as many preferences


class Bench:
    """A run's base, tokens and experts, and the scores of what they draw."""

    def __init__(self, run: Path, prompts: int) -> None:
        whole = load_config(run / "config.yaml")
        self.config: RunConfig = whole.model_copy(
            update={"evaluate": whole.evaluate.model_copy(update={"samples": 1})}
        )
        self.policy = open_policy(self.config.model)
        self.tokens: dict[str, Token] = dict(read_bank(run / "final" / "tokens"))
        tasks = token_tasks(self.config, build_plan(self.config))
        self.experts = {t.reward: load_delta([run / a for a in t.teacher]) for t in tasks}
        own = self.config.rewards
        self.rewards = {n: load_reward(r.reward, name=n, **r.options) for n, r in own.items()}
        self.prompts = {n: load_prompts(r.eval_prompts)[:prompts] for n, r in own.items()}

    def score(self, on: str, tokens: tuple[Scaled, ...] = ()) -> float:
        """The mean reward `on` its own held-out prompts of what the model draws now."""
        drawn = draw(
            self.policy, self.config, self.prompts[on], derive_seed(self.config.evaluate.seed, on), tokens
        )
        reward, prompts = self.rewards[on], list(self.prompts[on])
        return float(oriented(reward, score_samples(reward, drawn, prompts)).mean())

    @contextmanager
    def mixed(self, scales: dict[str, float]) -> Iterator[None]:
        """The model with experts on it, each times its scale."""
        with folded(self.policy.transformer, self.mixture(scales)):
            yield

    def mixture(self, scales: dict[str, float]) -> dict[str, LowRank]:
        """Σ scale · expert."""
        return sum_deltas([self.experts[name] for name in scales], list(scales.values()))


def control(bench: Bench) -> dict[str, Any]:
    """Per reward: means at every scale of its token and of its expert, and Spearman with the scale."""
    told: dict[str, Any] = {}
    for name in bench.rewards:
        base, rows = bench.score(name), {"token": [], "expert": []}
        for scale in SCALES:
            token = Scaled(bench.tokens[name], 1, scale)
            rows["token"].append(bench.score(name, (token,)) if scale else base)
            with bench.mixed({name: scale}):
                rows["expert"].append(bench.score(name) if scale else base)
        told[name] = {"scales": SCALES, **rows}
        for kind, values in rows.items():
            result: Any = spearmanr(SCALES, values)
            told[name][f"spearman_{kind}"] = float(result.statistic)
    return told


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


@torch.no_grad()
def costs(bench: Bench) -> dict[str, float]:
    """Bytes kept a reward, seconds to switch, seconds of one batch in which every picture has its own."""
    policy, names = bench.policy, list(bench.rewards)
    text = bench.prompts[names[0]][0].text
    whole = bench.policy.encode([text], False)  # text encoders are warm
    wishes = [names[i % len(names)] for i in range(BATCH)]
    noise = policy.initial_noise(BATCH, torch.Generator().manual_seed(0))
    sampling = Sampling(bench.config.evaluate.steps, 1.0)

    def by_tokens() -> None:
        parts = [policy.encode([text], False, (Scaled(bench.tokens[wish]),)) for wish in wishes]
        sample(policy, Conditions.join(parts), noise, sampling)

    def by_experts() -> None:
        for i, wish in enumerate(wishes):
            with bench.mixed({wish: 1.0}):
                sample(policy, whole, noise[i : i + 1], sampling)

    def fold_one() -> None:
        with bench.mixed({names[0]: 1.0}):
            pass

    token, expert = bench.tokens[names[0]], bench.experts[names[0]]
    return {
        "bytes_token": sum(v.numel() * v.element_size() for v in token.vectors.values()),
        "bytes_expert": sum(4 * (d.A.numel() + d.B.numel()) for d in expert.values()),
        "switch_token": seconds(lambda: policy.encode([text], False, (Scaled(token),))),
        "switch_expert": seconds(fold_one),
        "batch_tokens": seconds(by_tokens),
        "batch_experts": seconds(by_experts),
    }


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """The median of a few; the first is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def pooled(parts: list[Any]) -> Any:
    """The same tree with [mean, standard error over the parts] at its numbers."""
    if isinstance(parts[0], dict):
        return {key: pooled([p[key] for p in parts]) for key in parts[0]}
    if isinstance(parts[0], list):
        return [pooled(list(values)) for values in zip(*parts, strict=True)]
    error = statistics.stdev(parts) / len(parts) ** 0.5 if len(parts) > 1 else 0.0
    return [round(statistics.fmean(parts), 4), round(error, 4)]


def main() -> None:
    """Measure a run, or pool files of several."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pool", type=Path, nargs="+")
    args = parser.parse_args()
    if args.pool:
        print(json.dumps(pooled([json.loads(p.read_text()) for p in args.pool]), indent=1))
        return
    torch.set_num_threads(1)
    bench = Bench(args.run, args.prompts)
    told = {"costs": costs(bench), "control": control(bench), "pairs": pairs(bench)}
    text = json.dumps(told, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
