"""Quantization of the frozen base to eight bits while an expert trains: about half the memory of bfloat16.

torchao gives int8 weights with a scale for each output, and products in the dtype of the activations.
Adapters, gradients and all parts outside the blocks keep their dtype. Training saves the adapter only; models
are evaluated, folded and exported without quantization.
"""

from __future__ import annotations

import torch
from torch import nn

from ..config import ModelConfig
from ..types import ParetuneError
from .flow import FlowPolicy
from .loading import open_flow_policy
from .policy import Policy


def is_quantized(model: ModelConfig) -> bool:
    """Whether a recipe quantizes its base (`model.options.quantize`)."""
    return model.options.get("quantize", "none") != "none"


def open_to_train(model: ModelConfig, device: str, divided: bool = False) -> FlowPolicy:
    """`open_flow_policy`. A base to be quantized stays on the CPU: the device never holds all of it.

    divided: whether that is so too, because the base is divided over several devices.
    """
    policy = open_flow_policy(model, "cpu" if divided or is_quantized(model) else device)
    policy.device = torch.device(device)
    return policy


def quantize(policy: Policy) -> None:
    """Quantize the linear layers of the transformer's blocks to int8, one by one on the policy's device.

    Raises ParetuneError if torchao is not installed.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise ParetuneError(
            "model.options.quantize needs torchao: pip install 'paretune[quantize]'"
        ) from error
    quantize_(policy.transformer, Int8WeightOnlyConfig(), in_a_block, device=policy.device)


def in_a_block(module: nn.Module, name: str) -> bool:
    """Whether a module is a linear layer of a numbered block, which together hold nearly all weights.

    The layers before and after the blocks are small, and their errors would affect every sample.
    """
    # A number at the end counts the steps of a small nn.Sequential outside the blocks, such as an embedder.
    return isinstance(module, nn.Linear) and any(part.isdigit() for part in name.split(".")[:-1])
