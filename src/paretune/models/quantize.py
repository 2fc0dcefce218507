"""The frozen base in eight bits while an expert trains on it: about half of what it takes in bfloat16.

By torchao: int8 weights with a scale for each output, and products in the activations' own dtype. Adapters,
gradients and everything outside the blocks stay as they are. What an expert leaves is its adapter alone;
models are measured, folded and exported whole.
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
    """Whether a recipe asks for it (`model.options.quantize`)."""
    return model.options.get("quantize", "none") != "none"


def open_to_train(model: ModelConfig, device: str) -> FlowPolicy:
    """`open_flow_policy`. A base to be quantised waits on the CPU: the device never holds it whole."""
    policy = open_flow_policy(model, "cpu" if is_quantized(model) else device)
    policy.device = torch.device(device)
    return policy


def quantize(policy: Policy) -> None:
    """Turn the linear layers of the transformer's blocks into int8, one after another on the policy's device.

    Raises ParetuneError, one line, without torchao.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise ParetuneError(
            "model.options.quantize needs torchao: pip install 'paretune[quantize]'"
        ) from error
    quantize_(policy.transformer, Int8WeightOnlyConfig(), in_a_block, device=policy.device)


def in_a_block(module: nn.Module, name: str) -> bool:
    """Whether a module is a linear layer of one of a numbered row of blocks, where nearly all weights are.

    What stands before and after the blocks is small, and errors there reach every sample.
    """
    return isinstance(module, nn.Linear) and any(part.isdigit() for part in name.split("."))
