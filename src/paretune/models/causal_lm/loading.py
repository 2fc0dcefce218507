"""Loading of a causal language model with its tokenizer."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from typing import Any

import torch

from ...config import ModelConfig
from ...foreign.loading import load
from ...foreign.silence import quiet
from ...types import ParetuneError
from ..checked import load_checked, loading
from ..detect import check_model, resolve_path


def load_text_model(config: ModelConfig) -> tuple[Any, Any]:
    """Load a model and its tokenizer, which then has a padding token. Raises ParetuneError if damaged."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    check_model(config.path)
    quiet()
    place = resolve_path(config.path)
    what = f"model.path: {config.path}"
    with loading(f"{what} cannot be loaded"):
        tokenizer: Any = load(AutoTokenizer, place, what)
    model = load_checked(AutoModelForCausalLM, place, what, dtype=getattr(torch, config.dtype))
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ParetuneError(
                f"model.path: the tokenizer of {config.path} has neither a padding nor an end token; "
                "set pad_token in its tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        raise ParetuneError(
            f"model.path: the tokenizer of {config.path} has {len(tokenizer)} tokens but the model only "
            f"{model.get_input_embeddings().weight.shape[0]}: they do not belong together"
        )
    tokenizer.padding_side = "left"
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer
