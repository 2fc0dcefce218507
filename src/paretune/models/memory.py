"""Error messages for a lack of memory, which advise settings that differ from the present ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec

import torch

from ..config import ModelConfig, RunConfig
from ..types import Unfit
from .detect import family_of

P = ParamSpec("P")
# Parts of torch's messages for a lack of memory.
WORDS = ("DefaultCPUAllocator", "out of memory", "Storage size calculation overflowed")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is a lack of memory, of an accelerator or of the CPU."""
    message = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in message for words in WORDS)
    )


@contextmanager
def memory_errors(advice: Callable[P, str], *args: P.args, **settings: P.kwargs) -> Iterator[None]:
    """Turn a lack of memory into a ParetuneError (`Unfit`).

    Args:
        advice: gives the advice of the message, such as `to_train`.
        *args: arguments of `advice`.
        **settings: keyword arguments of `advice`.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        advised = advice(*args, **settings)
        on_cpu = isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
        raise Unfit(f"out of memory{'' if on_cpu else ' on the accelerator'}: {advised}") from error


def to_train(
    config: RunConfig, begun: bool = True, draws: bool = False, whole_batches: bool = False,
    checkpoints: bool = True,
) -> str:  # fmt: skip
    """Advice for training an expert or a token with less memory.

    Args:
        config: the run's configuration.
        begun: whether there is a run that can be resumed.
        draws: whether training draws samples in the evaluation's batches.
        whole_batches: see `RunConfig.rounding_keys`.
        checkpoints: whether gradient checkpoints take effect. They do not where a language model learns
            outside of TRL's trainers: transformers makes none in a model that draws.
    """
    free = config.rounding_keys(whole_batches) if begun else frozenset[str]()
    settings = dict[str, str]()
    batch = min(config.train.micro_batch, config.train.prompts_per_epoch * config.train.group_size)
    if batch > 1:
        settings["train.micro_batch"] = str(batch // 2)
    if checkpoints and not config.model.gradient_checkpointing:
        settings["model.gradient_checkpointing"] = "true"
    if family_of(config.model.path).quantizes and "quantize" not in config.model.options:
        settings["model.options.quantize"] = "int8"
    if draws and config.evaluate.batch_size > 1:
        settings["evaluate.batch_size"] = str(config.evaluate.batch_size // 2)
    now = [f"--set {key}={value}" for key, value in settings.items() if key in free]
    later = [f"--set {key}={value}" for key, value in settings.items() if key not in free]
    later.append(_smaller(config.model, config))
    resume = [f"go on with --resume {' '.join(now)}, which keeps what is finished"] if now else []
    return "; or ".join([*resume, f"begin {'again ' if begun else ''}with {', or '.join(later)}"])


def to_measure(config: RunConfig) -> str:
    """Advice for evaluating a model with less memory."""
    options = []
    if config.evaluate.batch_size > 1:
        options.append(f"--set evaluate.batch_size={config.evaluate.batch_size // 2}")
    options.append(_smaller(config.model))
    return f"begin again with {', or '.join(options)}; adapters are kept, and `paretune eval` takes them"


def to_load(model: ModelConfig) -> str:
    """Advice for loading a model and embedding its prompts with less memory."""
    options = ["model.path a smaller model"]
    if model.dtype == "float32":
        options.insert(0, "model.dtype=bfloat16")
    if family_of(model.path).cut_text(model) != 0:
        options.append("shorter texts (model.options.max_sequence_length)")
    return (
        f"{model.path} does not fit as it is; begin again with {', or '.join(options)}, or free the device "
        "for it: text encoders are offloaded already, the transformer has to stay"
    )


def to_draw(model: ModelConfig) -> str:
    """Advice for drawing one sample with less memory."""
    return (
        f"samples are drawn one at a time; free the device, draw on the CPU (CUDA_VISIBLE_DEVICES=''), or "
        f"take a model or a run with {_smaller(model)}"
    )


def _smaller(model: ModelConfig, trained: RunConfig | None = None) -> str:
    """The keys that can be lowered so that a sample, or its training, takes less memory, in words."""
    family = family_of(model.path)
    keys = family.smaller(model)
    if trained is not None and family.draws_an_epoch_at_once and trained.train.group_size > 2:
        keys.append("train.group_size")
    if trained is not None and trained.lora is not None and trained.lora.rank > 1:
        keys.append("lora.rank")
    smaller = f"less of {', '.join(keys)}" if keys else "a smaller model"
    return f"model.dtype=bfloat16, or {smaller}" if model.dtype == "float32" else smaller

