"""Training all weights of a transformer instead of an adapter, and applying what such an expert changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import nn

from ..adapters.store import load_delta
from ..adapters.tensors import open_tensors
from ..adapters.whole import MODEL, check_names, summed, whole_weights
from ..config import ModelConfig
from ..types import ParetuneError
from .detect import resolve_path
from .lora import fold


def transformer_folder(model: ModelConfig) -> Path:
    """The folder of the transformer that a recipe trains."""
    return Path(resolve_path(model.path)) / "transformer"


def train_all(transformer: nn.Module, model: ModelConfig) -> dict[str, nn.Parameter]:
    """Make all weights trainable; returns them by name.

    Raises ParetuneError if the model's files have other names, so that no final transformer could be written.
    """
    parameters = dict(transformer.requires_grad_(True).named_parameters())
    check_names(transformer_folder(model), parameters)
    return parameters


def differences(
    values: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What an expert has changed, float32 on the CPU. start: on the CPU, the weights that it began with."""
    return {name: value.detach().cpu().float() - start[name] for name, value in values.items()}


def add_changes(transformer: nn.Module, folders: Sequence[Path], scales: Sequence[float] = ()) -> None:
    """Turn the base into the model that some folders make of it, whether adapters or changes of all weights.

    Args:
        transformer: the base.
        folders: of adapters or changes, which are added; or one transformer's folder, which replaces it.
        scales: a factor for each folder; by default 1.

    Raises:
        ParetuneError: the folders are of another model, or of both kinds.
    """
    if not folders:
        return
    kinds = {whole_weights(folder) for folder in folders}
    if kinds == {None}:
        fold(transformer, load_delta(folders, scales))
        return
    parameters = {**dict(transformer.named_parameters()), **dict(transformer.named_buffers())}
    if kinds == {MODEL} and len(folders) == 1 and not [scale for scale in scales if scale != 1]:
        file = open_tensors(folders[0] / MODEL)
        _assign(parameters, ((name, file.read_finite(name)) for name in file.entries), folders[0], add=False)
        return
    if len(kinds) > 1 or MODEL in kinds:
        told = ", ".join(map(str, folders))
        raise ParetuneError(f"these folders cannot be summed, for they are of different kinds: {told}")
    _assign(parameters, summed(folders, scales), folders[0], add=True)


@contextmanager
def changed(transformer: nn.Module, folders: Sequence[Path], scales: Sequence[float]) -> Iterator[None]:
    """`add_changes` of whole weights within a block; afterwards the weights are bit-identical to before."""
    kept = {name: tensor.detach().clone() for name, tensor in transformer.state_dict().items()}
    try:
        add_changes(transformer, folders, scales)
        yield
    finally:
        transformer.load_state_dict(kept)


@torch.no_grad()
def _assign(
    parameters: Mapping[str, torch.Tensor], tensors: Iterator[tuple[str, torch.Tensor]], folder: Path,
    add: bool,
) -> None:  # fmt: skip
    """Add tensors to the parameters of their names, or replace those, with one rounding."""
    for name, tensor in tensors:
        own = parameters.get(name)
        if own is None or own.shape != tensor.shape:
            raise ParetuneError(f"{folder} does not fit this model at {name}: it is for another model")
        value = tensor.to(own.device)
        own.copy_(cast("torch.Tensor", own.double() + value if add else value).to(own.dtype))
