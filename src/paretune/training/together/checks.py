"""What is asked before training: whether a recipe's experts can be trained by several processes."""

from __future__ import annotations

from ...config import RunConfig
from ...planning.plan import METHOD_OBJECTIVES
from ...samples.media import medium_of
from ...types import ParetuneError
from ..objectives.settings import read_options, settings_for
from ..objectives.table import find_objective


def check_together(config: RunConfig) -> None:
    """Raise ParetuneError if the recipe asks for several devices an expert, and an expert cannot use them."""
    count, shard = config.executor.devices_per_expert, config.executor.shard
    if shard == "full" and count == 1:
        raise ParetuneError(
            "executor.shard: full divides the base over an expert's devices; give "
            "executor.devices_per_expert too, or leave shard out"
        )
    if count == 1:
        return
    if shard == "full" and config.model.options.get("quantize", "none") != "none":
        raise ParetuneError(
            "executor.shard: full cannot divide a quantised base; leave model.options.quantize out, or shard"
        )
    own = {config.objective.name, *(r.objective for r in config.rewards.values())}
    chosen = {METHOD_OBJECTIVES[method] for method in config.methods if method in METHOD_OBJECTIVES}
    for name in sorted(filter(None, own | chosen)):
        settings = settings_for(config.objective, name)
        objective, options = find_objective(name), read_options(settings)
        if shard == "full" and not objective.shardable(options):
            raise ParetuneError(
                f"executor.shard: full: objective {name} with these options needs the whole base on each "
                "device; leave shard out"
            )
        if not objective.divisible(options):
            raise ParetuneError(
                f"executor.devices_per_expert: {count}: objective {name} with these options trains an expert "
                "on one device; leave the key out"
            )
    if medium_of(config.model).name == "texts":
        _check_texts(config)


def _check_texts(config: RunConfig) -> None:
    """Raise ParetuneError if TRL cannot deal the samples of a language model's updates evenly."""
    count, train = config.executor.devices_per_expert, config.train
    draws = find_objective(config.objective.name).draws
    if draws and train.prompts_per_epoch % count:
        raise ParetuneError(
            f"executor.devices_per_expert: {count} does not divide train.prompts_per_epoch: "
            f"{train.prompts_per_epoch}; the groups of an epoch are dealt evenly to language models' devices"
        )
    samples = train.prompts_per_epoch * (train.group_size if draws else 1)
    if samples % (train.updates_per_epoch * count):
        raise ParetuneError(
            f"executor.devices_per_expert: {count} x train.updates_per_epoch: {train.updates_per_epoch} does "
            f"not divide the {samples} samples of an epoch, as language models need"
        )
    moved = getattr(read_options(config.objective), "reference_decay", 0.0)
    if config.executor.shard == "full" and moved:
        raise ParetuneError(
            "objective.options.reference_decay changes the base, which executor.shard: full divides; leave "
            "one of them out"
        )
