"""Which preference objective raises each reward most for the same number of passes through the model?

    python benchmarks/preferences.py --passes 10000 --seeds 0 1 2 --out runs/bench-preferences.jsonl

A pass is one sample through the transformer; a backward pass counts as two more, and drawing samples
counts. Every (objective, reward, seed) trains from the same base until its passes are spent, then base and
result are measured on held-out prompts with the same noise.

Every objective has the settings of SETS, which were chosen with `--choose`: that measures on training
prompts with seed 10. Each row is written when it is measured; rows that the file has are not measured
again, so the command may be stopped, started again, and run by several processes with other objectives
each.

Of each objective the mean gain over seeds is printed, with its standard error over seeds and prompts, and
the difference to diffusion_dpo on the same seeds and prompts.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from paretune.config import RunConfig
from paretune.data.prompts import load_prompts
from paretune.models.flow import FlowPolicy, Sampling, sample
from paretune.models.loading import open_policy
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.rewards.base import load_reward, oriented, score_samples
from paretune.training.expert import ExpertTrainer
from paretune.training.mixture import Mixture, PromptSet
from paretune.training.preferences.presets import PRESETS

AGAINST = "diffusion_dpo"
CHOOSING_SEED = 10
# NFT's rate is the recipe's, 4e-3. There one pair a group breaks the model; two good and two bad samples of a
# group, each with each, are steadier and bear half of it.
PAIRS, LISTS = ["train.learning_rate=1e-3"], ["train.learning_rate=2e-3", "train.keep=4"]
OF_PAIRS = ("diffusion_dpo", "smpo", "madpo", "linear_dpo")  # pnapo and mapo did better with one pair
OF_LISTS = ("rank_dpo", "adpo", "dgpo", "lpo_list", "diffusion_kto")
BETAS = {
    "diffusion_dpo": 20, "rank_dpo": 50, "smpo": 20, "inversion_dpo": 20, "dcpo": 20, "tpo": 20, "tkto": 100,
    "ppd": 20, "madpo": 20, "adpo": 50, "pnapo": 200, "dgpo": 10, "lpo_list": 20, "linear_dpo": 50,
    "diffusion_kto": 100, "spo": 100,
}  # fmt: skip
SETS: dict[str, list[str]] = {
    "nft": [], "tree_grpo": [*PAIRS, "train.group_size=9", "objective.options.branches=3"],
    # Left out: frames need clips, and captions a side need a file.
    **{n: list(PAIRS) for n in PRESETS if n not in ("dense_dpo", "sem_dpo")},
    **{n: list(LISTS) for n in OF_LISTS},
    **{n: [*LISTS, "objective.options.pairs=all"] for n in OF_PAIRS},
}  # fmt: skip
for name, beta in BETAS.items():
    SETS[name].append(f"objective.options.beta={beta}")
Row = dict[str, Any]


def count_passes(policy: Any) -> Counter[str]:
    """Count the passes of a policy from now on, under "passes"."""
    count, plain = Counter[str](), policy.velocity

    def velocity(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        count["passes"] += len(x) * (3 if torch.is_grad_enabled() else 1)
        return plain(x, *rest)

    policy.velocity = velocity
    return count


class Exam:
    """The prompts on which one reward is measured, encoded once, and what the base scores there by the seed.

    Scores: the reward's under "gains", its judge's under "judge_gains"; greater is better.
    """

    def __init__(self, config: RunConfig, name: str, options: argparse.Namespace) -> None:
        own = config.rewards[name]
        self.config = config
        self.tests = load_prompts(own.prompts if options.choose else own.eval_prompts)[: options.prompts]
        self.scorers = {"gains": load_reward(own.reward, name=name, **own.options)}
        if options.judges and own.judge:
            self.scorers["judge_gains"] = load_reward(own.judge, name=f"{name}.judge")
        reader: Any = open_policy(config.model, "cpu")
        self.conditions = reader.encode([p.text for p in self.tests], config.model.guidance_scale > 1)
        self.of_base: dict[int, dict[str, torch.Tensor]] = {}

    @torch.no_grad()
    def scores(self, policy: FlowPolicy, seed: int) -> dict[str, torch.Tensor]:
        """The scores of a policy's samples, which are drawn from the seed's noise."""
        noise = policy.initial_noise(len(self.tests), torch.Generator().manual_seed(seed))
        sampling = Sampling(self.config.evaluate.steps, self.config.model.guidance_scale)
        pictures = policy.decode(sample(policy, self.conditions, noise, sampling).clean)
        return {k: oriented(one, score_samples(one, pictures, self.tests)) for k, one in self.scorers.items()}

    def before(self, policy: FlowPolicy, seed: int) -> dict[str, torch.Tensor]:
        """The scores of the base, which a policy is before it is trained."""
        if seed not in self.of_base:
            self.of_base[seed] = self.scores(policy, seed)
        return self.of_base[seed]


def measure(objective: str, name: str, seed: int, options: argparse.Namespace, exams: dict[str, Exam]) -> Row:
    """Train one expert and measure it. `gains`: of each prompt that is measured. exams: those at hand."""
    changes = changes_of(objective, seed, options)
    config = load_config(find_recipe(options.recipe), changes)
    task = next(t for t in build_plan(config).methods[0].rounds[0].tasks if t.reward == name)
    if name not in exams:
        exams[name] = Exam(config, name, options)
    exam = exams[name]
    mixture = Mixture([PromptSet(exam.scorers["gains"], load_prompts(config.rewards[name].prompts))])
    trainer = ExpertTrainer(config, task, Path("unused"), mixture, None, "cpu")
    before, count, epochs = exam.before(trainer.policy, seed), count_passes(trainer.policy), 0
    while count["passes"] < options.passes:
        trainer.epoch()
        epochs += 1
    spent = count["passes"]
    gains = {key: after - before[key] for key, after in exam.scores(trainer.policy, seed).items()}
    return {
        "objective": objective, "reward": name, "seed": seed, "sets": changes, "epochs": epochs,
        "budget": options.passes, "passes": spent, "base": round(float(before["gains"].mean()), 4),
        "gain": round(float(gains["gains"].mean()), 4),
        **{key: [round(g, 6) for g in found.tolist()] for key, found in gains.items()},
    }  # fmt: skip


def changes_of(objective: str, seed: int, options: argparse.Namespace) -> list[str]:
    """What a run changes of the recipe."""
    return [f"objective.name={objective}", *SETS[objective], f"seed={seed}", *options.sets]


def summary(rows: list[Row]) -> list[str]:
    """A line for each objective and reward: its gain, and its difference to AGAINST."""
    lines = []
    for objective, name in dict.fromkeys((row["objective"], row["reward"]) for row in rows):
        own = _gains(rows, objective, name)
        line = f"{objective:>14} {name:>12} {_mean(list(own.values()))}"
        other = _gains(rows, AGAINST, name)
        if judged := _gains(rows, objective, name, "judge_gains"):
            line += f"   judge {_mean(list(judged.values()))}"
        if objective != AGAINST and own.keys() == other.keys():
            line += f"   to {AGAINST} {_mean([own[key] - other[key] for key in own])}"
        lines.append(line)
    return lines


def table(rows: list[Row]) -> list[str]:
    """The same figures as a table in Markdown: a line for each objective, the greatest first gain on top."""
    names = list(dict.fromkeys(row["reward"] for row in rows))
    head = ["objective", *(f"{name} | less {AGAINST}'s | judge" for name in names)]
    lines = {}
    for objective in dict.fromkeys(row["objective"] for row in rows):
        cells, first = [f"`{objective}`"], 0.0
        for name in names:
            own, other = _gains(rows, objective, name), _gains(rows, AGAINST, name)
            judged = _gains(rows, objective, name, "judge_gains")
            apart = [own[key] - other[key] for key in own if key in other] if objective != AGAINST else []
            cells += [_cell(list(own.values())), _cell(apart), _cell(list(judged.values()))]
            first = first or statistics.fmean(own.values())
        lines[objective] = (first, f"| {' | '.join(cells)} |")
    ordered = sorted(lines.values(), reverse=True)
    return [f"| {' | '.join(head)} |", "|---" * (1 + 3 * len(names)) + "|", *(line for _, line in ordered)]


def _cell(values: list[float]) -> str:
    """A mean and its error as the page of results writes them."""
    if not values:
        return "–"
    mean, error = statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:+.3f} ± {error:.3f}".replace("0.", ".").replace("-", "−")


def _gains(rows: list[Row], objective: str, name: str, key: str = "gains") -> dict[tuple[int, int], float]:
    """The gains by seed and prompt, of the reward or (`judge_gains`) of its judge where it was asked."""
    own = [row for row in rows if (row["objective"], row["reward"]) == (objective, name)]
    return {(row["seed"], i): gain for row in own for i, gain in enumerate(row.get(key, ()))}


def _mean(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{statistics.fmean(values):+.4f} ± {error:.4f}"


def read_rows(path: Path | None) -> list[Row]:
    """The rows that were measured before."""
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    return [json.loads(line) for line in lines]


def is_same(row: Row, objective: str, name: str, seed: int, options: argparse.Namespace) -> bool:
    """Whether a row was measured with these settings."""
    changes = changes_of(objective, seed, options)
    wanted = (name, changes, options.prompts, options.passes)
    same = (row["reward"], row["sets"], len(row["gains"]), row["budget"]) == wanted
    return same and (not options.judges or "judge_gains" in row)


def main() -> None:
    """Parse, measure what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--passes", type=int, default=10_000)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--objective", action="append", choices=list(SETS))
    parser.add_argument("--reward", action="append")
    parser.add_argument("--choose", action="store_true", help="measure on training prompts, with seed 10")
    parser.add_argument("--judges", action="store_true", help="measure the rewards' judges, too")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--markdown", action="store_true", help="print the figures as a table of a page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = options.seeds or ([CHOOSING_SEED] if options.choose else [0, 1, 2])
    rows, exams = list[Row](), dict[str, Exam]()
    for name in options.reward or ("ocr", "preference", "geneval"):
        for seed in seeds:
            for objective in options.objective or SETS:
                before = read_rows(options.out)
                known = (row for row in before if is_same(row, objective, name, seed, options))
                row = next(known, None) or measure(objective, name, seed, options, exams)
                rows.append(row)
                print(json.dumps({k: v for k, v in row.items() if not isinstance(v, list)}), flush=True)
                if options.out and row not in before:
                    options.out.parent.mkdir(parents=True, exist_ok=True)
                    with options.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
    print("\n".join(table(rows) if options.markdown else summary(rows)))


if __name__ == "__main__":
    main()
