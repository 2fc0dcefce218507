"""Qwen-Image on a tiny random pipeline with all its parts."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from paretune.models.qwen_image.family import WRITTEN

from . import FamilyCase

CHAT = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def tokenizer() -> Any:
    """Qwen's tokenizer: a word of the template is one token, as in the true one; else a byte is."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    text = re.sub(r"<\|\w+\|>|[,:]|\{\}", "\n", WRITTEN).replace(" ", "Ġ")
    words = sorted({word for line in text.split("\n") for word in re.findall("Ġ?[A-Za-z]+", line)})
    # Beginnings of words are merged first, so that no merge of one word cuts another.
    merges = list(dict.fromkeys((word[:i], word[i]) for word in reversed(words) for i in range(1, len(word))))
    pieces = [*sorted(ByteLevel.alphabet()), *("".join(pair) for pair in merges), *CHAT]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    made = Qwen2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=4096)  # type: ignore[arg-type]
    made.add_special_tokens({"additional_special_tokens": list(CHAT[1:])})
    return made


def text_encoder(size: int, width: int) -> Any:
    """A random Qwen2.5-VL for text and pictures."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": size, "hidden_size": width, "intermediate_size": width, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.2,
        "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default"},
        "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 1, "out_hidden_size": width,
        "patch_size": 16, "window_size": 64, "fullatt_block_indexes": [0],
    }  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def make(folder: Path) -> Path:
    """A whole random QwenImagePipeline folder: a VAE that halves, and two blocks."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )

    torch.manual_seed(0)
    own = tokenizer()
    pipe = QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            in_channels=16, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=16, axes_dims_rope=(2, 2, 4),
        ),
        vae=AutoencoderKLQwenImage(
            base_dim=4, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False],
            latents_mean=[-0.75, 0.1, -0.2, 0.4], latents_std=[2.8, 1.4, 2.3, 2.6],
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192,
            shift_terminal=0.02,
        ),
        text_encoder=text_encoder(len(own), 16),
        tokenizer=own,
    )  # fmt: skip
    pipe.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def theirs(
    policy: Any, prompts: Sequence[str], noise: torch.Tensor, steps: int, guidance: float
) -> torch.Tensor:
    """What the pipeline draws."""
    return policy.pipe(
        list(prompts), " ", guidance, policy.shape.height, policy.shape.width, steps, latents=noise,
        output_type="pt", max_sequence_length=64,
    ).images  # fmt: skip


CASE = FamilyCase(
    name="qwen_image",
    make=make,
    model={"height": 16, "width": 16, "guidance_scale": 4.0, "options": {"max_sequence_length": 64}},
    recipe="qwen-image",
    theirs=theirs,
    guidances=(1.0, 4.0),
    tokens=("text_encoder",),
)
