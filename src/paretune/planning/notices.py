"""What a user reads before a run: lines about the model and about prompts that are cut."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress

from ..config import ReduceConfig, RunConfig
from ..data.prompts import load_prompts
from ..data.remote import is_remote
from ..foreign import gguf
from ..samples.media import medium_of
from ..training.objectives.curriculum import stages_drawn, stages_of
from ..training.objectives.settings import read_options, settings_for
from ..training.objectives.table import find_objective
from ..types import ParetuneError
from .long_prompts import cut_notices, pair_files
from .methods import build_plan

SCORED = 64  # samples that a reward scores in one call
SHARED = 0.25  # the share of a reward's prompts that another reward has too, from which it is told
UNEVEN = 5.0  # times as wide a range as another reward's, from which the wide one decides nearly alone


def notices(config: RunConfig, hub: bool = True) -> list[str]:
    """All lines. hub: whether datasets of the hub are loaded, which may download them."""
    lines = [*gguf.notices(config.model.path), *cut_notices(config, hub), *tie_notices(config, hub)]
    idle = [*_idle_anchor(config), *_idle_lean(config), *_idle_decay(config), *_idle_limits(config)]
    return [*lines, *_overlap(config), *idle, *_missed_stages(config, hub), *shared_notices(config, hub)]


def tie_notices(config: RunConfig, hub: bool = True) -> list[str]:
    """A line for every file of pairs in which some lists have equal scores alone, and are left out."""
    lines = []
    for spec, records in pair_files(config, hub).items():
        ties = sum(
            len(set(record.scores)) == 1
            and all(len(set(part)) == 1 for part in zip(*record.segments or (), strict=True))
            for record in records
        )
        if ties:
            lines.append(f"{spec}: {ties:,} of {len(records):,} lists tie and are left out")
    return lines


def shared_notices(config: RunConfig, hub: bool = True) -> list[str]:
    """A line where `reduce.method: distil` asks one expert about prompts that belong to several."""
    if config.reduce.method != "distil" or "mapreduce" not in config.methods:
        return []
    texts: dict[str, set[str]] = {}
    for name, own in config.rewards.items():
        if hub or not is_remote(own.prompts):
            with suppress(ParetuneError):  # whoever needs the file reports it
                texts[name] = {str(prompt.text) for prompt in load_prompts(own.prompts)}
    shares: dict[str, float] = {}
    for name, own in texts.items():
        others = set[str]().union(*(other for key, other in texts.items() if key != name))
        shares[name] = len(own & others) / len(own)
    most = max(shares, key=shares.__getitem__, default=None)
    if most is None or shares[most] < SHARED:
        return []
    return [
        f"reduce.method: distil asks the expert of one reward about each prompt, and {shares[most]:.0%} of "
        f"the prompts of {most} are prompts of another reward too: the student keeps less of each expert"
    ]


def uneven_notices(config: RunConfig, ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    """A line where rewards of very different ranges are summed before their groups are normalised.

    ranges: the least and the greatest value of each reward. One without a bound cannot be compared.
    """
    leans = "mapreduce" in config.methods and any(map(config.lean, config.rewards))
    sums = [name for name, does in (("morl_dr", "morl_dr" in config.methods), ("map.lean", leans)) if does]
    if config.objective.joint != "sum_then_normalise" or not sums:
        return []
    spans = {
        name: (ranges[name][1] - ranges[name][0]) * reward.weight
        for name, reward in config.rewards.items() if reward.normalise == "none" and reward.weight > 0
    }  # fmt: skip
    spans = {name: span for name, span in spans.items() if math.isfinite(span)}
    if not spans or max(spans.values()) <= UNEVEN * min(spans.values()):
        return []
    wide, narrow = max(spans, key=spans.__getitem__), min(spans, key=spans.__getitem__)
    return [
        f"{' and '.join(sums)} {'sum' if len(sums) > 1 else 'sums'} the rewards, and {wide} spans "
        f"{spans[wide]:g} where {narrow} spans {spans[narrow]:g}, so that {wide} decides nearly alone: "
        "objective.joint: normalise_then_sum gives each the same say"
    ]


def _idle_anchor(config: RunConfig) -> list[str]:
    """A line where the recipe chooses an anchor that no loss looks at."""
    settings = config.objective
    kls = [settings.kl if own.kl is None else own.kl for own in config.rewards.values()]
    kinds = [settings_for(settings, own.objective) for own in config.rewards.values()]
    looks = any(find_objective(own.name).anchored(read_options(own)) for own in kinds)
    if settings.anchor == "round" or max(kls) > 0 or looks:
        return []
    return [f"objective.anchor: {settings.anchor} changes nothing where objective.kl is 0: set it above 0"]


def _idle_decay(config: RunConfig) -> list[str]:
    """A line where weights should decay to their start, and none decays."""
    if config.train.decay != "start" or config.train.weight_decay:
        return []
    return ["train.decay: start changes nothing where train.weight_decay is 0: set it above 0"]


def _idle_limits(config: RunConfig) -> list[str]:
    """A line for every limit of `stop_when` of which an expert's epochs have no figure."""
    limits, settings = config.stop_when, config.objective
    if limits is None:
        return []
    told = list[str]()
    if limits.kl is not None and settings.kl == 0 and not any(own.kl for own in config.rewards.values()):
        told.append("stop_when.kl never stops an expert where objective.kl is 0: set it above 0")
    if limits.length is not None and medium_of(config.model).name != "texts":
        told.append("stop_when.length is of answers, and never stops an expert of pictures or clips")
    return told


def _idle_lean(config: RunConfig) -> list[str]:
    """A line where an expert should lean on other rewards, or an average be folded, and there is none."""
    leans = bool(config.map.lean or any(own.lean for own in config.rewards.values()))
    if leans and len(config.rewards) == 1:
        return ["map.lean changes nothing with one reward: there is no other to lean on"]
    plain = ReduceConfig.model_validate({})
    keys = [f"reduce.{key}" for key in ("method", "step", "momentum")
            if getattr(config.reduce, key) != getattr(plain, key)]  # fmt: skip
    given = [*(["map.lean"] if leans else []), *keys]
    if not given or "mapreduce" in config.methods:
        return []
    return [f"{' and '.join(given)} {'changes' if len(given) == 1 else 'change'} nothing without mapreduce"]


def _missed_stages(config: RunConfig, hub: bool) -> list[str]:
    """A line for every method in which a curriculum never comes to some stages of a reward's records."""
    kind = getattr(read_options(config.objective), "curriculum", "none")
    if kind == "none":
        return []
    lines: list[str] = []
    for method in build_plan(config).methods:
        tasks = [task for round_ in method.rounds for task in round_.tasks]
        # What an expert goes on from was trained on another reward, where it is one of the same method.
        before = {task.folder: task.epochs for task in tasks}
        for name, own in config.rewards.items():
            if is_remote(own.prompts) and not hub:
                continue
            with suppress(ParetuneError):  # whoever needs the file reports it
                prompts = load_prompts(own.prompts)
                drawn = {stage for task in tasks if name in task.rewards
                         for stage in stages_drawn(kind, prompts, task.round, task.epochs,
                                                   before.get(task.continues or "", 0))}  # fmt: skip
                if len(drawn) < (every := len(set(stages_of(prompts)))):
                    lines.append(
                        f"objective.options.curriculum: {kind} draws {len(drawn)} of the {every} stages of "
                        f"{name} in {method.name}: give it more rounds or epochs, or fewer stages"
                    )
    return lines


def _overlap(config: RunConfig) -> list[str]:
    """A line where `executor.overlap` is asked for and an epoch's samples are drawn or scored in one part."""
    train = config.train
    samples = train.prompts_per_epoch * train.group_size
    if not config.executor.overlap or (samples > SCORED and samples > train.micro_batch):
        return []
    why = f"scored in one part, as up to {SCORED} are"
    if samples > SCORED:
        why = f"drawn in one part; set train.micro_batch to {SCORED} or less"
    return [f"executor.overlap changes nothing here: the {samples} samples of an epoch are {why}"]
