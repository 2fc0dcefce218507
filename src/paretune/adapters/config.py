"""The configuration of an adapter, from peft or from a diffusers file's header: read, checked, resolved."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..types import ParetuneError
from .patterns import PLACE, first_matches

DEFAULT = 8  # peft's default of r and lora_alpha
_FLAGS = ("use_rslora", "fan_in_fan_out", "ensure_weight_tying")
# Settings of peft's LoraConfig with which ΔW is not s B A -> the reason, and what the user can do.
_UNMERGEABLE = {
    "use_dora": "DoRA's scale depends on the base weights; fold it into the base with peft",
    "lora_bias": "it trains biases beside the factors; train it with lora_bias off",
    "use_qalora": "QALoRA pools its inputs; fold it into the base with peft",
    "use_bdlora": "BD-LoRA's factors are block-diagonal; fold it into the base with peft",
    "alora_invocation_tokens": "aLoRA acts after certain tokens only; use it as it is",
    "layer_replication": "it replicates layers; fold it into the base with peft",
    "target_parameters": "it targets bare parameters; fold it into the base with peft",
    "trainable_token_indices": "it trains token rows beside the factors; train without them",
    "arrow_config": "Arrow routes between adapters; use it as it is",
    "kasa_config": "KaSA changes the base weights; fold it into the base with peft",
    "monteclora_config": "MonteCLoRA samples its factors; fold it into the base with peft",
}
_MUTATED = ("pissa", "olora", "corda", "loftq", "lora_ga")


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file. Raises ParetuneError for any other content."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ParetuneError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(config, dict):
        raise ParetuneError(f"{path} is not an adapter configuration")
    return config


def check_config(path: Path, config: Mapping[str, Any]) -> None:
    """Raise ParetuneError for an adapter that is not plain LoRA, and for settings with wrong values."""
    _check_numbers(path, config)
    kind = str(config.get("peft_type", "LORA")).upper()
    if kind != "LORA":
        raise ParetuneError(
            f"{path} is a {kind} adapter, not LoRA; convert it to LoRA, or fold it with peft"
        )
    if not isinstance(config.get("auto_mapping") or {}, dict):
        raise ParetuneError(f"{path}: its auto_mapping is no mapping")
    for key, reason in _UNMERGEABLE.items():
        if config.get(key):
            raise ParetuneError(f"{path} cannot be merged ({key}): {reason}")
    if config.get("bias", "none") != "none":
        raise ParetuneError(f"{path} cannot be merged: it trains biases (bias={config['bias']})")
    init = str(config.get("init_lora_weights", "")).lower()
    if init.startswith(_MUTATED):
        raise ParetuneError(
            f"{path} cannot be merged: its {init} start changed the base weights; save it with "
            "peft's path_initial_model_for_weight_conversion"
        )


def _check_numbers(path: Path, config: Mapping[str, Any]) -> None:
    """Check the settings from which the scale is computed."""
    named = [("r", "r", config.get("r", DEFAULT)), ("lora_alpha", "alpha", config.get("lora_alpha", DEFAULT))]
    for name, kind in (("rank_pattern", "r"), ("alpha_pattern", "alpha")):
        patterns = config.get(name) or {}
        if not isinstance(patterns, dict):
            raise ParetuneError(f"{path}: its {name} is no mapping")
        named += [(f"{name} of {key}", kind, value) for key, value in patterns.items()]
    for name, kind, value in named:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind == "r" and not (number and 1 <= value <= sys.maxsize and value == int(value)):
            raise ParetuneError(
                f"{path}: its ranks are not all whole numbers above zero: {name} is {_short(value)}"
            )
        if not (number and 0 <= value <= sys.float_info.max):
            raise ParetuneError(
                f"{path}: its alphas are not all numbers of zero or more: {name} is {_short(value)}"
            )
    for name in _FLAGS:
        if not isinstance(config.get(name), bool | None):
            raise ParetuneError(f"{path}: its {name} is {_short(config[name])}, not true or false")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + ".."


def ranks_and_alphas(
    path: Path, config: Mapping[str, Any], modules: Sequence[str]
) -> dict[str, tuple[int, float]]:
    """The rank and alpha of each module by a checked configuration, with patterns matched as peft does.

    Args:
        path: the adapter, for messages.
        config: its checked configuration.
        modules: the names of its modules.
    """
    matched: dict[str, dict[str, str]] = {}
    for name in ("rank_pattern", "alpha_pattern"):
        try:
            matched[name] = first_matches(list(config.get(name) or {}), modules)
        except ValueError as error:
            raise ParetuneError(f"{path}: {str(error).replace(PLACE, f'in its {name}')}") from error

    def value(name: str, module: str, default: Any) -> Any:
        key = matched[name].get(module)
        return default if key is None else config[name][key]

    return {
        module: (
            int(value("rank_pattern", module, config.get("r", DEFAULT))),
            float(value("alpha_pattern", module, config.get("lora_alpha", DEFAULT))),
        )
        for module in modules
    }


def scale_of(rank: int, alpha: float, rslora: bool) -> float:
    """s = alpha/r, or alpha/√r for rsLoRA."""
    return alpha / (math.sqrt(rank) if rslora else rank)
