"""The adapter that TRL trains on a language model: its peft configuration, and how its changes are read."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch

from ..adapters.keys import PEFT_PREFIX
from ..config import LoraConfig
from ..ops.lowrank import LowRank


def lora_config(config: LoraConfig, targets: Sequence[str]) -> Any:
    """The peft configuration of a new adapter, which TRL adds to the model."""
    from peft import LoraConfig as PeftLoraConfig

    return PeftLoraConfig(
        r=config.rank, lora_alpha=cast(int, config.alpha), lora_dropout=0.0, task_type="CAUSAL_LM",
        init_lora_weights="gaussian" if config.init == "gaussian" else True,
        target_modules=list(config.targets or targets),
    )  # fmt: skip


def adapter_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """The trained parameters of a peft model, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def adapter_deltas(model: Any, values: Mapping[str, torch.Tensor]) -> dict[str, LowRank]:
    """The adapter of a peft model as module -> low-rank change, with its scale folded into B.

    values: the values of the parameters, by name.
    """
    deltas: dict[str, LowRank] = {}
    for name, a in values.items():
        module, mark, rest = name.partition(".lora_A.")
        if not mark:
            continue
        adapter = rest.removesuffix(".weight")
        scale = model.get_submodule(module).scaling[adapter]
        b = values[f"{module}.lora_B.{rest}"]
        factors = LowRank(b.detach().cpu().float() * scale, a.detach().cpu().float())
        deltas[module.removeprefix(PEFT_PREFIX)] = factors
    return deltas
