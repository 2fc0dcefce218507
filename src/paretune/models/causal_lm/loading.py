"""Loading of a causal language model with its tokenizer."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from types import SimpleNamespace
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
    from transformers import AutoModelForCausalLM

    check_model(config.path)
    quiet()
    tokenizer = _load_tokenizer(config)
    what = f"model.path: {config.path}"
    dtype = getattr(torch, config.dtype)
    model = load_checked(AutoModelForCausalLM, resolve_path(config.path), what, dtype=dtype)
    _pad(tokenizer, config)
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        raise ParetuneError(
            f"model.path: the tokenizer of {config.path} has {len(tokenizer)} tokens but the model only "
            f"{model.get_input_embeddings().weight.shape[0]}: they do not belong together"
        )
    tokenizer.padding_side = "left"
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def load_text_facts(config: ModelConfig) -> tuple[Any, Any]:
    """A model's configurations, as `config` and `generation_config` of an object, and its tokenizer.

    Raises ParetuneError as `load_text_model` does; no weight is read.
    """
    from transformers import AutoConfig, GenerationConfig

    check_model(config.path)
    quiet()
    tokenizer = _load_tokenizer(config)
    _pad(tokenizer, config)
    place, what = resolve_path(config.path), f"model.path: {config.path}"
    with loading(f"{what} cannot be loaded"):
        facts = load(AutoConfig, place, what).get_text_config()
    try:
        generation = load(GenerationConfig, place, what)
    except OSError:  # it has none; then transformers takes the model's
        generation = GenerationConfig.from_model_config(facts)
    return SimpleNamespace(config=facts, generation_config=generation), tokenizer


def _load_tokenizer(config: ModelConfig) -> Any:
    from transformers import AutoTokenizer

    what = f"model.path: {config.path}"
    with loading(f"{what} cannot be loaded"):
        return load(AutoTokenizer, resolve_path(config.path), what)


def _pad(tokenizer: Any, config: ModelConfig) -> None:
    """Give a tokenizer without a padding token its end token for it."""
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ParetuneError(
                f"model.path: the tokenizer of {config.path} has neither a padding nor an end token; "
                "set pad_token in its tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
