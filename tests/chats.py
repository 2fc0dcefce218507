"""Tiny chat models that serve pipelines as text encoders, with tokenizers of bytes and chat templates."""

from __future__ import annotations

from typing import Any

# As in Qwen3: without thinking, the answer begins with an empty thought.
QWEN3_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}{%- endif %}"
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


# As in Mistral-Small: messages are lists of parts.
MISTRAL_TEMPLATE = (
    "{{- bos_token }}{%- for message in messages %}"
    "{%- if message.role == 'system' %}[SYSTEM_PROMPT]{{ message.content[0].text }}[/SYSTEM_PROMPT]"
    "{%- else %}[INST]{%- for part in message.content %}{{ part.text }}{%- endfor %}[/INST]{%- endif %}"
    "{%- endfor %}"
)


def mistral_tokenizer() -> Any:
    """A byte tokenizer with Mistral's special tokens, which fills up on the left."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    chat = ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
    vocabulary = byte_vocabulary("<unk>", "<s>", "</s>", "<pad>", *chat)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", vocabulary["<s>"])])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=list(chat), padding_side="left", model_max_length=512,
    )  # fmt: skip
    tokenizer.chat_template = MISTRAL_TEMPLATE
    return tokenizer


def mistral3(tokenizer: Any, width: int, layers: int) -> Any:
    """A random Mistral3 for text and pictures."""
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    text = {
        "model_type": "mistral", "vocab_size": len(tokenizer), "hidden_size": width,
        "intermediate_size": width, "num_hidden_layers": layers, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "initializer_range": 0.2,
        "pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    vision = {
        "model_type": "pixtral", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1, "head_dim": 8, "image_size": 8, "patch_size": 4,
    }  # fmt: skip
    return Mistral3ForConditionalGeneration(
        Mistral3Config(text_config=text, vision_config=vision, image_token_id=tokenizer.encode("[IMG]")[-1])
    )
