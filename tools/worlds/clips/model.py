"""The tiny HunyuanVideo: the real classes of diffusers and transformers, 2 M parameters."""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from transformers import (
    CLIPTextModel,
    CLIPTokenizer,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
)

TEXT_WIDTH = 64
LATENT_SCALE = 1.4  # pixels in [-1, 1] -> latents of about unit variance
SHIFT = 3.0
CLIP_TOKENS = 77  # the pipeline pads to so many, whatever the tokenizer says


def build_transformer(
    dual: int = 2, single: int = 3, heads: int = 4, head_dim: int = 32
) -> HunyuanVideoTransformer3DModel:
    """256 tokens a clip (patches of 2x4x4) and the caption's; blocks begin as the identity."""
    model = HunyuanVideoTransformer3DModel(
        in_channels=3,
        out_channels=3,
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        num_layers=dual,
        num_single_layers=single,
        num_refiner_layers=1,
        patch_size=4,
        patch_size_t=2,
        text_embed_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        rope_axes_dim=(head_dim // 4, 3 * head_dim // 8, 3 * head_dim // 8),
    )
    for name, parameter in model.named_parameters():
        gate = "blocks" in name and ".norm" in name and "linear" in name
        if gate or name.startswith(("proj_out", "norm_out.linear")):
            torch.nn.init.zeros_(parameter)  # adaLN-zero
    return model


def build_llama(tokenizer: PreTrainedTokenizerFast) -> LlamaModel:
    """Four layers, of which HunyuanVideo reads what enters the third: the last two stay as they began."""
    marks: Any = tokenizer
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=marks.bos_token_id,
        eos_token_id=marks.eos_token_id,
        pad_token_id=marks.pad_token_id,
        initializer_range=0.05,
    )
    return LlamaModel(config)


def build_identity_vae() -> AutoencoderKLHunyuanVideo:
    """An AutoencoderKLHunyuanVideo whose latents are the pixels, by analytic weights: no training.

    Each colour goes through the network as the pair (x, -x): silu(x) - silu(-x) = x, so the activation
    cancels exactly. Two constant channels (+C, -C) fix the variance that the group norm divides by. With one
    block nothing is compressed, though the class allows no other nominal compression in time than 4:
    `policies.hunyuan_video` looks at the layers, not at the name.
    """
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=3,
        down_block_types=("HunyuanVideoDownBlock3D",),
        up_block_types=("HunyuanVideoUpBlock3D",),
        block_out_channels=(8,),
        layers_per_block=0,
        norm_num_groups=1,
        scaling_factor=LATENT_SCALE,
        spatial_compression_ratio=1,
        temporal_compression_ratio=4,
        mid_block_add_attention=False,
    )
    big = 100.0
    encoder: Any = vae.encoder
    decoder: Any = vae.decoder
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
        for half in (encoder, decoder):
            # The causal convolution pads two frames before: its last tap is the frame itself.
            first, last = half.conv_in.conv, half.conv_out.conv
            for c in range(3):
                first.weight[2 * c, c, 2, 1, 1] = 1.0
                first.weight[2 * c + 1, c, 2, 1, 1] = -1.0
                last.weight[c, 2 * c, 2, 1, 1] = 1.0
                last.weight[c, 2 * c + 1, 2, 1, 1] = -1.0
            first.bias[6], first.bias[7] = big, -big
            # The pixels' own variance (about 0.25 in six of eight channels) is far below the constant's.
            half.conv_norm_out.weight[:6] = (2 * big**2 / 8 + 0.2) ** 0.5
        vae.quant_conv.weight[:, :, 0, 0, 0] = torch.eye(6)
        vae.get_parameter("quant_conv.bias")[3:] = -30.0  # log-variance: the encoder is deterministic
        vae.post_quant_conv.weight[:, :, 0, 0, 0] = torch.eye(3)
    return vae


def assemble(
    transformer: HunyuanVideoTransformer3DModel,
    llama: LlamaModel,
    llama_tokenizer: PreTrainedTokenizerFast,
    clip: CLIPTextModel,
    clip_tokenizer: CLIPTokenizer,
    vae: AutoencoderKLHunyuanVideo | None = None,
) -> HunyuanVideoPipeline:
    """One pipeline; the analytic autoencoder unless another is given."""
    tokenizer: Any = llama_tokenizer  # diffusers' type asks for Llama's own class
    return HunyuanVideoPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=vae or build_identity_vae(),
        text_encoder=llama,
        tokenizer=tokenizer,
        text_encoder_2=clip,
        tokenizer_2=clip_tokenizer,
    )
