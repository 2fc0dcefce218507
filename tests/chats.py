"""Tiny chat models that serve pipelines as text encoders, with tokenizers of bytes and chat templates."""

from __future__ import annotations

from typing import Any

# As in Qwen3: without thinking, the answer begins with an empty thought.
QWEN3_TEMPLATE = (
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n"
    "{%- if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{%- endif %}"
    "{%- endif %}"
)


def byte_vocabulary(*special: str) -> dict[str, int]:
    """Every byte as a byte-level tokenizer writes it, then the special tokens."""
    from tokenizers.pre_tokenizers import ByteLevel

    return {token: i for i, token in enumerate([*sorted(ByteLevel.alphabet()), *special])}


def qwen3_tokenizer() -> Any:
    """Qwen's tokenizer without merges: one token a byte, and the special tokens of a chat."""
    from transformers import Qwen2Tokenizer

    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
    tokenizer = Qwen2Tokenizer(vocab=byte_vocabulary(*special), merges=[], model_max_length=512)
    tokenizer.add_special_tokens({"additional_special_tokens": list(special[1:])})
    tokenizer.chat_template = QWEN3_TEMPLATE
    return tokenizer


def qwen3(tokenizer: Any, width: int, layers: int, **changes: Any) -> Any:
    """A random Qwen3."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = {
        "vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": width,
        "num_hidden_layers": layers, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "tie_word_embeddings": True, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
        "eos_token_id": tokenizer.pad_token_id, "initializer_range": 0.2,
    }  # fmt: skip
    return Qwen3ForCausalLM(Qwen3Config(**{**config, **changes}))
