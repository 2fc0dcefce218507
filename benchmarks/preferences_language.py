"""Losses on preferences of language models under one budget: three protocols of the literature.

    python benchmarks/preferences_language.py table --out runs/bench-losses.json
    python benchmarks/preferences_language.py grid --loss list_dpo --loss ln_dpo --betas 0.5,2 --rates 0.5,1,2
    python benchmarks/preferences_language.py grid --start sft --loss list_dpo --loss asft --loss orpo
    python benchmarks/preferences_language.py sizes --shares 0.0625,0.25,1 --start base --start sft

The recipe's model first answers a reward's prompts; its scored answers are the one data set of all losses
(`paretune pairs --form list`, with the best and the worst as the pair of TRL's own losses). Every loss trains
from the same start by the recipe's epochs. Start and result then answer held-out prompts with the same seed.

table   every loss once, with its place in the survey of 2503.11701: data (feedback, level), framework,
        constraint, and the model's properties, which are measured
grid    the same grid of beta and rate for each loss; best, median, worst, and the share above the start, not
        the best alone; measured on the reward's prompts and on another's (2407.15229). From `--start sft` it
        is the unified comparison (2502.01237), whose null hypothesis the medians by feedback and by
        constraint test: pairs or points matter more than the rest
sizes   starts x shares of the pairs x losses (2404.14723). `sft` is made from the better answers

A row holds the gain of the reward on its held-out prompts (in) and on those of another reward (out), the KL
to the start on own answers, and their length in tokens; and how far a token of the better and of the worse
answers of the data moved (likelihood collapse). Each has its count and a 95 % interval over prompts. cdpo,
tgdpo and sem_dpo_text read numbers of tokens or records, made here from the same data: contrasts of adapters
that learned the better and the worse answers, a guide that list_dpo trained, drift by the model's own states.
--short tries a protocol in about a minute on a CPU; its figures say nothing of the losses.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from paretune.adapters.store import load_delta
from paretune.commands.analyse.measured import measure, read_lists
from paretune.commands.analyse.reports import three_d
from paretune.commands.analyse.sides import Side, divergences
from paretune.commands.answer_pairs.make import make_answer_pairs
from paretune.commands.answer_pairs.numbers import add_contrast, add_drift, add_guide
from paretune.commands.answer_pairs.options import AnswerOptions
from paretune.commands.make_pairs import Drawing
from paretune.config import RunConfig
from paretune.data.prompts import load_prompts
from paretune.files import read_rows, write_rows
from paretune.models.causal_lm.given_answers import Given
from paretune.models.causal_lm.policy import CausalLMPolicy
from paretune.models.loading import open_policy
from paretune.models.text_encoder import TextEncoder
from paretune.ops.statistics import mean_figure
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.rewards.base import load_reward, oriented, score_samples
from paretune.stages.map import mixture_of
from paretune.training.language.supervised import supervise
from paretune.training.language.trainer import LanguageTrainer
from paretune.training.objectives.list_table import list_losses
from paretune.training.trainers import check_objective
from paretune.types import ParetuneError, Prompt

OF_TRL = ("dpo", "ipo", "hinge", "robust", "simpo", "cpo", "orpo", "kto")
DIMENSIONS = {  # feedback, level, constraint of TRL's; the others carry their own
    "dpo": ("pair", "sentence", "divergence"), "ipo": ("pair", "sentence", "divergence"),
    "hinge": ("pair", "sentence", "divergence"), "robust": ("pair", "sentence", "divergence"),
    "simpo": ("pair", "sentence", "reference-free"), "cpo": ("pair", "sentence", "reference-free"),
    "orpo": ("pair", "sentence", "reference-free"), "kto": ("point", "sentence", "divergence"),
}  # fmt: skip
LOSSES = (*list_losses(), *OF_TRL)
OWN = ("map.lean=0", "train.lr_scheduler=linear")  # a pair speaks of one reward; the rate of a short training
SHORT: dict[str, Any] = {  # of --short
    "epochs": 1, "prompts": 4, "count": 3, "betas": [0.5, 2.0], "rates": [1.0], "shares": [0.25, 1.0],
    "limit": 24,
}  # fmt: skip
SHORT_LOSSES = {"table": LOSSES, "grid": ("list_dpo", "asft"), "sizes": ("dpo", "kto")}


def make_data(config: RunConfig, reward: str, count: int, limit: int, out: Path) -> Path:
    """The data set: lists of the start's own answers, with `chosen` and `rejected` beside them."""
    make_answer_pairs(config, Drawing(reward, count, "list", limit), AnswerOptions(), out)
    rows = read_rows(out)
    for row in rows:
        row["chosen"], row["rejected"] = (row["answers"][i]["text"] for i in (0, -1))
    write_rows(out, rows)
    return out


class Bench:
    """One recipe, one data set, and the held-out prompts on which everything is measured."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder, self.recipe = args, folder, find_recipe(args.recipe)
        self.own = [*OWN, f"seed={args.seed}", *args.sets]
        self.config = load_config(self.recipe, self.own)
        self.reward = args.reward or next(iter(self.config.rewards))
        others = [name for name in self.config.rewards if name != self.reward]
        self.sets = {"in": self.reward, "out": others[0] if others else self.reward}
        made = folder / "data.jsonl"
        self.data = args.records or make_data(self.config, self.reward, args.count, args.limit, made)
        own = self.config.rewards[self.reward]
        self.judge = load_reward(own.reward, name=self.reward, **own.options)

    def settings(self, loss: str, changes: dict[str, Any]) -> RunConfig:
        """The recipe for one loss on the data set. changes: of keys of the recipe."""
        kind = list_losses().get(loss)
        scored = {"score": self.reward} if kind and "score" in kind.options_kind.model_fields else {}
        objective = {"name": loss, "options": scored}
        plain = [  # some losses look at the records of every reward
            f"objective={json.dumps(objective)}",
            *(f"rewards.{name}.prompts={self.records_of(loss)}" for name in self.config.rewards),
            "methods=[mapreduce]", f"train.prompts_per_epoch={self.args.prompts_per_epoch}",
            f"train.updates_per_epoch={self.args.updates}", f"train.epochs={self.args.epochs}",
        ]  # fmt: skip
        told = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
        return load_config(self.recipe, [*self.own, *plain, *told])

    def records_of(self, loss: str) -> Path:
        """The data set with what a loss reads besides, which is made once."""
        add = {"cdpo": self._contrast, "tgdpo": self._guide, "sem_dpo_text": self._drift}.get(loss)
        file = self.folder / f"data-{loss}.jsonl"
        if add is None or self.args.records is not None:
            return self.data
        if not file.exists():
            rows = read_rows(self.data)
            policy = cast(CausalLMPolicy, open_policy(self.config.model, "cpu"))
            add(policy, [row["prompt"] for row in rows], rows)
            write_rows(file, rows)
        return file

    def _contrast(self, policy: CausalLMPolicy, texts: list[Any], rows: list[dict[str, Any]]) -> None:
        learned: list[dict[str, Any]] = []
        for side in ("chosen", "rejected"):
            place = self.folder / side
            config = self.settings("list_dpo", {})
            supervise(config, place, self.args.epochs / 4, side=side, adapter_alone=True)
            learned.append(load_delta([place]))
        add_contrast(policy, texts, rows, *learned)

    def _guide(self, policy: CausalLMPolicy, texts: list[Any], rows: list[dict[str, Any]]) -> None:
        add_guide(policy, texts, rows, self.expert("list_dpo", {}, "guide")[1], {}, 0.1)

    def _drift(self, policy: CausalLMPolicy, texts: list[Any], rows: list[dict[str, Any]]) -> None:
        add_drift(TextEncoder(self.config.model.path), texts, rows)

    def expert(self, loss: str, changes: dict[str, Any], label: str) -> tuple[RunConfig, dict[str, Any]]:
        """Train one expert. Returns its recipe and its changes of the start."""
        config = self.settings(loss, changes)
        check_objective(config)
        task = next(t for t in build_plan(config).methods[0].rounds[0].tasks if t.reward == self.reward)
        place = self.folder / "experts" / f"{loss}-{label}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        trainer = LanguageTrainer(config, replace(task, continues=None), place, mixture_of(config, task),
                                  None, "cpu")  # fmt: skip
        return config, trainer.run(lambda event: None, lambda: False)

    def train(self, loss: str, changes: dict[str, Any], label: str) -> dict[str, Any]:
        """Train one expert, and measure it against its start. `skipped` says why where a loss cannot be."""
        row: dict[str, Any] = {"loss": loss, "label": label, "changes": changes}
        try:
            config, deltas = self.expert(loss, changes, label)
        except ParetuneError as error:
            return {**row, "skipped": str(error)}
        policy = cast(CausalLMPolicy, open_policy(config.model, "cpu"))
        return {**row, **self.measure(policy, deltas)}

    def measure(self, policy: CausalLMPolicy, deltas: dict[str, Any]) -> dict[str, Any]:
        """Gains, KL, length, and how the likelihood of the data moved."""
        trained, start = Side("trained", policy, deltas), Side("start", policy)
        lists = read_lists(load_prompts(self.data), self.args.prompts)
        moved = three_d(measure(lists, trained, start))
        found: dict[str, Any] = {"data": {name: one.to_json() for name, one in moved.items()}}
        for where, name in self.sets.items():
            prompts = load_prompts(self.config.rewards[name].eval_prompts)[: self.args.prompts]
            before, _, start_length = self._answers(policy, prompts)
            with trained.at_work():
                after, given, length = self._answers(policy, prompts)
            kl = divergences(trained, start, given)
            values = {"gain": after - before, "kl": kl, "tokens": length, "start tokens": start_length}
            found[where] = {
                key: mean_figure(value, torch.arange(len(value))).to_json() for key, value in values.items()
            }
        return found

    def _answers(
        self, policy: CausalLMPolicy, prompts: tuple[Prompt, ...]
    ) -> tuple[torch.Tensor, list[Given], torch.Tensor]:
        """Scores, answers as tokens, and their lengths."""
        texts = [p.text for p in prompts]
        rows = policy.answer_ids(texts, self.args.seed, 16)
        asked = policy.text_ids(policy.render(texts))
        answers = [policy.tokenizer.decode(row, skip_special_tokens=True) for row in rows]
        scores = oriented(self.judge, score_samples(self.judge, answers, list(prompts)))
        given = [Given(tuple(a), tuple(row)) for a, row in zip(asked, rows, strict=True)]
        return scores, given, torch.tensor([float(len(row)) for row in rows])

    def part(self, share: float) -> Path:
        """The first share of the records."""
        rows = read_rows(self.data)
        file = self.folder / f"data-{share:g}.jsonl"
        write_rows(file, rows[: max(1, round(share * len(rows)))])
        return file


def table(bench: Bench) -> list[dict[str, Any]]:
    """Every loss once."""
    own = list_losses()
    rows: list[dict[str, Any]] = []
    for loss in bench.args.loss or LOSSES:
        framework = own[loss].framework if loss in own else "offline"
        rows.append({**bench.train(loss, {}, "table"), **place_of(loss), "framework": framework})
        print(row_line(rows[-1]), flush=True)
    return rows


def place_of(loss: str) -> dict[str, str]:
    """A loss's place in the survey."""
    own = list_losses()
    labels = own[loss].dimensions if loss in own else DIMENSIONS[loss]
    return dict(zip(("feedback", "level", "constraint"), labels, strict=True))


def grid(bench: Bench) -> list[dict[str, Any]]:
    """Every loss at every beta (a factor of its default) and rate (a factor of the recipe's)."""
    rows: list[dict[str, Any]] = []
    own, rate = list_losses(), bench.config.train.learning_rate
    start = (bench.args.start or ["base"])[0]
    model = {} if start == "base" else {"model.path": start_model(bench, start)}
    for loss in bench.args.loss or LOSSES:
        default = own[loss].beta if loss in own else 0.1
        for b in bench.args.betas:
            for r in bench.args.rates:
                changes = {"objective.options.beta": default * b, "train.learning_rate": rate * r}
                row = bench.train(loss, {**model, **changes}, f"beta-{b:g}-rate-{r:g}")
                rows.append({**row, **place_of(loss), "start": start})
                print(row_line(rows[-1]), flush=True)
        done = [row for row in rows if row["loss"] == loss and "skipped" not in row]
        for where in bench.sets if done else ():
            gains = sorted(row[where]["gain"]["value"] for row in done)
            print(f"{loss} ({where}): best {gains[-1]:+.4f} median {statistics.median(gains):+.4f} "
                  f"worst {gains[0]:+.4f}; above the start in {sum(g > 0 for g in gains)} of {len(gains)}")
    for key in ("feedback", "constraint"):
        for label in dict.fromkeys(row[key] for row in rows if "in" in row):
            gains = [row["in"]["gain"]["value"] for row in rows if "in" in row and row[key] == label]
            print(f"{key} {label}: median gain {statistics.median(gains):+.4f} of {len(gains)}")
    return rows


def sizes(bench: Bench) -> list[dict[str, Any]]:
    """Every loss from every start on every share of the records."""
    rows: list[dict[str, Any]] = []
    for start in bench.args.start or ["base"]:
        model = {} if start == "base" else {"model.path": start_model(bench, start)}
        for share in bench.args.shares:
            file = bench.part(share)
            for loss in bench.args.loss or LOSSES:
                part = {f"rewards.{name}.prompts": str(file) for name in bench.config.rewards}
                changes = {**model, **part}
                row = bench.train(loss, changes, f"{Path(start).name}-{share:g}")
                rows.append({**row, "start": start, "share": share})
                print(row_line(rows[-1]), flush=True)
    return rows


def start_model(bench: Bench, start: str) -> str:
    """The folder of a start: `sft` is made once; any other is a model."""
    if start != "sft":
        return start
    out = bench.folder / "sft"
    if not out.exists():
        supervise(bench.settings("list_dpo", {}), out, epochs=2.0)
    return str(out)


def row_line(row: dict[str, Any]) -> str:
    """A row in words."""
    head = f"{row['loss']:>13} {row['label']:<22}"
    if "skipped" in row:
        return f"{head} left out: {row['skipped']}"
    gains = [f"{where} {g['value']:+.4f} ({g['low']:+.4f} .. {g['high']:+.4f}, n {g['count']})"
             for where, g in ((where, row[where]["gain"]) for where in ("in", "out"))]  # fmt: skip
    inside = row["in"]
    kl, tokens = inside["kl"]["value"], inside["tokens"]["value"]
    moved = [row["data"][f"change of a token's log-probability, {side}"]["value"]
             for side in ("chosen", "rejected")]  # fmt: skip
    data = f"data {moved[0]:+.3f} {moved[1]:+.3f}"
    return f"{head} {'  '.join(gains)}  KL {kl:.3f}  tokens {tokens:.1f}  {data}"


def numbers(text: str) -> list[float]:
    """Numbers apart by commas."""
    return [float(part) for part in text.split(",")]


def main() -> None:
    """Parse, measure, print and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("protocol", choices=["table", "grid", "sizes"])
    parser.add_argument("--recipe", default="assistant")
    parser.add_argument("--reward")
    parser.add_argument("--records", type=Path, help="the data set; by default made by the start's answers")
    parser.add_argument("--loss", action="append", choices=LOSSES)
    parser.add_argument("--count", type=int, default=4, help="answers a prompt of the data set")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--prompts-per-epoch", type=int, default=8)
    parser.add_argument("--updates", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=64, help="held-out prompts")
    parser.add_argument("--betas", type=numbers, default=[0.5, 1.0, 2.0])
    parser.add_argument("--rates", type=numbers, default=[0.5, 1.0, 2.0])
    parser.add_argument("--shares", type=numbers, default=[1 / 16, 1 / 4, 1.0])
    parser.add_argument("--start", action="append", help="base, sft, or a model's folder")
    parser.add_argument("--limit", type=int, default=0, help="prompts of the data set; 0: all")
    parser.add_argument("--short", action="store_true", help="the least of everything, to try a protocol")
    parser.add_argument("--seed", type=int, default=0, help="of training and of the held-out answers")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.short:
        vars(args).update(SHORT)
        args.loss = args.loss or SHORT_LOSSES[args.protocol]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = {"table": table, "grid": grid, "sizes": sizes}[args.protocol](Bench(args, Path(folder)))
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"protocol": args.protocol, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
