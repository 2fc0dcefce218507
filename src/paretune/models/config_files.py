"""The JSON of a model's folder, read in one place: what is wrong with a file is one line that names it.

Light on purpose: a recipe is planned by these before any model's library is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..types import ParetuneError

# Whole numbers from 1 up that decide the sizes of samples and models; of blocks and layers there may be none.
# More than `MOST_BLOCKS` of those no published model has, and building them would never end.
SIZES = (
    "patch_size", "patch_size_t", "in_channels", "out_channels", "sample_size", "latent_channels",
    "num_attention_heads", "attention_head_dim", "spatial_compression_ratio", "temporal_compression_ratio",
    "hidden_size", "intermediate_size", "vocab_size", "max_position_embeddings", "num_key_value_heads",
    "norm_num_groups", "joint_attention_dim", "pooled_projection_dim", "text_embed_dim",
    "n_positions", "n_embd", "n_head", "d_model", "d_ff", "d_kv", "num_heads",
)  # fmt: skip
BLOCKS = ("num_layers", "num_single_layers", "num_refiner_layers", "num_hidden_layers", "n_layer",
          "layers_per_block")  # fmt: skip
FACTORS = ("scaling_factor", "shift_factor")
MOST_BLOCKS = 1000
MOST = 2**31


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object of a file. Raises ParetuneError, one line that names the file, for anything else."""
    try:
        read: Any = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ParetuneError(f"model.path: {path} is damaged: it is not UTF-8") from error
    except RecursionError as error:
        raise ParetuneError(f"model.path: {path} is damaged: its brackets are too deep") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ParetuneError(f"model.path: {path} is damaged: {reason}") from error
    if not isinstance(read, dict):
        raise ParetuneError(f"model.path: {path} is damaged: it holds no JSON object in braces")
    return read


def read_model_config(path: Path) -> dict[str, Any]:
    """The config.json of a model, its sizes checked."""
    config = read_config(path)
    check_sizes(config, path)
    return config


def check_sizes(config: Mapping[str, Any], path: Path) -> None:
    """Raise ParetuneError where a size is no whole number that a model can have, or a factor no number."""
    for key, value in config.items():
        told = _wrong(key, value)
        if told:
            shown = repr(value)
            shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
            raise ParetuneError(f"model.path: {path} is damaged: {key} is {shown}, and {told}")


def _wrong(key: str, value: Any) -> str:
    """What a value should be; "" where it is right, or where nothing is known of its key."""
    if value is None:
        return ""
    if key == "architectures":
        good = isinstance(value, list) and all(isinstance(one, str) for one in value)
        return "" if good else "must be a list of names"
    if key in ("_class_name", "model_type"):
        return "" if isinstance(value, str) else "must be a name"
    if key in SIZES or key in BLOCKS:
        # Some models have a size for each side or block.
        for one in value if isinstance(value, list) and value else [value]:
            if isinstance(one, bool) or not isinstance(one, int) or not int(key in SIZES) <= one < MOST:
                return f"must be a whole number from {int(key in SIZES)} up"
            if key in BLOCKS and one > MOST_BLOCKS:
                return f"no model has more than {MOST_BLOCKS}"
    if key == "block_out_channels":
        good = isinstance(value, list) and value and all(type(one) is int and one > 0 for one in value)
        return "" if good else "must be a list of whole numbers from 1 up"
    if key in FACTORS:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        good = number and (value != 0 or key == "shift_factor")
        return "" if good else "must be a finite number other than 0"
    return ""
