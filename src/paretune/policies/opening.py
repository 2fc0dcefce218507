"""The policy of a recipe's model: the one place that knows which families there are."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..config import ModelConfig
from .flow import FlowPolicy
from .folders import check_model

# Imported when it is opened: no family loads another's libraries.
POLICIES = {
    "sd3": "sd3:SD3Policy",
    "flux": "flux:FluxPolicy",
    "hunyuan_video": "hunyuan_video:HunyuanVideoPolicy",
}


def open_policy(config: ModelConfig, device: str = "cpu") -> FlowPolicy:
    """Load the model a recipe names. Raises ParetuneError, one line, when it cannot be loaded."""
    family = check_model(config.path) or config.family
    module, name = POLICIES[family].split(":")
    policy: Any = getattr(import_module(f".{module}", __package__), name)
    return policy(config, device)
