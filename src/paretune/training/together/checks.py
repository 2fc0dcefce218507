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
    if medium_of(config.model).name == "texts":
        raise ParetuneError(
            f"executor.devices_per_expert: {count}: the expert of a language model trains on one device; "
            "leave the key out"
        )
    if shard == "full" and config.model.options.get("quantize", "none") != "none":
        raise ParetuneError(
            "executor.shard: full cannot divide a quantised base; leave model.options.quantize out, or shard"
        )
    own = {config.objective.name, *(r.objective for r in config.rewards.values())}
    chosen = {METHOD_OBJECTIVES[method] for method in config.methods if method in METHOD_OBJECTIVES}
    for name in sorted(filter(None, own | chosen)):
        settings = settings_for(config.objective, name)
        if not find_objective(name).divisible(read_options(settings)):
            raise ParetuneError(
                f"executor.devices_per_expert: {count}: objective {name} with these options trains an expert "
                "on one device; leave the key out"
            )
