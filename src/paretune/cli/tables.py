"""Results as tables for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ..config import RunConfig
from ..planning.devices import PlannedDevice, spoken
from ..planning.estimate import SUSTAINED_TFLOPS, Estimate
from ..planning.plan import MethodPlan, Plan
from ..planning.scale import Scale
from ..training.objectives.settings import read_options
from ..training.objectives.table import find_objective
from .printing import shown


def summary_table(summary: dict[str, Any], judges: bool) -> Table:
    """Methods by rewards (and their judges): mean and standard error; hypervolume; samples."""
    judge = summary["judges"] if judges else {}
    columns = [c for r in summary["rewards"] for c in (r, judge.get(r)) if c]
    table = Table(title="held-out prompts, mean ± standard error", title_justify="left")
    table.add_column("method", no_wrap=True)
    for column in columns:
        table.add_column(escape(column), justify="right")
    table.add_column("hypervolume", justify="right")
    table.add_column("samples", justify="right")
    for method, means in summary["methods"].items():
        errors = summary["stderr"][method]
        cells = [f"{means[c]:.3f} ± {errors[c]:.3f}" if c in means else "" for c in columns]
        samples = summary["budget"].get(method)
        table.add_row(
            method, *cells, f"{summary['hypervolume'][method]:.4f}",
            "" if samples is None else f"{samples:,}",
        )  # fmt: skip
    return table


def _shown(value: object) -> str:
    """An option's value; a text without letters in quotes, such as a negative prompt of one space."""
    return repr(value) if isinstance(value, str) and not value.strip() else str(value)


def plan_tables(config: RunConfig, plan: Plan, costs: Estimate, device: PlannedDevice) -> list[Table]:
    """The settings, and the methods side by side."""
    settings = Table(title=f"recipe {config.name}", show_header=False, title_justify="left")
    model, train, objective, lora = config.model, config.train, config.objective, config.lora
    guidance = model.guidance_scale
    size = "" if model.height is None else f"{model.width}x{model.height} pixels, "
    kls = {name: objective.kl if r.kl is None else r.kl for name, r in config.rewards.items()}
    facts = [model.dtype, *(f"{key} {_shown(value)}" for key, value in model.options.items())]
    autocast = f", {'fp16' if model.dtype == 'float16' else 'bf16'} autocast" if train.autocast else ""
    rows = {
        "model": f"{model.path} ({', '.join(facts)})",
        "sampling": costs.sampling
        or f"{size}{model.steps} steps, guidance {guidance:g}; evaluation {config.evaluate.steps} steps",
        "objective": f"{objective.name}{_described(config)}{_own_objectives(config)}, "
        f"KL to the {objective.anchor}: "
        + ", ".join(f"{n} {k:g}" for n, k in kls.items()),
        "advantages": f"over the {objective.advantage_std} standard deviation, clipped at "
        f"{objective.advantage_clip:g}{_leaning(config)}",
        "adapter": "none: all weights are trained" if lora is None
        else f"LoRA rank {lora.rank}, alpha {lora.alpha:g}",
        "optimiser": f"AdamW, {train.lr_scheduler} learning rate {train.learning_rate:g}"
        f"{_own_rates(config)}, "
        f"weight decay {train.weight_decay:g}{' to the start' if train.decay == 'start' else ''}, "
        f"average {train.ema_decay:g} every {train.ema_every}"
        f"{autocast}",
        "an epoch": f"{train.prompts_per_epoch} prompts x {train.group_size} samples, "
        f"{train.updates_per_epoch} updates, micro-batches of {train.micro_batch}",
        "rounds": f"{config.rounds} of {train.epochs} epochs, reduce: {_reduce(config)}",
        "memory": "unknown model" if costs.memory_gb is None
        else f"about {costs.memory_gb:.1f} GB {_on(config)}",
    }
    for key, value in rows.items():
        settings.add_row(key, value)
    core = "one core of " if device.kind == "cpu" else ""
    rate = SUSTAINED_TFLOPS[device.kind]
    budget = Table(
        title=f"methods (time on {core}{device.name}, estimated at {rate:g} TFLOP/s sustained)",
        title_justify="left",
    )
    for name in ("method", "rounds", "experts", "samples", "scores", "updates", "time"):
        budget.add_column(name, justify="left" if name == "method" else "right")
    for method in plan.methods:
        experts = sum(len(r.tasks) for r in method.rounds)
        hours = costs.hours.get(method.name)
        budget.add_row(
            method.name, str(len(method.rounds)), str(experts), _samples(method),
            f"{method.scores:,}", f"{method.updates:,}", "" if hours is None else spoken(3600 * hours),
        )  # fmt: skip
    if config.tokens is not None:
        own, hours = config.tokens.options, costs.hours.get("tokens")
        drawn = own.drawn(config.train.group_size) * len(config.rewards)
        budget.add_row(
            "tokens", "", "", f"{drawn:,}", "",
            f"{(config.tokens.steps + own.reinforce) * len(config.rewards):,}",
            "" if hours is None else spoken(3600 * hours),
        )  # fmt: skip
    return [settings, budget]


def scale_table(scale: Scale) -> Table:
    """How the run would use some GPUs."""
    table = Table(title=f"on {scale.gpus} GPUs", show_header=False, title_justify="left")
    for key, value in scale.rows().items():
        table.add_row(key, value)
    return table


def _on(config: RunConfig) -> str:
    """What the memory is of."""
    count, divided = config.executor.devices_per_expert, config.executor.shard == "full"
    if count == 1:
        return "an expert"
    return f"on each of an expert's {count} devices{', of which each holds a part of the base' * divided}"


def _samples(method: MethodPlan) -> str:
    """The samples of training, and those that choosing an average draws."""
    beside = f" + {method.reduce_samples:,} to reduce" if method.reduce_samples else ""
    return f"{method.samples:,}{beside}"


def _reduce(config: RunConfig) -> str:
    """The reducer with its step, where that is not 1."""
    rule = config.reduce
    chosen = isinstance(rule.step, tuple)
    steps = ", ".join(f"{s:g}" for s in rule.step) if isinstance(rule.step, tuple) else f"{rule.step:g}"
    step = "" if rule.step == 1 else f", the best step of {steps}" if chosen else f", step {steps}"
    return f"{rule.method}{step}{f', momentum {rule.momentum:g}' if rule.momentum else ''}"


def _leaning(config: RunConfig) -> str:
    """How far the experts lean on the other rewards, "" if none does."""
    leans = {name: config.lean(name) for name in config.rewards}
    told = ", ".join(f"{name} {share:g}" for name, share in leans.items())
    return f"; experts lean on the others' rewards: {told}" if any(leans.values()) else ""


def _described(config: RunConfig) -> str:
    """What the objective shows of its options, in brackets."""
    own = config.objective
    told = find_objective(own.name).describe(read_options(own))
    return f" ({told})" if told else ""


def _own_objectives(config: RunConfig) -> str:
    """The rewards whose experts have an objective or a file of preferences of their own."""
    lines = [
        f"; {name} by {own.objective or config.objective.name}{f' on {own.pairs}' if own.pairs else ''}"
        for name, own in config.rewards.items()
        if own.objective or own.pairs
    ]
    return "".join(lines)


def _own_rates(config: RunConfig) -> str:
    """The learning rates of the experts that have their own."""
    rates = {name: own.learning_rate for name, own in config.rewards.items() if own.learning_rate is not None}
    return f" ({', '.join(f'{name} {rate:g}' for name, rate in rates.items())})" if rates else ""


def measure_table(table: dict[str, Any]) -> Table:
    """`paretune eval`: adapters by rewards."""
    rendered = Table(title="held-out prompts, mean ± standard error", title_justify="left")
    rendered.add_column("model")
    columns = list(next(iter(table["methods"].values())))
    for column in columns:
        rendered.add_column(escape(column), justify="right")
    for name, means in table["methods"].items():
        errors = table["stderr"][name]
        rendered.add_row(escape(name), *(f"{means[c]:.3f} ± {errors[c]:.3f}" for c in columns))
    return rendered


def sample_table(table: dict[str, Any]) -> Table:
    """`paretune sample`: the mean score of each prompt's samples, and of texts the first."""
    made = table["made"]
    rendered = Table(title=f"mean score of each prompt's {made}", title_justify="left")
    rendered.add_column("prompt")
    rendered.add_column(made, justify="right")
    for reward in table["rewards"]:
        rendered.add_column(reward, justify="right")
    if made == "texts":
        rendered.add_column("the first")
    for number, request in enumerate(table["requests"]):
        rows = [row for row in table[made] if row["request"] == number]
        scores = {r: [row["scores"][r] for row in rows if r in row["scores"]] for r in table["rewards"]}
        means = [f"{sum(values) / len(values):.3f}" if values else "–" for values in scores.values()]
        first = [escape(shown(row["text"].strip())) for row in rows[:1] if "text" in row]
        rendered.add_row(escape(shown(request["prompt"])), str(len(rows)), *means, *first)
    return rendered


def sample_places(table: dict[str, Any], out: Path) -> str:
    """Where `paretune sample` wrote what."""
    made, grid = table["made"], table["grid"]
    places = {made: out / made, **({"grid": out / grid} if grid else {}), "scores": out / "sample.json"}
    return "   ".join(f"{name}: {place}" for name, place in places.items())


def comparison_table(comparison: dict[str, Any]) -> Table:
    """`paretune compare`: the rewards and the margin; judges and the rest are on the page."""
    rewards, against = comparison["rewards"], comparison["against"]
    reference = ", ".join(f"{r} {value:g}" for r, value in comparison["reference_point"].items())
    rendered = Table(
        title="held-out prompts, mean ± standard error", title_justify="left",
        caption=f"hypervolume from the point {reference}", caption_justify="left",
    )  # fmt: skip
    rendered.add_column("method", no_wrap=True)
    for column in ("runs", *rewards, "hypervolume", *([f"over {against}"] if against else [])):
        rendered.add_column(column, justify="right")
    for name, method in comparison["methods"].items():
        cells = [f"{method['means'][r]:.3f} ± {method['stderr'][r]:.3f}" for r in rewards]
        cells.append(f"{method['hypervolume']:.4f}")
        if against:
            margin, error = method["margin"], method["margin_stderr"]
            cells.append("" if margin is None else f"{margin:+.4f} ± {error:.4f}")
        rendered.add_row(escape(name), str(method["runs"]), *cells)
    return rendered
