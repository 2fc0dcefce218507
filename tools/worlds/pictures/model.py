"""The tiny Stable Diffusion 3: the real classes of diffusers and transformers, 4 M parameters."""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from typing import Any, cast

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from paretune.worlds.pictures.render import SIZE

TEXT_WIDTH = 64
LATENT_SHIFT, LATENT_SCALE = 0.35, 1.6  # pixels in [-1, 1] -> latents of about unit variance


def build_transformer(layers: int = 6, heads: int = 4, head_dim: int = 32) -> SD3Transformer2DModel:
    """64 image tokens (patches of 4x4 pixels) and 16 text tokens; the last layer of a block starts at 0."""
    model = SD3Transformer2DModel(
        sample_size=SIZE,
        patch_size=4,
        in_channels=3,
        out_channels=3,
        num_layers=layers,
        attention_head_dim=head_dim,
        num_attention_heads=heads,
        joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=heads * head_dim,
        pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=SIZE // 4,
        qk_norm="rms_norm",
    )
    for name, parameter in model.named_parameters():
        if ("norm1" in name and "linear" in name) or "proj_out" in name or "norm_out.linear" in name:
            torch.nn.init.zeros_(parameter)  # adaLN-zero: every block starts as the identity
    return model


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """A CLIP text tower of three layers; Stable Diffusion 3 reads the last but one."""
    ends = tokenizer.convert_tokens_to_ids(["<|startoftext|>", "<|endoftext|>"])
    bos, eos = cast("list[int]", ends)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    return CLIPTextModelWithProjection(config)


def build_pooling_clip(tokenizer: CLIPTokenizer, positions: int) -> CLIPTextModel:
    """A CLIP text tower of two layers, for a pooled condition alone. positions: the tokens it takes."""
    bos, eos = (int(str(tokenizer.convert_tokens_to_ids(t))) for t in ("<|startoftext|>", "<|endoftext|>"))
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=positions,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    return CLIPTextModel(config)


def build_identity_vae() -> AutoencoderKL:
    """An AutoencoderKL whose latents are the pixels, by analytic weights: no training, error about 1e-5.

    Each colour goes through the network as the pair (x, -x): silu(x) - silu(-x) = x, so the activation
    cancels exactly. Two constant channels (+C, -C) fix the variance that the group norm divides by.
    """
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=3,
        block_out_channels=(8,),
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        layers_per_block=1,
        norm_num_groups=1,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=SIZE,
        scaling_factor=LATENT_SCALE,
        shift_factor=LATENT_SHIFT,
    )
    big = 100.0
    encoder: Any = vae.encoder
    decoder: Any = vae.decoder
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
        for half in (encoder, decoder):
            for c in range(3):
                half.conv_in.weight[2 * c, c, 1, 1] = 1.0
                half.conv_in.weight[2 * c + 1, c, 1, 1] = -1.0
                half.conv_out.weight[c, 2 * c, 1, 1] = 1.0
                half.conv_out.weight[c, 2 * c + 1, 1, 1] = -1.0
            half.conv_in.bias[6], half.conv_in.bias[7] = big, -big
            # The pixels' own variance (about 0.25 in six of eight channels) is far below the constant's.
            half.conv_norm_out.weight[:6] = (2 * big**2 / 8 + 0.2) ** 0.5
        encoder.conv_out.bias[3:] = -30.0  # log-variance: the encoder is deterministic
    return vae


def assemble(
    transformer: SD3Transformer2DModel,
    towers: tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection],
    tokenizer: CLIPTokenizer,
) -> StableDiffusion3Pipeline:
    """One pipeline, without T5."""
    absent: Any = None  # diffusers' types do not say that T5 is optional
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=2.0),
        vae=build_identity_vae(),
        text_encoder=towers[0],
        tokenizer=tokenizer,
        text_encoder_2=towers[1],
        tokenizer_2=tokenizer,
        text_encoder_3=absent,
        tokenizer_3=absent,
    )
