"""The policy of a recipe's model: the one place that knows which families there are."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..config import ModelConfig
from .folders import family_of
from .memory import memory_errors, to_load

# Imported when it is opened: no family loads another's libraries.
POLICIES = {
    "sd3": "sd3:SD3Policy",
    "flux": "flux:FluxPolicy",
    "hunyuan_video": "hunyuan_video:HunyuanVideoPolicy",
    "causal_lm": "causal_lm:CausalLMPolicy",
}


def open_policy(config: ModelConfig, device: str = "cpu") -> Any:
    """Load the model a recipe names: a `flow.FlowPolicy`, or a `causal_lm.CausalLMPolicy`.

    Raises ParetuneError, one line, when it cannot be loaded.
    """
    module, name = POLICIES[family_of(config.path)].split(":")
    policy: Any = getattr(import_module(f".{module}", __package__), name)
    from .checked import loading  # with torch: opening is imported where nothing is opened

    with memory_errors(to_load, config), loading(f"model.path: {config.path} cannot be opened"):
        return policy(config, device)
