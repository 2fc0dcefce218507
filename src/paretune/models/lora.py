"""LoRA on a transformer, through peft: attach, fold, read, swap and switch off.

A model may have two adapters: "policy" is the expert in training. "parents" holds the earlier rounds
unfolded, so that the original base can still be evaluated, which only a KL term to the base needs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft import LoraConfig as PeftLoraConfig
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..adapters.transformers_names import own_weight
from ..config import LoraConfig
from ..ops.lowrank import LowRank
from ..types import ParetuneError

POLICY, PARENTS = "policy", "parents"


def attach_policy(
    transformer: nn.Module, config: LoraConfig, targets: Sequence[str], seed: int
) -> dict[str, nn.Parameter]:
    """Add a new expert, whose change is zero at first.

    Args:
        transformer: the model, which is frozen.
        config: rank, alpha and initialisation.
        targets: the endings of the names of the modules that get adapters.
        seed: of the initialisation.

    Returns:
        The expert's float32 parameters, by name.
    """
    check_targets(transformer, targets)
    transformer.requires_grad_(False)
    with torch.random.fork_rng(devices=[]), _without_warnings():
        torch.manual_seed(seed)
        _mixed_in(transformer).add_adapter(
            PeftLoraConfig(
                r=config.rank,
                lora_alpha=cast(int, config.alpha),  # peft divides it by the rank, so a float works as well
                init_lora_weights="gaussian" if config.init == "gaussian" else True,
                target_modules=list(targets),
            ),
            adapter_name=POLICY,
        )
    activate(transformer, policy=True)
    parameters = policy_parameters(transformer)
    for parameter in parameters.values():
        parameter.data = parameter.data.float()  # adapters train in float32 for any dtype of the base
    return parameters


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hide peft's warnings about a second adapter, and about merging into a quantised base."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        warnings.filterwarnings("ignore", message="TorchaoLoraLinear was instantiated without")
        yield


def check_targets(model: nn.Module, targets: Sequence[str]) -> None:
    """Raise ParetuneError if no module's name ends in one of the targets, which is how peft matches them."""
    names = [name for name, _ in model.named_modules()]
    if not any(name == target or name.endswith(f".{target}") for target in targets for name in names):
        ends = dict.fromkeys(
            name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)
        )
        raise ParetuneError(
            f"lora.targets: this model has no module {', '.join(targets)}; name some of its own: "
            f"{', '.join(ends) or 'it has no linear modules'}"
        )


def policy_parameters(transformer: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the adapter in training, in the order of the modules."""
    return {n: p for n, p in transformer.named_parameters() if f".{POLICY}." in n}


def attach_parents(
    transformer: nn.Module, deltas: Mapping[str, LowRank], name: str = PARENTS,
    dtype: torch.dtype | None = None,
) -> None:  # fmt: skip
    """Add changes as one adapter instead of folding them: the earlier rounds, or what `name` stands for.

    dtype: of its factors; by default that of the model.
    """
    ranks = {module: delta.rank for module, delta in deltas.items()}
    # peft matches the ends of names; the anchors make each pattern match one module only.
    patterns = {f"^{module}$": rank for module, rank in ranks.items()}
    with _without_warnings():
        _mixed_in(transformer).add_adapter(
            PeftLoraConfig(
                r=max(ranks.values()),
                lora_alpha=max(ranks.values()),
                target_modules=list(ranks),
                rank_pattern=patterns,
                alpha_pattern=patterns,  # alpha = rank gives scale 1: the factors hold the whole change
            ),
            adapter_name=name,
        )
    with torch.no_grad():
        for module, delta in deltas.items():
            layer: Any = transformer.get_submodule(module)
            for factor, values in ((layer.lora_A[name], delta.A), (layer.lora_B[name], delta.B)):
                factor.to(dtype=dtype).weight.copy_(values)


def activate(transformer: nn.Module, policy: bool, parents: bool = True) -> None:
    """Choose which of the model's adapters take part in its forward pass."""
    model = _mixed_in(transformer)
    wanted = [
        name for name, on in ((PARENTS, parents), (POLICY, policy)) if on and name in model.peft_config
    ]
    if not wanted:
        model.disable_adapters()
        return
    model.enable_adapters()
    model.set_adapter(wanted)
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad_(f".{POLICY}." in name)


@contextmanager
def only(transformer: nn.Module, policy: bool, parents: bool = True) -> Iterator[None]:
    """`activate` within a block; afterwards all adapters are active again."""
    activate(transformer, policy, parents)
    try:
        yield
    finally:
        activate(transformer, policy=True)


def switch(transformer: nn.Module, name: str | None) -> None:
    """Let one adapter alone take part in the forward pass; with None it is the plain model."""
    model = _mixed_in(transformer)
    if name is None:
        model.disable_adapters()
        return
    model.enable_adapters()
    model.set_adapter(name)
    for key, parameter in transformer.named_parameters():
        parameter.requires_grad_(f".{POLICY}." in key)


@contextmanager
def alone(transformer: nn.Module, name: str | None) -> Iterator[None]:
    """`switch` within a block; afterwards the adapter in training is alone again."""
    switch(transformer, name)
    try:
        yield
    finally:
        switch(transformer, POLICY)


def fold(transformer: nn.Module, deltas: Mapping[str, LowRank]) -> None:
    """Add low-rank changes to the weights of the named modules, in place, in float32 with one rounding.

    Raises ParetuneError for a change of another shape or of a missing module, which is for another model.
    """
    check_changes(transformer, deltas)
    head = getattr(transformer, "get_output_embeddings", lambda: None)()
    with torch.no_grad():
        for name, delta in deltas.items():
            module = _target(transformer, name)
            weight = cast(torch.Tensor, module.weight)
            if module is head or isinstance(module, nn.Embedding):
                # Tied weights do not change, as with peft's adapter.
                weight = own_weight(transformer, module)
            change = delta.dense().to(weight.device)
            if isinstance(module, Conv1D | nn.Embedding):  # both keep their weights transposed
                change = change.T
            weight.copy_((weight.float() + change.reshape(weight.shape)).to(weight.dtype))


def check_changes(transformer: nn.Module, deltas: Mapping[str, LowRank]) -> None:
    """Raise ParetuneError for a change of another shape or of a missing module: it is for another model."""
    for name, delta in deltas.items():
        module = _target(transformer, name)
        weight, shape = cast(torch.Tensor, module.weight), tuple(delta.shape)
        if isinstance(module, Conv1D | nn.Embedding):  # both keep their weights transposed
            shape = shape[::-1]
        if shape != (weight.shape[0], weight[0].numel()):
            raise ParetuneError(
                f"the adapter's change of {name} is {shape}, the model's weight "
                f"{tuple(weight.shape)}: it is for another model"
            )


def _target(transformer: nn.Module, name: str) -> nn.Module:
    try:
        return transformer.get_submodule(name)
    except AttributeError as error:
        raise ParetuneError(
            f"the adapter changes {name}, which the model does not have: it is for another model"
        ) from error


@contextmanager
def folded(transformer: nn.Module, deltas: Mapping[str, LowRank]) -> Iterator[None]:
    """`fold` within a block; afterwards the weights are bit-identical to those before."""
    modules = {name: _target(transformer, name) for name in deltas}
    kept = {name: cast(torch.Tensor, module.weight).detach().clone() for name, module in modules.items()}
    fold(transformer, deltas)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, module in modules.items():
                cast(torch.Tensor, module.weight).copy_(kept[name])


def policy_deltas(
    transformer: nn.Module, values: Mapping[str, torch.Tensor]
) -> dict[str, LowRank]:
    """The expert as module -> low-rank change, with its scale folded into B.

    values: the values of the parameters, by name.
    """
    deltas: dict[str, LowRank] = {}
    for name, a in values.items():
        if ".lora_A." not in name:
            continue
        module = name.split(".lora_A.")[0]
        layer: Any = transformer.get_submodule(module)
        scale = layer.scaling[POLICY]
        b = values[name.replace(".lora_A.", ".lora_B.")]
        deltas[module] = LowRank(b.detach().cpu().float() * scale, a.detach().cpu().float())
    return deltas


def _mixed_in(transformer: nn.Module) -> Any:
    """The same model, untyped, because the type nn.Module does not have the mixed-in methods of peft."""
    return transformer


@contextmanager
def swapped(
    parameters: Mapping[str, nn.Parameter], values: Mapping[str, torch.Tensor]
) -> Iterator[None]:
    """Run a block with other values in the parameters, such as averaged ones; then restore the values."""
    kept = {name: p.data for name, p in parameters.items()}
    for name, p in parameters.items():
        p.data = values[name]
    try:
        yield
    finally:
        for name, p in parameters.items():
            p.data = kept[name]
