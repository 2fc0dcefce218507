"""Tiny random models for rewards of pictures, saved by the libraries that made the published ones."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel

MEAN, STD = [0.5, 0.4, 0.3], [0.3, 0.25, 0.2]


def photographs(count: int, height: int = 40, width: int = 52) -> torch.Tensor:
    """Noise in [0, 1], the same every time."""
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def make_clip(folder: Path, seed: int = 1, width: int = 8) -> str:
    """A random CLIP of 32 pixels and features of `width`, with a tokenizer of single letters."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [*string.ascii_lowercase, *(f"{c}</w>" for c in string.ascii_lowercase)]
    vocabulary = {t: i for i, t in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "pad_token": "<|endoftext|>"})
    )
    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **tiny, "vocab_size": len(vocabulary), "max_position_embeddings": 12,
            "bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1,
        },
        vision_config={**tiny, "image_size": 32, "patch_size": 16},
        projection_dim=width,
    )  # fmt: skip
    torch.manual_seed(seed)
    CLIPModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    return str(folder)


SPECIAL = (
    "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|image_pad|>",
)  # fmt: skip


def qwen_parts(words: Sequence[str], folder: Path) -> Any:
    """The sizes of a tiny Qwen2-VL, and in `folder` its tokenizer of whole words. Returns keywords."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<unk>", "<|endoftext|>", *sorted(set(words))])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    settings = {"min_pixels": 56 * 56, "max_pixels": 112 * 112}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    token = tokenizer.convert_tokens_to_ids
    return {
        "text_config": {
            "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
            "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1,
        },
        "video_token_id": token("<|video_pad|>"), "image_token_id": token("<|image_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"), "vision_end_token_id": token("<|vision_end|>"),
    }  # fmt: skip


def make_qwen(folder: Path, words: Sequence[str]) -> str:
    """A random Qwen2.5-VL of one layer for rewards that ask questions."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    parts = qwen_parts(words, folder)
    vision = {"depth": 1, "hidden_size": 16, "out_hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
              "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 28,
              "fullatt_block_indexes": [0]}  # fmt: skip
    torch.manual_seed(2)
    network = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(vision_config=vision, **parts))
    network.save_pretrained(folder)
    return str(folder)


def make_qwen2_base(folder: Path, words: Sequence[str]) -> Any:
    """The configuration and tokenizer of a Qwen2-VL of one layer, without weights. Returns the former."""
    from transformers import Qwen2VLConfig

    folder.mkdir(parents=True, exist_ok=True)
    parts = qwen_parts(words, folder)
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 1,
              "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}  # fmt: skip
    config = Qwen2VLConfig(vision_config=vision, **parts)
    config.save_pretrained(folder)
    return config
