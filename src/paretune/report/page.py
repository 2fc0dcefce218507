"""The page: tables and sentences made from the figures of a run, filled into template.html as one file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from paretune.files import write_text
from paretune.records.labels import prompt_key
from paretune.records.seal import check_run

from .analyses import read_analyses, read_credits
from .canvas import save
from .card import reward_card
from .gains import (
    aligned_method,
    changes,
    duration,
    headline,
    higher_is_better,
    number,
    shown_methods,
    signed,
    verbs,
)
from .palette import css_variables, method_look
from .plots import all_plots
from .read import Run, Sample, read_run
from .samples import first_scores, show
from .signs import warnings

SAMPLE_PROMPTS = 48  # prompts shown at most, the same number from every set


def write_report(run_folder: Path, verify: bool = False) -> Path:
    """Write RUN/plots/ and RUN/report.html from the files of the run; returns the path of the page.

    The page names the parts that the run does not have. Raises ParetuneError if the folder holds no run, and
    for a damaged file. verify: hash every file of the run.
    """
    run_folder = Path(run_folder)
    check_run(run_folder, verify)
    run = read_run(run_folder)
    figures: dict[str, list[dict[str, Any]]] = {}
    for plot in all_plots(run):
        svg = Markup(save(plot, run_folder / "plots"))
        wide = (
            float(svg.partition('viewBox="')[2].split()[2]) > 320
        )  # points: beyond a phone's width
        entry = {"name": plot.name, "caption": plot.caption, "svg": svg, "wide": wide}
        figures.setdefault(plot.section, []).append(entry)
    page = template("template.html").render(
        name=run.name,
        light=Markup(css_variables(dark=False)),
        dark=Markup(css_variables(dark=True)),
        missing=run.missing,
        figures=figures,
        timing=_timing(run),
        config=run.config,
        plan=json.dumps(run.plan, indent=2, ensure_ascii=False) if run.plan is not None else "",
        environment=_flat(run.environment),
        samples=_samples(run),
        analyses=read_analyses(run_folder),
        credits=read_credits(run_folder),
        card=reward_card(run),
        **_words(run),
    )
    target = run_folder / "report.html"
    write_text(target, page)
    return target


def template(name: str) -> Template:
    """A template of this package, by its file name."""
    settings = Environment(
        loader=PackageLoader("paretune.report", ""),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return settings.get_template(name)


def _words(run: Run) -> dict[str, Any]:
    """The headline, the sentences under it and the table of methods."""
    summary, last = run.summary, aligned_method(run.summary)
    words: dict[str, Any] = {"sentence": "", "verdict": "none", "notes": [], "table": None}
    if not summary:
        words["sentence"] = "This run has not been evaluated yet: there is no summary.json."
        return words
    words["table"] = _table(run)
    if last is None or "base" not in summary["methods"]:
        words["sentence"] = "Nothing to compare: the summary lacks base or an aligned model."
        return words
    found = changes(summary, run.evaluation, last, summary["rewards"])
    label = "" if last == "mapreduce" else method_look(last, summary["rewards"]).label
    words["sentence"] = headline(found, label)
    words["verdict"] = "good" if all(change.verdict == "better" for change in found) else "mixed"
    words["notes"] = [*_judged(run, last), *_against_soup(run, last), *_conflicts(run), *warnings(run)]
    words["notes"] += summary.get("described", [])  # a summary of an earlier version has none
    return words


def _judged(run: Run, last: str) -> list[str]:
    names = list(run.summary["judges"].values())
    found = changes(run.summary, run.evaluation, last, names)
    if not found:
        return []
    listed = ", ".join(str(change) for change in found)
    agree = sum(change.verdict == "better" for change in found)
    rose, _ = verbs(found)
    return [f"Independent judges, on which nothing trains: {listed}; {agree} of {len(found)} {rose}."]


def _against_soup(run: Run, last: str) -> list[str]:
    volumes, samples = run.summary["hypervolume"], run.summary["budget"]
    if volumes.get("base") is None or volumes.get(last) is None:
        return []
    note = f"Hypervolume: {number(volumes['base'])} (base) to {number(volumes[last])}"
    soup = volumes.get("rewarded_soup")
    if soup is None or last == "rewarded_soup":
        return [f"{note}."]
    pair = [samples.get(last), samples.get("rewarded_soup")]
    equal = " at the same budget" if pair[0] is not None and pair[0] == pair[1] else ""
    # The volumes of one run have no error here, so the page does not say which of two is better.
    other = f"Rewarded Soup has {number(soup)}{equal}"
    return [f"{note}; {other} (paretune compare tells the error of the difference)."]


def _conflicts(run: Run) -> list[str]:
    rewards, taxes, count = run.summary["rewards"], [], 0
    usual = all(higher_is_better(run.summary, reward) for reward in rewards)
    lowers = "lowers" if usual else "worsens"
    for method in run.summary["methods"]:
        if method.startswith("expert:"):
            others = [reward for reward in rewards if reward != method.partition(":")[2]]
            found = changes(run.summary, run.evaluation, method, others)
            worse = [f"{c.name} ({signed(c.absolute)})" for c in found if c.verdict == "worse"]
            count += len(worse)
            if worse:
                look = method_look(method, rewards)
                taxes.append(f"{look.label} {lowers} {' and '.join(worse)}")
    if count > 6:
        return [f"The rewards conflict: experts alone {lowers[:-1]} another reward in {count} cases."]
    return [f"The rewards conflict: alone, {'; '.join(taxes)}."] if taxes else []


def _table(run: Run) -> dict[str, Any]:
    """The table of methods and scores. A cell is (mean, error, whether it is the best of its column)."""
    summary = run.summary
    methods, judges = shown_methods(summary), summary["judges"]
    names = [*summary["rewards"], *[judges[r] for r in summary["rewards"] if r in judges]]
    best = {name: _best(summary, name) for name in names}
    volumes = summary["hypervolume"]
    top = _greatest(volumes.values())
    lines = []
    for method in methods:
        means, errors = summary["methods"][method], summary["stderr"].get(method, {})
        cells = [
            (number(means.get(n)), number(errors.get(n)), n in means and means[n] == best[n])
            for n in names
        ]
        if volumes:
            volume = volumes.get(method)
            cells.append((number(volume), "", volume is not None and volume == top))
        look = method_look(method, summary["rewards"])
        lines.append({"look": look, "cells": cells, "main": method == aligned_method(summary)})
    groups = {judge: reward for reward, judge in judges.items()}
    kinds = {name: f"judge of {groups[name]}" if name in groups else "reward" for name in names}
    columns = [
        (name, kind if higher_is_better(summary, name) else f"{kind}, lower is better")
        for name, kind in kinds.items()
    ]
    return {"columns": [*columns, *([("hypervolume", "")] if volumes else [])], "lines": lines}


def _best(summary: dict[str, Any], name: str) -> float | None:
    """The best mean of a reward or judge: the greatest, or for a cost the least."""
    sign = 1 if higher_is_better(summary, name) else -1
    means = (method.get(name) for method in summary["methods"].values())
    greatest = _greatest(sign * mean for mean in means if mean is not None)
    return None if greatest is None else sign * greatest


def _greatest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _timing(run: Run) -> str:
    timing = run.summary.get("timing", {})
    parts = [f"{name} {duration(seconds)}" for name, seconds in timing.items() if name != "total"]
    total = f"{duration(timing['total'])} in all" if "total" in timing else ""
    return "; ".join(part for part in (total, ", ".join(parts)) if part)


def _samples(run: Run) -> dict[str, Any] | None:
    if not any(sample.files for sample in run.samples):
        return None
    methods = run.sample_methods
    wanted = [aligned_method(run.summary) or "mapreduce", *_last_rounds(methods)]
    last = next((method for method in wanted if method in methods), methods[-1])
    pair = [method for method in ("base", last) if method in methods]
    scores = first_scores(run.evaluation)
    cards = []
    for sample in _fair(run.samples):
        key = prompt_key({"prompt": sample.text, "image": sample.image})
        shown = [
            {"label": method_look(m, run.rewards).label, "pair": m in pair, **show(file),
             "scores": scores.get((m, sample.prompt_set, key), "")}
            for m, file in sample.files.items()
        ]  # fmt: skip
        shown.sort(key=lambda one: one["label"] != "base")
        if sample.input is not None:
            shown.insert(0, {"label": "input", "pair": True, **show(sample.input), "scores": ""})
        cards.append({"set": sample.prompt_set, "text": sample.text, "samples": shown})
    others = any(not one["pair"] for card in cards for one in card["samples"])
    return {"cards": cards, "total": len(run.samples), "others": others}


def _last_rounds(methods: Sequence[str]) -> list[str]:
    numbers = [int(name[10:]) for name in methods if name.startswith("mapreduce@")]
    return [f"mapreduce@{number}" for number in sorted(numbers, reverse=True)]


def _fair(samples: Sequence[Sample]) -> list[Sample]:
    """The first prompts of every set, the same number from each, as many as fit."""
    sets = list(dict.fromkeys(sample.prompt_set for sample in samples))
    share = max(1, SAMPLE_PROMPTS // len(sets))
    return [s for name in sets for s in [x for x in samples if x.prompt_set == name][:share]]


def _flat(table: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (dotted key, value) rows."""
    rows: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)))
    return rows
