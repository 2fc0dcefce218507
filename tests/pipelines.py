"""Tiny random folders of Stable Diffusion 3, FLUX and HunyuanVideo, saved by diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

PIECES = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)] + [
    (c, -3.0) for c in "abcdefghijklmnopqrstuvwxyz"
]


def make_sd3(folder: Path, t5: bool) -> Path:
    """A whole random Stable Diffusion 3 folder, saved by diffusers: 16x16 pixels, one joint block."""
    from diffusers import SD3Transformer2DModel
    from tools.worlds.pictures.model import TEXT_WIDTH, assemble, build_text_encoder
    from tools.worlds.pictures.tokenizer import build_tokenizer
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer(folder / "vocabulary")
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=4, in_channels=3, out_channels=3, num_layers=2,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=16, pooled_projection_dim=2 * TEXT_WIDTH, pos_embed_max_size=4,
        qk_norm="rms_norm",
    )  # fmt: skip
    pipe = assemble(transformer, (build_text_encoder(tokenizer), build_text_encoder(tokenizer)), tokenizer)
    if t5:
        pipe.register_modules(
            tokenizer_3=T5Tokenizer(vocab=PIECES, extra_ids=0),
            text_encoder_3=T5EncoderModel(
                T5Config(vocab_size=len(PIECES), d_model=2 * TEXT_WIDTH, d_ff=32, d_kv=8,
                         num_layers=1, num_heads=2)
            ),
        )  # fmt: skip
    pipe.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def make_flux(folder: Path, guidance: bool = True, **scheduler: Any) -> Path:
    """A whole random FluxPipeline folder: 16x16 pixels, a VAE that halves, one block of each kind.

    guidance: whether the transformer has an input for it.
    """
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        FluxPipeline,
        FluxTransformer2DModel,
    )
    from tools.worlds.pictures.tokenizer import build_tokenizer
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel, T5Tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer(folder / "vocabulary")
    end = len(tokenizer) - 1
    pipe = FluxPipeline(
        transformer=FluxTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32,
            guidance_embeds=guidance, axes_dims_rope=(2, 2, 4),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(**{"use_dynamic_shifting": True, **scheduler}),
        vae=AutoencoderKL(
            block_out_channels=(4, 4), down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=1,
            scaling_factor=0.4, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(vocab_size=end + 1, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                           num_attention_heads=2, max_position_embeddings=16, bos_token_id=end - 1,
                           eos_token_id=end, pad_token_id=end)
        ),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=len(PIECES), d_model=32, d_ff=32, d_kv=8, num_layers=1, num_heads=2)
        ),
        tokenizer_2=T5Tokenizer(vocab=PIECES, extra_ids=0),
    )  # fmt: skip
    pipe.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def make_hunyuan(folder: Path) -> Path:
    """A whole random HunyuanVideoPipeline folder: a VAE that compresses 4-fold in time, 2-fold in space."""
    from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
    from tools.worlds.clips.model import CLIP_TOKENS, TEXT_WIDTH, assemble, build_llama
    from tools.worlds.clips.tokenizer import build_clip_tokenizer, build_llama_tokenizer
    from tools.worlds.pictures.model import build_pooling_clip

    torch.manual_seed(0)
    llama_tokenizer, clip_tokenizer = build_llama_tokenizer(), build_clip_tokenizer(folder / "vocabulary")
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, patch_size=2, patch_size_t=1,
        text_embed_dim=TEXT_WIDTH, pooled_projection_dim=TEXT_WIDTH, rope_axes_dim=(2, 2, 4),
    )  # fmt: skip
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, down_block_types=("HunyuanVideoDownBlock3D",) * 3,
        up_block_types=("HunyuanVideoUpBlock3D",) * 3, block_out_channels=(4, 4, 4), layers_per_block=1,
        norm_num_groups=1, spatial_compression_ratio=2, mid_block_add_attention=True,
    )  # fmt: skip
    llama, clip = build_llama(llama_tokenizer), build_pooling_clip(clip_tokenizer, CLIP_TOKENS)
    pipe = assemble(transformer, llama, llama_tokenizer, clip, clip_tokenizer, vae)
    pipe.save_pretrained(folder / "pipeline")
    return folder / "pipeline"
