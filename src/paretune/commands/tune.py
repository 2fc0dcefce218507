"""`paretune tune`: the learning rate and the batch at which each method does best, by the same small grid.

A comparison is fair only where every method stands at its own best. Each setting is trained with seeds that
no table reports, and measured on prompts that are put aside of the training sets; the held-out prompts stay
unseen. The value of a setting is the hypervolume of its means, a mean over the seeds, from one reference
point for all. Every setting of a method draws as many samples as the recipe asks for: with a batch b times as
large there are 1/b as many epochs, so a batch by which the epochs cannot be divided is refused.
A setting at which numbers overflow or memory is too small is told and left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from typing import Any

from ..config import RunConfig
from ..executors.base import Report
from ..files import write_text
from ..planning.budget import check_even, counted, set_sizes
from ..planning.methods import build_plan
from ..recipes import parse_config
from ..rewards.process import reward_process
from ..samples.media import medium_of
from ..stages.claim import check
from ..stages.summarise import tables
from ..stages.volumes import space_of
from ..training.checks import check_training
from ..types import ParetuneError, Unfit
from ..yaml_text import dump_yaml
from .held_out import hold_out
from .trials import begin, only, train_and_measure

RATES, BATCHES, SEEDS, PROMPTS = (0.5, 1.0, 2.0), (1.0, 2.0), (1000,), 32
CHOSEN = "tuned.yaml"


@dataclass(frozen=True)
class Setting:
    """A point of the grid: factors of the recipe's learning rate and of its prompts an epoch."""

    rate: float
    batch: float

    @property
    def name(self) -> str:
        """For folders."""
        return f"rate-{self.rate:g}-batch-{self.batch:g}"

    def of(self, config: RunConfig) -> RunConfig:
        """The recipe with this setting. Raises ParetuneError where prompts or epochs are no whole number."""
        train, raw = config.train, config.model_dump(mode="json")
        batch = Fraction(str(self.batch))  # 90 times the float .7 is no whole number
        prompts = train.prompts_per_epoch * batch
        if prompts.denominator > 1:
            raise ParetuneError(
                f"--batches {self.batch:g}: {train.prompts_per_epoch} prompts an epoch times {self.batch:g} "
                "are no whole number"
            )
        raw["train"]["learning_rate"] = train.learning_rate * self.rate
        raw["train"]["prompts_per_epoch"] = int(prompts)
        for own in raw["rewards"].values():
            if own["learning_rate"] is not None:
                own["learning_rate"] *= self.rate
        for section in (raw["train"], *raw["rewards"].values()):
            if section["epochs"] is not None:
                epochs = section["epochs"] / batch
                if epochs.denominator > 1:
                    raise ParetuneError(
                        f"--batches {self.batch:g}: {section['epochs']} epochs divided by {self.batch:g} are "
                        "no whole number, so it would draw other samples; set train.epochs to a multiple"
                    )
                section["epochs"] = int(epochs)
        return parse_config(raw, f"--batches {self.batch:g}, --rates {self.rate:g}")

    def keys(self, config: RunConfig) -> dict[str, Any]:
        """The keys that it sets, for --set."""
        made = self.of(config)
        keys = ("learning_rate", "prompts_per_epoch", "epochs")
        own = {
            f"rewards.{name}.{key}": value
            for name, reward in made.rewards.items()
            for key, value in (("epochs", reward.epochs), ("learning_rate", reward.learning_rate))
            if value is not None
        }
        return {f"train.{key}": getattr(made.train, key) for key in keys} | own


Point = tuple[str, Setting, int]  # a trial: its method, setting and seed


def tune(
    config: RunConfig,
    out: Path,
    report: Report,
    methods: Sequence[str] = (),
    rates: Sequence[float] = RATES,
    batches: Sequence[float] = BATCHES,
    seeds: Sequence[int] = SEEDS,
    prompts: int = PROMPTS,
) -> dict[str, Any]:
    """Try every setting of the grid for every method, and write what is best.

    Called again with the same `out` it goes on with what is not finished, bit for bit.

    Args:
        config: the recipe.
        out: the folder of the trials. tuned.yaml there has the choice and all values; METHOD.yaml is the
            recipe with one method's choice.
        report: called with events.
        methods: those of the recipe if empty.
        rates: factors of `train.learning_rate`.
        batches: factors of `train.prompts_per_epoch`.
        seeds: of the trials.
        prompts: validation prompts of each reward.

    Returns:
        What tuned.yaml holds.

    Raises:
        ParetuneError: for a mistake of the user, such as a seed that the recipe itself reports.
    """
    tokens, wanted = config.tokens, {"methods": list(methods or config.methods), "tokens": None}
    config = parse_config(config.model_dump(mode="json") | wanted, "--methods")
    seeds = list(dict.fromkeys(seeds))
    rates, batches = (list(dict.fromkeys(values)) for values in (rates, batches))
    grid = [Setting(rate, batch) for rate in rates for batch in batches]
    _check(config, grid, seeds)
    begin(config, out)
    trial = hold_out(config, prompts, out / "prompts")
    _check_drawn(trial, grid, prompts)
    for method in config.methods:
        check(trial.model_copy(update={"methods": (method,)}))
    reward_process().kill()  # it checked the rewards; each worker starts one for itself
    means, failed = _try_all(trial, grid, seeds, out, report)
    chosen = _choose(config, grid, seeds, means)
    chosen |= {"recipe": config.name, "seeds": list(seeds), "validation_prompts": prompts}
    if failed:
        chosen["failed"] = failed
    for method, best in chosen["methods"].items():
        setting = Setting(best["rate"], best["batch"])
        kept = tokens if method in ("mapreduce", "rewarded_soup") else None  # they are trained from experts
        single = setting.of(config).model_copy(update={"methods": (method,), "tokens": kept})
        write_text(out / f"{method}.yaml", single.to_yaml())
    write_text(out / CHOSEN, dump_yaml(chosen))
    return chosen


def _try_all(
    trial: RunConfig, grid: Sequence[Setting], seeds: Sequence[int], out: Path, report: Report
) -> tuple[dict[Point, dict[str, float]], list[dict[str, Any]]]:
    """The mean rewards of every trial, and the trials that failed.

    A grid tries rates that are too high for a method, and batches for which memory is too small. So a trial
    that fails of that is told and left out, unless all settings of a method do.
    """
    points = [(m, setting, seed) for m in trial.methods for setting in grid for seed in seeds]
    means, failed, broken = dict[Point, dict[str, float]](), list[dict[str, Any]](), set[Any]()
    for number, (method, setting, seed) in enumerate(points, start=1):
        if (method, setting) in broken:
            continue
        report({"notice": f"trial {number} of {len(points)}: {method}, {setting.name}, seed {seed}"})
        made = setting.of(trial).model_copy(update={"methods": (method,), "seed": seed})
        folder = out / method / f"{setting.name}-seed-{seed}"
        try:
            means[method, setting, seed] = only(tables(train_and_measure(made, folder, report))[0])
        except Unfit as error:
            broken.add((method, setting))
            if all((method, other) in broken for other in grid):
                raise ParetuneError(f"no setting of {method} could be trained; the last: {error}") from error
            report({"notice": f"this setting failed and cannot be chosen for {method}: {error}"})
            told = {"method": method, "rate": setting.rate, "batch": setting.batch, "seed": seed}
            failed.append({**told, "error": str(error)})
    return means, failed


def _check(config: RunConfig, grid: Sequence[Setting], seeds: Sequence[int]) -> None:
    """Raise ParetuneError, before anything is trained, for a trial that cannot be."""
    if config.seed in seeds:
        raise ParetuneError(f"--seeds: {config.seed} is the recipe's own seed, which its tables report")
    if not grid or not seeds:
        raise ParetuneError("--rates, --batches and --seeds name one value or more each")
    for setting in grid:
        setting.of(config)
    for method in config.methods:
        check_training(config.model_copy(update={"methods": (method,)}))
    for seed in seeds:
        parse_config(config.model_dump(mode="json") | {"seed": seed}, "--seeds")


def _check_drawn(trial: RunConfig, grid: Sequence[Setting], prompts: int) -> None:
    """Raise ParetuneError if sets, without what is put aside, are too short for some settings alone.

    Or if an epoch of a language model cannot be divided, which its trials would refuse one by one.
    """
    for method in trial.methods:
        shares, planned = dict[Fraction, Setting](), dict[int, Setting]()
        for setting in grid:
            one = setting.of(trial).model_copy(update={"methods": (method,)})
            sizes, plan = set_sizes(one), build_plan(one)
            drawn = counted(one, plan, sizes).methods[0].samples
            shares[Fraction(drawn, plan.methods[0].samples)] = setting
            planned[plan.methods[0].samples] = setting
            if medium_of(one.model).name == "texts":
                check_even(one, sizes)
        if len(planned) > 1:
            least, most = min(planned), max(planned)
            raise ParetuneError(
                f"--batches {planned[least].batch:g} and {planned[most].batch:g}: {method} would draw "
                f"{least:,} and {most:,} samples, as epochs are whole; choose train.epochs or the rewards' "
                "epochs so that all settings draw the same"
            )
        if len(shares) > 1:
            worst = shares[min(shares)]
            raise ParetuneError(
                f"--batches {worst.batch:g}: {method} would draw {float(min(shares)):.0%} of its samples and "
                f"others {float(max(shares)):.0%}, for a training set is shorter than its epochs ask, with "
                f"--prompts {prompts} put aside: lower either"
            )


def _choose(
    config: RunConfig,
    grid: Sequence[Setting],
    seeds: Sequence[int],
    means: dict[Point, dict[str, float]],
) -> dict[str, Any]:
    """The best setting of every method, and all trials. Of equal settings the first of the grid is taken.

    A setting that was not measured with every seed is not chosen.
    """
    space = space_of(config)
    reference = space.reference(means.values())
    values = {key: space.hypervolume(found, reference) for key, found in means.items()}
    best: dict[str, dict[str, Any]] = {}
    for method in config.methods:
        scored = [
            (fmean(values[method, setting, seed] for seed in seeds), setting)
            for setting in grid if all((method, setting, seed) in values for seed in seeds)
        ]  # fmt: skip
        value, setting = max(scored, key=lambda pair: pair[0])
        single = setting.of(config).model_copy(update={"methods": (method,)})
        (plan,) = counted(single, build_plan(single), set_sizes(single)).methods
        best[method] = {
            "rate": setting.rate, "batch": setting.batch, "hypervolume": value,
            "samples": plan.samples + plan.reduce_samples, "updates": plan.updates,
            "set": setting.keys(config),
        }  # fmt: skip
    trials = [
        {"method": method, "rate": setting.rate, "batch": setting.batch, "seed": seed,
         "means": means[method, setting, seed], "hypervolume": value}
        for (method, setting, seed), value in values.items()
    ]  # fmt: skip
    return {"methods": best, "reference_point": reference, "trials": trials}
