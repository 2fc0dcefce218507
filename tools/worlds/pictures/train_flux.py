"""Train the embedded FLUX from scratch on one core.

    B=tools.worlds.pictures
    python -m $B.train_autoencoder --out autoencoder
    python -m $B.train_flux --out clean --vae autoencoder --phase crisp --minutes 40 --words 0
    python -m $B.train_flux --init clean --out clean2 --phase crisp --minutes 55 --words 0 --seed 3

All of the phases that made the embedded one, and what each reached, are in docs/flux-hunyuan.md.
They are those of `train`. Departs from FLUX in size, and in that the embedded guidance is drawn at
random, since nothing is distilled: the model learns to ignore it.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxPipeline
from torch import nn

from .data import add_options, bank_of
from .flow_training import Settings, arguments, shifted_sigma, train
from .flux_model import assemble, build_t5, build_transformer
from .model import LATENT_SCALE, LATENT_SHIFT, build_pooling_clip
from .tokenizer import MAX_TOKENS, build_t5_tokenizer, build_tokenizer


@dataclass(frozen=True)
class Lessons:
    """pictures: uint8 [N, 3, H, W]; clip, t5: int64 [N, 16]; grid: float32 [h * w, 3], the tokens' places."""

    pictures: torch.Tensor
    clip: torch.Tensor
    t5: torch.Tensor
    grid: torch.Tensor


def main() -> None:
    """Parse the arguments, train, save the average weights as a pipeline folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    begin = parser.add_mutually_exclusive_group(required=True)
    begin.add_argument("--init", type=Path, help="a phase before")
    begin.add_argument("--vae", type=Path, help="what train_autoencoder wrote: begin anew")
    add_options(parser)
    arguments(parser, batch=64, shift=2.5)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    pipe = FluxPipeline.from_pretrained(args.init) if args.init else _begin(args.vae, args.out)
    parts = nn.ModuleList([pipe.transformer, pipe.text_encoder, pipe.text_encoder_2]).float()
    parts.requires_grad_(True).train()
    lessons = _lessons(pipe, args)

    def loss_of(index: torch.Tensor) -> torch.Tensor:
        return flow_matching_loss(parts, lessons, index, args.shift)

    train(parts, len(lessons.pictures), loss_of, Settings.read(args), args.out)
    pipe.save_pretrained(args.out)


def _begin(vae: Path, out: Path) -> FluxPipeline:
    clip_tokenizer = build_tokenizer(out / "vocabulary")
    t5_tokenizer = build_t5_tokenizer(out / "vocabulary")
    clip, t5 = build_pooling_clip(clip_tokenizer, MAX_TOKENS), build_t5(t5_tokenizer)
    autoencoder = AutoencoderKL.from_pretrained(vae)
    return assemble(build_transformer(), clip, clip_tokenizer, t5, t5_tokenizer, autoencoder)


def _lessons(pipe: Any, args: argparse.Namespace) -> Lessons:
    """The bank's pictures, with their captions as the pipeline puts them to its two encoders."""
    bank = bank_of(pipe.tokenizer, args)
    t5 = pipe.tokenizer_2(
        bank.captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    side = bank.pictures.shape[-1] // (2 * pipe.vae_scale_factor)
    places = FluxPipeline._prepare_latent_image_ids(1, side, side, torch.device("cpu"), torch.float32)
    return Lessons(bank.pictures, bank.tokens, t5, places)


def packed(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 3, H, W] -> the latents of the analytic encoder as FLUX packs them, [B, HW/16, 48]."""
    latents = nn.functional.pixel_unshuffle(pictures.float() / 127.5 - 1, 2)
    latents = (latents - LATENT_SHIFT) * LATENT_SCALE
    return FluxPipeline._pack_latents(latents, *latents.shape)


def flow_matching_loss(
    parts: nn.ModuleList, lessons: Lessons, index: torch.Tensor, shift: float
) -> torch.Tensor:
    """Mean |v - (noise - x0)|^2 at logit-normal times, moved to higher noise by `shift`. index: [B]."""
    transformer, clip, t5 = parts
    latents = packed(lessons.pictures[index])
    sigma = shifted_sigma(len(index), shift)
    noise = torch.randn_like(latents)
    s = sigma.view(-1, 1, 1)
    velocity = transformer(
        hidden_states=(1 - s) * latents + s * noise,
        timestep=sigma,
        guidance=1 + 6 * torch.rand(len(index)),
        pooled_projections=clip(lessons.clip[index]).pooler_output,
        encoder_hidden_states=t5(lessons.t5[index]).last_hidden_state,
        txt_ids=torch.zeros(lessons.t5.shape[1], 3),
        img_ids=lessons.grid,
        return_dict=False,
    )[0]
    return (velocity - (noise - latents)).square().mean()


if __name__ == "__main__":
    main()
