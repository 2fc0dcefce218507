"""What a recipe downloads before it can run, and how large it is. Nothing is downloaded to find out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..config import RunConfig
from ..data.hub import PREFIX as HUB
from ..data.remote import is_remote
from ..data.sets import PREFIX as SET
from ..data.sets import SETS, find_set
from ..foreign.converted import CONVERTED, is_converted
from ..foreign.fetched import FETCHED
from ..foreign.hub_facts import is_cached, remembered
from ..models.family import by_hub_id
from ..rewards.needs import SMALL, models_of, revision_of
from ..worlds.embedded import EMBEDDED

BYTES = 2  # of a parameter, as large models are published
# Bytes as the hub's pages show them. What is not here is known once `paretune doctor RECIPE` has asked.
KNOWN = {
    "yuvalkirstain/PickScore_v1": 3.94e9,
    "Ray2333/gpt2-large-helpful-reward_model": 3.1e9,
    "facebook/dino-vitb16": 0.343e9,
    "zhiyuanyou/DeQA-Score-Mix3": 16.41e9,
    "RE-N-Y/hpsv21": 3.94e9,
    "RE-N-Y/mpsv1": 4.42e9,
    "RE-N-Y/ImageReward": 1.79e9,
    "RE-N-Y/laion-aesthetic": 1.22e9,
    "facebook/mask2former-swin-small-coco-instance": 0.276e9,
    "RLHFlow/ArmoRM-Llama3-8B-v0.1": 15.04e9,
    "deepmind/optical-flow-perceiver": 0.164e9,
}


@dataclass(frozen=True)
class Download:
    """One thing that a recipe needs from elsewhere.

    what: who needs it. place: a hub id, "hf:.." or "set:..", or a name that `paretune fetch` knows. kind:
    model, dataset, set, or fetched. size: bytes, None where they are not known here; about: whether that is
    an estimate. here: whether it is on this machine. small: whether only small files of it are read.
    revision: the commit that is read, None for the newest.
    """

    what: str
    place: str
    kind: str
    size: float | None
    about: bool
    here: bool
    small: bool = False
    revision: str | None = None

    def __str__(self) -> str:
        if self.small:
            size = "a few MB"
        elif self.size is None:
            size = "its size is not known here; `paretune doctor RECIPE` asks for it"
        else:
            size = f"{'about ' if self.about else ''}{spoken_size(self.size)}"
        order = f", by `paretune fetch {self.place}`" if self.kind == "fetched" else ""
        return f"{self.place} ({self.what}): {size}{order}"


def spoken_size(size: float) -> str:
    """Bytes in MB or GB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def downloads(config: RunConfig) -> list[Download]:
    """Everything that a recipe needs from the hub or another server, each once, what is here included."""
    found: dict[str, Download] = {}
    for one in (*_base(config), *_rewards(config), *_prompts(config)):
        known = found.get(one.place)
        if known is None or (known.small and not one.small):
            found[one.place] = one
    return list(found.values())


def missing_lines(found: list[Download]) -> list[str]:
    """A line for each thing that is not here, and one for their sum."""
    missing = [one for one in found if not one.here]
    lines = [f"to download: {one}" for one in missing]
    sizes = [one.size for one in missing if one.size is not None and not one.small]
    unknown = sum(1 for one in missing if one.size is None and not one.small)
    if len(missing) > 1 and sizes:
        more = f" and {unknown} of unknown size" if unknown else ""
        lines.append(f"to download in all: about {spoken_size(sum(sizes))}{more}")
    return lines


def _base(config: RunConfig) -> Iterator[Download]:
    path = config.model.path
    if path in EMBEDDED or Path(path).exists() or path.count("/") != 1:
        return
    family = by_hub_id().get(path)
    published = family.published.get(path) if family else None
    estimate = None if published is None else BYTES * 1e9 * sum(published.billions.values())
    yield _model("the model", path, estimate)


def _rewards(config: RunConfig) -> Iterator[Download]:
    named = [(name, own.reward, own.options) for name, own in config.rewards.items()]
    if config.evaluate.judges:
        named += [(f"the judge of {n}", own.judge, {}) for n, own in config.rewards.items() if own.judge]
    named += [("untargeted", spec, {}) for spec in config.evaluate.untargeted]
    for what, spec, options in named:
        for option, place in models_of(spec, options).items():
            if place in CONVERTED:
                yield Download(what, place, "fetched", CONVERTED[place].size, False, is_converted(place))
            elif place not in FETCHED:
                commit = revision_of(spec, option, options)
                yield _model(what, place, KNOWN.get(place), option in SMALL, commit)


def _prompts(config: RunConfig) -> Iterator[Download]:
    for name, own in config.rewards.items():
        for spec in dict.fromkeys((own.prompts, own.eval_prompts, own.pairs)):
            what = f"prompts of {name}"
            if spec is None or Path(spec.removeprefix(HUB).partition("@")[0]).exists():
                continue
            if spec.startswith(HUB):
                place = hub_name(spec)
                facts = remembered(place)
                here = is_cached(place, dataset=True)
                yield Download(what, place, "dataset", facts.size if facts else None, False, here)
            elif spec.startswith(SET):
                known, split = find_set(spec)
                yield Download(what, spec, "set", SETS[known].size(split), False, not is_remote(spec))


def hub_name(spec: str) -> str:
    """OWNER/NAME of "hf:OWNER/NAME/FOLDER@SPLIT"."""
    return "/".join(spec.removeprefix(HUB).partition("@")[0].split("/")[:2])


def _model(
    what: str, place: str, size: float | None, small: bool = False, revision: str | None = None
) -> Download:
    facts, here = remembered(place), is_cached(place, revision=revision)
    if facts is not None:
        return Download(what, place, "model", facts.size, False, here, small, revision)
    return Download(what, place, "model", size, place not in KNOWN, here, small, revision)
