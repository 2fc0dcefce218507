"""What is asked before training all weights (`lora: null`): what only an adapter can do is refused."""

from __future__ import annotations

from ..config import RunConfig
from ..models.config_files import read_config
from ..models.detect import family_of, place_of
from ..models.family import transformers_of
from ..samples.media import medium_of
from ..types import ParetuneError


def check_whole(config: RunConfig) -> None:
    """Raise ParetuneError for a recipe that trains all weights and asks for what needs adapters."""
    if config.lora is not None:
        return
    if fault := _model_fault(config) or _run_fault(config):
        raise ParetuneError(f"lora: null trains all weights: {fault}")


def _model_fault(config: RunConfig) -> str:
    """What is wrong with the model, in words; "" if nothing is."""
    model, family = config.model, family_of(config.model.path)
    if medium_of(model).name == "texts":
        return "language models train an adapter here; give the keys of lora"
    if model.dtype != "float32":
        return (
            f"small updates vanish in {model.dtype}; give model.dtype: float32, and train.autocast: true to "
            "compute in bfloat16"
        )
    if model.options.get("quantize", "none") != "none":
        return "a quantised base stays as it is; leave model.options.quantize out"
    index = place_of(model.path) / "model_index.json"
    parts = (*family.parts, *family.more_parts(read_config(index) if index.is_file() else {}))
    if len(transformers_of(parts)) > 1:
        return "this pipeline has two transformers, whose changes only adapters hold; give the keys of lora"
    return ""


def _run_fault(config: RunConfig) -> str:
    """What of the rest of the recipe needs adapters, in words; "" if nothing does."""
    rule = config.reduce
    if rule.method != "exact":
        return f"reduce.method: {rule.method} merges adapters; give exact, the mean of the weights"
    if rule.step != 1 or rule.momentum:
        return "reduce.step and reduce.momentum are for adapters; leave them out"
    if rule.final_rank is not None:
        return "reduce.final_rank cuts an adapter; leave it out"
    if config.tokens is not None:
        return "tokens are distilled from adapters; leave the section out"
    if config.executor.shard == "full":
        return "executor.shard: full divides a frozen base; leave it out"
    return ""
