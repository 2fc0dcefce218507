"""When memory runs out: one line that says what would fit, and never names what is set already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec

import torch

from ..config import ModelConfig, RunConfig
from ..types import ParetuneError
from .detect import family_of

P = ParamSpec("P")
# How torch begins to say that there is not so much memory, here or at all.
WORDS = ("DefaultCPUAllocator", "out of memory", "Storage size calculation overflowed")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is out: an accelerator's or, in torch's own words, the CPU's."""
    told = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in told for words in WORDS)
    )


@contextmanager
def memory_errors(advice: Callable[P, str], *args: P.args, **settings: P.kwargs) -> Iterator[None]:
    """Turn running out of memory into a line. advice: what would fit (`to_train` and its like), of `args`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        told = advice(*args, **settings)
        here = isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
        raise ParetuneError(f"out of memory{'' if here else ' on the accelerator'}: {told}") from error


def to_train(
    config: RunConfig, begun: bool = True, draws: bool = False, whole_batches: bool = False
) -> str:
    """What would let an expert or a token train. begun: there is a run to go on with.

    draws: samples are drawn as the evaluation draws them. whole_batches: see `RunConfig.rounding_keys`.
    """
    free = config.rounding_keys(whole_batches) if begun else frozenset[str]()
    settings = dict[str, str]()
    batch = min(config.train.micro_batch, config.train.prompts_per_epoch * config.train.group_size)
    if batch > 1:
        settings["train.micro_batch"] = str(batch // 2)
    if not config.model.gradient_checkpointing:
        settings["model.gradient_checkpointing"] = "true"
    if family_of(config.model.path).quantizes and "quantize" not in config.model.options:
        settings["model.options.quantize"] = "int8"
    if draws and config.evaluate.batch_size > 1:
        settings["evaluate.batch_size"] = str(config.evaluate.batch_size // 2)
    now = [f"--set {key}={value}" for key, value in settings.items() if key in free]
    later = [f"--set {key}={value}" for key, value in settings.items() if key not in free]
    later.append(_smaller(config.model, config))
    told = [f"go on with --resume {' '.join(now)}, which keeps what is finished"] if now else []
    return "; or ".join([*told, f"begin {'again ' if begun else ''}with {', or '.join(later)}"])


def to_measure(config: RunConfig) -> str:
    """What would let a model draw the held-out prompts."""
    told = []
    if config.evaluate.batch_size > 1:
        told.append(f"--set evaluate.batch_size={config.evaluate.batch_size // 2}")
    told.append(_smaller(config.model))
    return f"begin again with {', or '.join(told)}; adapters are kept, and `paretune eval` takes them"


def to_load(model: ModelConfig) -> str:
    """What would let a model be loaded and its prompts embedded."""
    told = ["model.path a smaller model"]
    if model.dtype == "float32":
        told.insert(0, "model.dtype=bfloat16")
    if family_of(model.path).cut_text(model) != 0:
        told.append("shorter texts (model.options.max_sequence_length)")
    return (
        f"{model.path} does not fit as it is; begin again with {', or '.join(told)}, or free the device for "
        "it: text encoders are offloaded already, the transformer has to stay"
    )


def to_draw(model: ModelConfig) -> str:
    """What would let one sample be drawn."""
    return (
        f"samples are drawn one at a time; free the device, draw on the CPU (CUDA_VISIBLE_DEVICES=''), or "
        f"take a model or a run with {_smaller(model)}"
    )


def _smaller(model: ModelConfig, trained: RunConfig | None = None) -> str:
    """The keys that make a sample, or what is trained of it, take less, in words."""
    family = family_of(model.path)
    told = family.smaller(model)
    if trained is not None and family.draws_an_epoch_at_once and trained.train.group_size > 2:
        told.append("train.group_size")
    if trained is not None and trained.lora.rank > 1:
        told.append("lora.rank")
    smaller = f"less of {', '.join(told)}" if told else "a smaller model"
    return f"model.dtype=bfloat16, or {smaller}" if model.dtype == "float32" else smaller

