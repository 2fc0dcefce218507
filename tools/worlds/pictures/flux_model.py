"""The tiny FLUX: the real classes of diffusers and transformers, 3 M parameters."""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from paretune.worlds.pictures.render import SIZE

from .model import LATENT_SCALE, LATENT_SHIFT, TEXT_WIDTH

LATENT_CHANNELS = 12  # 2x2 pixels of three colours
WIDTH = 2 * LATENT_CHANNELS + 2  # of the autoencoder: every latent as a pair, and two constants
CONSTANT = 100.0


def build_transformer(
    dual: int = 2, single: int = 4, heads: int = 4, head_dim: int = 32
) -> FluxTransformer2DModel:
    """64 image tokens (2x2 latents of 2x2 pixels) and 16 of text; blocks begin as the identity."""
    model = FluxTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        num_layers=dual,
        num_single_layers=single,
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(head_dim // 4, 3 * head_dim // 8, 3 * head_dim // 8),
    )
    for name, parameter in model.named_parameters():
        gate = "blocks" in name and ".norm" in name and "linear" in name
        if gate or name.startswith(("proj_out", "norm_out.linear")):
            torch.nn.init.zeros_(parameter)  # adaLN-zero
    return model


def build_t5(tokenizer: PreTrainedTokenizerFast) -> T5EncoderModel:
    """A T5 encoder of three layers, gated as T5 v1.1 is."""
    marks: Any = tokenizer
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=TEXT_WIDTH,
        d_kv=TEXT_WIDTH // 4,
        d_ff=2 * TEXT_WIDTH,
        num_layers=3,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=marks.pad_token_id,
        eos_token_id=marks.eos_token_id,
    )
    return T5EncoderModel(config)


def build_autoencoder() -> AutoencoderKL:
    """Half the size in twelve channels. The encoder is analytic, the decoder is to be trained.

    Encoding only moves 2x2 pixels into channels: as in `model.build_identity_vae`, each value goes through
    as the pair (x, -x), and two constants fix the variance that the group norm divides by. No such weights
    exist for the way back, since a convolution cannot tell an even column from an odd one.
    """
    two: Any = (WIDTH, WIDTH)  # diffusers' types know one block only
    down: Any = ("DownEncoderBlock2D",) * 2
    up: Any = ("UpDecoderBlock2D",) * 2
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=two,
        down_block_types=down,
        up_block_types=up,
        layers_per_block=1,
        norm_num_groups=1,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=SIZE,
        scaling_factor=LATENT_SCALE,
        shift_factor=LATENT_SHIFT,
    )
    encoder: Any = vae.encoder
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
        halve = encoder.down_blocks[0].downsamplers[0].conv
        for colour in range(3):
            encoder.conv_in.weight[colour, colour, 1, 1] = 1.0
            for place in range(4):
                latent = 4 * colour + place
                halve.weight[2 * latent, colour, place // 2, place % 2] = 1.0
                halve.weight[2 * latent + 1, colour, place // 2, place % 2] = -1.0
                encoder.conv_out.weight[latent, 2 * latent, 1, 1] = 1.0
                encoder.conv_out.weight[latent, 2 * latent + 1, 1, 1] = -1.0
        halve.bias[-2], halve.bias[-1] = CONSTANT, -CONSTANT
        # The pixels' own variance (about 0.25 in all but two channels) is far below the constants'.
        encoder.conv_norm_out.weight[:-2] = (2 * CONSTANT**2 / WIDTH + 0.23) ** 0.5
        encoder.conv_out.bias[LATENT_CHANNELS:] = -30.0  # log-variance: the encoder is deterministic
    encoder.requires_grad_(False)
    return vae


def assemble(
    transformer: FluxTransformer2DModel,
    clip: CLIPTextModel,
    clip_tokenizer: CLIPTokenizer,
    t5: T5EncoderModel,
    t5_tokenizer: PreTrainedTokenizerFast,
    vae: AutoencoderKL,
) -> FluxPipeline:
    """One pipeline."""
    tokenizer: Any = t5_tokenizer  # diffusers' type asks for T5's own class
    return FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=clip,
        tokenizer=clip_tokenizer,
        text_encoder_2=t5,
        tokenizer_2=tokenizer,
    )
