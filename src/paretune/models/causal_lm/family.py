"""The record of language models: any causal language model of transformers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from ...config import ModelConfig
from ..family import Family, Published
from ..options import Options, Positive, Temperature, read_options


class TextOptions(Options):
    """The options of a language model.

    template: "auto" (the tokenizer's chat template, if it has one), "chat", "plain", or a pattern with
    {prompt}. prompt_tokens: the length of a prompt that the estimate assumes.
    """

    template: str = "auto"
    max_tokens: Positive = 128
    temperature: Temperature = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    prompt_tokens: Positive = 64

    @field_validator("template")
    @classmethod
    def _known(cls, template: str) -> str:
        if template not in {"auto", "chat", "plain"} and "{prompt}" not in template:
            raise ValueError("give auto, chat, plain, or a text that holds {prompt}")
        return template


def _smaller(model: ModelConfig) -> list[str]:
    return ["model.options.max_tokens"] if read_options(TextOptions, model).max_tokens > 1 else []


def _published(
    billions: float, hidden: int, inner: int, layers: int, heads: int, key_heads: int, vocabulary: int,
    untuned: bool = True,
) -> Published:  # fmt: skip
    facts = {
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": key_heads, "vocab_size": vocabulary,
    }  # fmt: skip
    return Published({"transformer": billions}, facts, untuned=untuned)


# Reward models that recipes name -> their billions of parameters, which the estimate adds to the policy's.
REWARD_MODELS = {
    "Ray2333/gpt2-large-helpful-reward_model": 0.77,
    "Ray2333/gpt2-large-harmless-reward_model": 0.77,
}

FAMILY = Family(
    name="causal_lm",
    medium="texts",
    policy=f"{__package__}.policy:CausalLMPolicy",
    options=TextOptions,
    # GPT-2's class is older than the others and has another ending.
    architectures=("ForCausalLM", "LMHeadModel"),
    published={
        "smollm2": _published(0.135, 576, 1536, 30, 9, 3, 49152, untuned=False),
        "meta-llama/Llama-2-7b-hf": _published(6.74, 4096, 11008, 32, 32, 32, 32000),
        "meta-llama/Llama-2-13b-hf": _published(13.02, 5120, 13824, 40, 40, 40, 32000),
        "meta-llama/Llama-3.1-8B": _published(8.03, 4096, 14336, 32, 32, 8, 128256),
        "Qwen/Qwen2.5-7B": _published(7.62, 3584, 18944, 28, 28, 4, 152064),
    },
    cut_text=lambda model: 0,
    smaller=_smaller,
    draws_an_epoch_at_once=True,  # as TRL does
    quantizes=False,
    dtypes=("float32", "bfloat16"),  # a float16 base needs a loss scale, which TRL gives on a GPU alone
)
