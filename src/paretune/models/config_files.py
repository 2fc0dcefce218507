"""Checked reading of the JSON files in a model's folder. Every fault is one line that names the file.

This module loads no model library, so that a recipe can be planned quickly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..types import ParetuneError

# Whole numbers from 1 up that decide the sizes of samples and models. No published model has more blocks than
# `MOST_BLOCKS`, and building many more would not end.
SIZES = (
    "patch_size", "patch_size_t", "in_channels", "out_channels", "sample_size", "latent_channels",
    "num_attention_heads", "attention_head_dim", "spatial_compression_ratio", "temporal_compression_ratio",
    "hidden_size", "intermediate_size", "vocab_size", "max_position_embeddings", "num_key_value_heads",
    "norm_num_groups", "joint_attention_dim", "pooled_projection_dim", "text_embed_dim",
    "n_positions", "n_embd", "n_head", "d_model", "d_ff", "d_kv", "num_heads",
    "text_dim", "freq_dim", "ffn_dim", "z_dim", "base_dim", "scale_factor_spatial", "scale_factor_temporal",
)  # fmt: skip
BLOCKS = (
    "layers_per_block", "num_layers", "num_single_layers", "num_refiner_layers", "num_hidden_layers",
    "n_layer",
)  # fmt: skip
FACTORS = ("scaling_factor", "shift_factor")
MOST_BLOCKS = 1000
MOST = 2**31


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object of a file. Raises ParetuneError, one line that names the file, for anything else."""
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ParetuneError(f"model.path: {path} is damaged: it is not UTF-8") from error
    except RecursionError as error:
        raise ParetuneError(f"model.path: {path} is damaged: its brackets are too deep") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ParetuneError(f"model.path: {path} is damaged: {reason}") from error
    if not isinstance(config, dict):
        raise ParetuneError(f"model.path: {path} is damaged: it holds no JSON object")
    return config


def read_model_config(path: Path) -> dict[str, Any]:
    """The config.json of a model, with checked sizes."""
    config = read_config(path)
    check_sizes(config, path)
    return config


def check_sizes(config: Mapping[str, Any], path: Path) -> None:
    """Raise ParetuneError for a size that is not a possible whole number, or a factor that is not finite."""
    for key, value in config.items():
        requirement = _requirement(key, value)
        if requirement:
            shown = repr(value)
            shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
            raise ParetuneError(f"model.path: {path} is damaged: {key} is {shown}, and {requirement}")


def _requirement(key: str, value: Any) -> str:
    """What a wrong value should be; "" for a valid value or a key that is not checked."""
    if value is None:
        return ""
    if key == "architectures":
        good = isinstance(value, list) and all(isinstance(one, str) for one in value)
        return "" if good else "must be a list of names"
    if key in ("_class_name", "model_type"):
        return "" if isinstance(value, str) else "must be a name"
    if key in SIZES or key in BLOCKS:
        # Some models have one size per side or per block.
        for size in value if isinstance(value, list) and value else [value]:
            if isinstance(size, bool) or not isinstance(size, int) or not int(key in SIZES) <= size < MOST:
                return f"must be a whole number from {int(key in SIZES)} up"
            if key in BLOCKS and size > MOST_BLOCKS:
                return f"no model has more than {MOST_BLOCKS}"
    if key == "block_out_channels":
        good = isinstance(value, list) and value and all(type(one) is int and one > 0 for one in value)
        return "" if good else "must be a list of whole numbers from 1 up"
    if key in FACTORS:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        good = number and (value != 0 or key == "shift_factor")
        return "" if good else "must be a finite number other than 0"
    return ""
