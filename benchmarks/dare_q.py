"""What pruned experts lose in their layers' outputs, by the rule that rescales the kept entries.

    python benchmarks/dare_q.py RUN [--density 0.1]

RUN is a finished run with LoRA. Its base draws samples for training prompts; the inputs of every layer that
an expert changes are kept. On the inputs of the first half of the prompts a rule chooses q, on those of the
second half ‖((M∘ΔW)/q − ΔW) x‖ / ‖ΔW x‖ is measured, all layers together:

dare            q = 1 − p
least squares   `dare-q`: what is least on the row space of ΔW, without inputs
analytic        the paper's closed form (2410.09344) from mean inputs, its η chosen on the first half
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paretune.adapters.store import load_delta
from paretune.commands.export import open_final
from paretune.models.loading import open_policy
from paretune.ops.analytic_q import analytic_q
from paretune.ops.lowrank import LowRank
from paretune.ops.reducers import dare_q
from paretune.planning.methods import build_plan
from paretune.stages.evaluate import draw
from paretune.stages.measure_candidates import validation_of

ETAS = tuple(0.05 * 2**k for k in range(9))


def inputs_of(policy: Any, config: Any, names: list[str], prompts: Any, seed: int) -> dict[str, Tensor]:
    """The inputs of every named layer while samples are drawn, [N, n]."""
    found: dict[str, list[Tensor]] = {name: [] for name in names}

    def keeper(name: str) -> Any:
        def keep(_: Any, given: tuple[Any, ...]) -> None:
            found[name].append(given[0].detach().float().flatten(0, -2)[:64].cpu())

        return keep

    hooks = [policy.transformer.get_submodule(n).register_forward_pre_hook(keeper(n)) for n in names]
    with torch.no_grad():
        draw(policy, config, prompts, seed)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(rows) for name, rows in found.items() if rows}


def lost(delta: LowRank, kept: Tensor, q: float, x: Tensor) -> tuple[float, float]:
    """The squares of what a layer's outputs lose and of the outputs."""
    right = x @ delta.dense().T
    return float((x @ kept.T / q - right).square().sum()), float(right.square().sum())


def main() -> None:
    """Draw, choose, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--density", type=float, default=0.1, help="1 - p, the share of entries kept")
    parser.add_argument("--prompts", type=int, default=8)
    args = parser.parse_args()
    config, _ = open_final(args.run)
    policy = open_policy(config.model, "cpu")
    for task in build_plan(config).methods[0].rounds[0].tasks:
        deltas = load_delta([args.run / task.folder])
        validation = validation_of(config, args.prompts)[task.reward]
        half = len(validation.prompts) // 2
        sets = [inputs_of(policy, config, list(deltas), part, validation.seed)
                for part in (validation.prompts[:half], validation.prompts[half:])]  # fmt: skip
        rules: dict[str, dict[str, float]] = {"dare": {}, "least squares": {}}
        rules |= {f"analytic, eta {eta:g}": {} for eta in ETAS}
        kept: dict[str, Tensor] = {}
        for name in sets[0]:
            seed = zlib.crc32(name.encode())
            masked = [dare_q([deltas[name]], [1.0], density=args.density, seed=seed, q=q).dense()
                      for q in (1.0, None)]  # fmt: skip
            kept[name] = masked[0]
            rules["dare"][name] = args.density
            plain, scaled = (float(one.norm()) for one in masked)  # both 0 where no kept entry has a change
            rules["least squares"][name] = plain / scaled if scaled else 1.0
            c = deltas[name].dense() * sets[0][name].mean(0)
            for eta in ETAS:
                rules[f"analytic, eta {eta:g}"][name] = analytic_q(c, 1 - args.density, eta)

        def loss(rule: dict[str, float], inputs: dict[str, Tensor], deltas: Any = deltas,
                 kept: Any = kept) -> float:  # fmt: skip
            parts = [lost(deltas[n], kept[n], rule[n], inputs[n]) for n in inputs]
            return (sum(a for a, _ in parts) / sum(b for _, b in parts)) ** 0.5

        best = min((f"analytic, eta {eta:g}" for eta in ETAS), key=lambda r: loss(rules[r], sets[0]))
        for rule in ("dare", "least squares", best):
            mean = sum(rules[rule].values()) / len(rules[rule])
            print(f"{task.reward:>12} {rule:<24} mean q {mean:.3f}  lost {loss(rules[rule], sets[1]):.3f}")


if __name__ == "__main__":
    main()
