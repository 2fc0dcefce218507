"""Translate the recipe into TRL's terms: the trainer of an objective, and its arguments.

An epoch draws P groups of G answers and makes U updates from them, while TRL counts batches. An update has
m = P G / U samples, which are divided into micro-batches of b. So the batch of a device is b, gradients are
accumulated m / b times, and U m / b batches are drawn at once (steps_per_generation).
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ...config import RunConfig
from ...types import ParetuneError
from ..objectives.settings import read_options
from ..objectives.table import find_objective
from ..objectives.trl import Batches, TrlObjective


def batches_of(config: RunConfig, samples: int, processes: int = 1) -> Batches:
    """Divide an epoch's samples into equal updates, and each process's share into micro-batches."""
    updates = config.train.updates_per_epoch
    if samples % updates:
        raise ParetuneError(
            f"train.updates_per_epoch: {updates} does not divide the {samples} samples of an epoch, "
            "which TRL needs"
        )
    each, left = divmod(samples // updates, processes)
    if left:
        raise ParetuneError(
            f"executor.devices_per_expert: {processes} does not divide the {samples // updates} samples of "
            "an update, which TRL needs; change it, or train.prompts_per_epoch"
        )
    micro = max(d for d in range(1, min(each, config.train.micro_batch) + 1) if each % d == 0)
    return Batches(micro, each // micro, updates)


def trl_classes(objective: type[TrlObjective]) -> tuple[Any, Any]:
    """The trainer and its configuration class. Raises ParetuneError if TRL, or one of them, is missing."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    module, trainer, arguments = objective.place.split(":")
    try:
        found = import_module(module)
        return getattr(found, trainer), getattr(found, arguments)
    except (ImportError, AttributeError) as error:
        raise ParetuneError(
            f"language models are trained by {module}.{trainer}, which is not there ({error}); "
            "pip install 'paretune[language]'"
        ) from error


def trl_objective(name: str) -> type[TrlObjective]:
    """The objective of a name, which must be one that TRL trains."""
    objective = find_objective(name)
    assert issubclass(objective, TrlObjective)
    return objective


def trl_arguments(
    config: RunConfig, name: str, kl: float, batches: Batches, device: str, seed: int, folder: Path,
    extra: dict[str, Any] | None = None, alone: bool = True,
) -> Any:  # fmt: skip
    """The configuration of an objective's trainer. The recipe's `objective.options` replace its defaults.

    Args:
        config: the recipe.
        name: of the objective.
        kl: the weight of the anchor.
        batches: how an epoch is divided.
        device: by torch's name.
        seed: of the expert.
        folder: TRL's output folder.
        extra: arguments about rewards and drawing.
        alone: whether one process trains the expert.

    Raises:
        ParetuneError: for an option that TRL does not have, or that another key of the recipe sets.
    """
    train, objective = config.train, trl_objective(name)
    _, arguments = trl_classes(objective)
    read = read_options(config.objective)
    fixed = {
        "output_dir": str(folder), "per_device_train_batch_size": batches.micro,
        "gradient_accumulation_steps": batches.accumulate, "num_train_epochs": 1,
        "learning_rate": train.learning_rate, "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm, "lr_scheduler_type": "constant", "seed": seed % 2**31,
        "bf16": train.autocast, "use_cpu": device == "cpu", "logging_steps": 1, "save_strategy": "no",
        "report_to": [], "disable_tqdm": True, "remove_unused_columns": False,
        "gradient_checkpointing": config.model.gradient_checkpointing,
    }  # fmt: skip
    fixed |= objective.fixed(config, kl, batches) | (extra or {})
    options = {k: _here(k, v, alone) for k, v in (read.model_extra or {}).items()}
    known = [f.name for f in dataclasses.fields(arguments)]
    for key in options:
        if key in fixed:
            raise ParetuneError(f"objective.options.{key}: another key of the recipe sets this; leave it out")
        if key not in known:
            near = difflib.get_close_matches(key, [*type(read).model_fields, *known], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ParetuneError(f"objective.options: {arguments.__name__} has no {key}{hint}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries' advice to each other
            made = {**fixed, **objective.defaults(config, read, kl), **objective.loss_arguments, **options}
            return on_device(device, lambda: arguments(**made))
    except (ValueError, TypeError, ImportError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ParetuneError(f"objective {name}: {arguments.__name__} refuses: {reason}") from error


def on_device(device: str, make: Callable[[], Any]) -> Any:
    """Call `make`, which makes arguments, for one device; transformers would take every device it sees."""
    if device == "cpu":
        return make()
    with _environment("ACCELERATE_TORCH_DEVICE", device):  # where accelerate puts the model
        arguments = make()
    arguments._n_gpu = 1
    vars(arguments)["_setup_devices"] = torch.device(device)  # cached there, and the first GPU until now
    if torch.cuda.is_available():
        torch.cuda.set_device(device)
    return arguments


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for the length of a block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _here(key: str, value: Any, alone: bool) -> Any:
    """The value of an option on this machine: `use_vllm: auto` means true if vllm is installed.

    alone: with several processes it means false, because vllm draws with noise of its own.
    """
    if key == "use_vllm" and value == "auto":
        return alone and importlib.util.find_spec("vllm") is not None
    return value
