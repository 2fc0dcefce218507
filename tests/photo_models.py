"""Tiny random models for rewards of pictures, saved by the libraries that made the published ones."""

from __future__ import annotations

import json
import string
from pathlib import Path

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
