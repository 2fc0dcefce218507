"""`paretune doctor RECIPE`: what would stop a recipe after hours, asked before the first one.

The hub is asked about every model and dataset that the recipe names: whether this login may have it, under
which licence, how large it is, whether its weights are safetensors, and whether it changed since it was
downloaded here. Nothing of them is downloaded.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..config import RunConfig
from ..data.hub import PREFIX as HUB
from ..data.sets import SETS, find_set
from ..executors import find_executor
from ..foreign.converted import CONVERTED
from ..foreign.hub_facts import HubFacts, ask_hub, cached_main
from ..models.detect import family_of
from ..models.facts import check_options
from ..stages.claim import missing_files
from ..stages.prompt_checks import check_unloaded
from ..types import ParetuneError
from .doctor import Finding, missing_package
from .downloads import Download, downloads, spoken_size

SPARE = 5e9  # bytes that a run's own folder may take


def examine_recipe(config: RunConfig, trusted: bool = True) -> list[Finding]:
    """What the recipe needs, in order: the recipe itself, its files, its downloads, and room for them."""
    findings = [_recipe(config, trusted), *(missing_package(name) for name in _packages(config))]
    found = downloads(config)
    wanted = 0.0
    for one in found:
        finding, size = _ask(one)
        findings.append(finding)
        wanted += 0 if one.here or size is None else size
    return [*findings, *_room(wanted)]


def _recipe(config: RunConfig, trusted: bool) -> Finding:
    try:
        find_executor(config.executor.kind)
        check_options(config.model)
        missing = missing_files(config)
        check_unloaded(config, missing, trusted)
    except ParetuneError as error:
        return Finding("recipe", False, str(error))
    if missing:
        return Finding("recipe", False, f"files that are not there: {', '.join(missing)}")
    return Finding("recipe", True, f"{config.name}: its options, files and rewards fit together")


def _packages(config: RunConfig) -> list[str]:
    """The optional packages that this recipe cannot do without."""
    medium = family_of(config.model.path).medium
    sets = [spec for own in config.rewards.values() for spec in (own.prompts, own.eval_prompts)]
    wanted = {
        "rapidocr-onnxruntime": any(own.reward == "ocr" for own in config.rewards.values()),
        "trl": medium == "texts",
        "datasets": any(spec.startswith(HUB) for spec in sets),
        "av": medium == "clips",
    }
    return [name for name, needed in wanted.items() if needed]


def _ask(one: Download) -> tuple[Finding, float | None]:
    """A finding about one download, and the bytes that it takes, if they are known."""
    what = f"{one.what}: {one.place}"
    if one.kind == "set":
        name, _ = find_set(one.place)
        told = "here" if one.here else f"is fetched by the run ({_size(one.size)})"
        return Finding(what, True, f"licence {SETS[name].licence}; {told}"), one.size
    if one.kind == "fetched":
        entry = CONVERTED[one.place]
        told = f"{entry.repo}, {spoken_size(entry.size)}, licence {entry.licence}"
        how = "here" if one.here else f"not here: `paretune fetch {one.place}`"
        return Finding(what, one.here, f"{told}; {how}"), 2.0 * entry.size  # as published, and converted
    try:
        facts = ask_hub(one.place, one.kind == "dataset", one.revision)
    except ParetuneError as error:
        return Finding(what, False, str(error), needed=not one.here), one.size
    return _judged(one, what, facts), None if one.small else float(facts.size)


def _judged(one: Download, what: str, facts: HubFacts) -> Finding:
    if facts.pickles and not one.small:
        return Finding(
            what, False,
            f"holds its weights in pickles alone ({facts.pickles[0]}), which are not read: convert them to "
            "safetensors",
        )  # fmt: skip
    size = "a few MB of it" if one.small else spoken_size(facts.size)
    told = f"licence {facts.licence}, {'gated, and this login may have it, ' if facts.gated else ''}{size}"
    kept = None if one.revision else cached_main(one.place, dataset=one.kind == "dataset")
    if kept is not None and kept != facts.revision:
        return Finding(
            what, False,
            f"{told}; it changed on the hub since it was downloaded here (here {kept[:12]}, there "
            f"{facts.revision[:12]}): a run takes the hub's, so that a run that is resumed would go on with "
            "another model; give model.path or the reward's option a folder to keep the one that is here",
            needed=False,
        )  # fmt: skip
    return Finding(what, True, f"{told}, revision {facts.revision[:12]}{', here' if one.here else ''}")


def _size(size: float | None) -> str:
    return "its size is not known here" if size is None else spoken_size(size)


def _room(wanted: float) -> Iterator[Finding]:
    """Whether the downloads fit where the hub's cache is, and a run here."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = _existing(Path(HF_HUB_CACHE))
    free = shutil.disk_usage(cache).free
    yield Finding(
        "disk for downloads", free > wanted,
        f"{spoken_size(free)} free at {cache}, {spoken_size(wanted)} to download (HF_HOME says where)",
    )  # fmt: skip
    here = shutil.disk_usage(".").free - (wanted if os.stat(cache).st_dev == os.stat(".").st_dev else 0)
    yield Finding("disk for the run", here > SPARE, f"{spoken_size(max(0, here))} left for the run's folder")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return folder if folder.is_dir() else _existing(folder.parent)
