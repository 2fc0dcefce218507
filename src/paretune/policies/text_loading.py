"""Load a causal language model with its tokenizer; what is wrong with a folder is one line."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError

from ..config import ModelConfig
from ..foreign import load
from ..types import ParetuneError
from .folders import check_model, quiet, resolve_path
from .memory import out_of_memory


def load_text_model(config: ModelConfig) -> tuple[Any, Any]:
    """Model and tokenizer, which has a padding token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    check_model(config.path)
    quiet()
    place = resolve_path(config.path)
    try:
        told, dtype = f"model.path: {config.path}", getattr(torch, config.dtype)
        tokenizer: Any = load(AutoTokenizer, place, told)
        model: Any = load(AutoModelForCausalLM, place, told, dtype=dtype, use_safetensors=True)
    except (
        OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError
    ) as error:  # fmt: skip
        if out_of_memory(error):  # its own line, by whoever opens the model
            raise
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise ParetuneError(f"model.path: {config.path} cannot be loaded: {reason}") from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ParetuneError(
                f"model.path: the tokenizer of {config.path} has neither a padding nor an end token; "
                "set pad_token in its tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        raise ParetuneError(
            f"model.path: the tokenizer of {config.path} knows {len(tokenizer)} tokens but the model only "
            f"{model.get_input_embeddings().weight.shape[0]}: they do not belong together"
        )
    tokenizer.padding_side = "left"
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer
