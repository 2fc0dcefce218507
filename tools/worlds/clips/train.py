"""Train the embedded HunyuanVideo from scratch on one core.

    B=tools.worlds.clips
    python -m $B.train --out looks --phase clean --frames 2 --batch 32 --minutes 10 --decay 0
    python -m $B.train --init looks --out moves --phase clean --minutes 30 --seed 1

docs/world-clips.md has all the commands that made the weights. Short pieces of clips come first, which teach
what things look like at a quarter of the cost, as HunyuanVideo begins with pictures. The clean phase learns
sharp clips of exactly what the caption says. The mistaken one is for a base that has learned that: it goes on
with clips of which many are wrong by one fact or spoiled by one flaw, and whose motion blurs.

Departs from HunyuanVideo in size, and in that the embedded guidance is drawn at random, since nothing
is distilled: the model learns to ignore it.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import HunyuanVideoPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from torch import nn

from paretune.worlds.clips.scenes import FRAMES

from ..pictures.flow_training import Settings, arguments, shifted_sigma, train
from ..pictures.model import build_pooling_clip
from .data import Mistakes, build_bank
from .model import CLIP_TOKENS, LATENT_SCALE, assemble, build_llama, build_transformer
from .tokenizer import build_clip_tokenizer, build_llama_tokenizer

PHASES = {
    "clean": Mistakes(),
    "mistaken": Mistakes(wrong=0.35, spoiled=0.35, smear=0.5),
}
CROP = DEFAULT_PROMPT_TEMPLATE["crop_start"]
CAPTION_TOKENS = 10


@dataclass(frozen=True)
class Lessons:
    """clips: uint8 [N, 3, T, H, W]; llama, mask: int64 [N, 95 + 10]; clip: int64 [N, 12]."""

    clips: torch.Tensor
    llama: torch.Tensor
    mask: torch.Tensor
    clip: torch.Tensor


def main() -> None:
    """Parse the arguments, train, save the average weights as a pipeline folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path)
    parser.add_argument("--phase", choices=list(PHASES), required=True)
    parser.add_argument("--frames", type=int, default=FRAMES, help="train on pieces of so many frames")
    parser.add_argument("--bank", type=int, default=12_000)
    arguments(parser, batch=16, shift=3.0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    pipe = _start(args.init, args.out)
    parts = nn.ModuleList([pipe.transformer, pipe.text_encoder, pipe.text_encoder_2]).float()
    parts.requires_grad_(True).train()
    lessons = _lessons(pipe, args)

    def loss_of(index: torch.Tensor) -> torch.Tensor:
        return flow_matching_loss(parts, lessons, index, args.shift, args.frames)

    train(parts, len(lessons.clips), loss_of, Settings.read(args), args.out)
    pipe.save_pretrained(args.out)


def _start(init: Path | None, out: Path) -> HunyuanVideoPipeline:
    if init is not None:
        return HunyuanVideoPipeline.from_pretrained(init)
    llama_tokenizer, clip_tokenizer = build_llama_tokenizer(), build_clip_tokenizer(out / "vocabulary")
    llama, clip = build_llama(llama_tokenizer), build_pooling_clip(clip_tokenizer, CLIP_TOKENS)
    return assemble(build_transformer(), llama, llama_tokenizer, clip, clip_tokenizer)


def _lessons(pipe: HunyuanVideoPipeline, args: argparse.Namespace) -> Lessons:
    """The bank's clips, with their captions as the pipeline puts them to its two encoders."""
    bank = build_bank(args.bank, PHASES[args.phase], args.seed)
    texts = [DEFAULT_PROMPT_TEMPLATE["template"].format(c) for c in bank.captions]
    tokenizer: Any = pipe.tokenizer
    told = tokenizer(texts, padding="max_length", max_length=CROP + CAPTION_TOKENS, return_tensors="pt")
    short: Any = pipe.tokenizer_2
    clip = short(
        bank.captions, padding="max_length", max_length=CAPTION_TOKENS + 2, return_tensors="pt"
    ).input_ids  # CLIP looks back only and pools at the first end: more padding changes nothing
    return Lessons(bank.clips, told.input_ids, told.attention_mask, clip)


def flow_matching_loss(
    parts: nn.ModuleList, lessons: Lessons, index: torch.Tensor, shift: float, frames: int = FRAMES
) -> torch.Tensor:
    """Mean |v - (noise - x0)|^2 at logit-normal times, moved to higher noise by `shift`. index: [B].

    frames: of each clip, from a place drawn for the batch.
    """
    transformer, llama, clip = parts
    mask = lessons.mask[index]
    told = llama(input_ids=lessons.llama[index], attention_mask=mask, output_hidden_states=True)
    begin = int(torch.randint(FRAMES - frames + 1, ()))
    latents = (lessons.clips[index, :, begin : begin + frames].float() / 127.5 - 1) * LATENT_SCALE
    sigma = shifted_sigma(len(index), shift)
    noise = torch.randn_like(latents)
    s = sigma.view(-1, 1, 1, 1, 1)
    velocity = transformer(
        hidden_states=(1 - s) * latents + s * noise,
        timestep=sigma * 1000,
        encoder_hidden_states=told.hidden_states[-3][:, CROP:],
        encoder_attention_mask=mask[:, CROP:],
        pooled_projections=clip(lessons.clip[index]).pooler_output,
        guidance=1000 * (1 + 6 * torch.rand(len(index))),
        return_dict=False,
    )[0]
    return (velocity - (noise - latents)).square().mean()


if __name__ == "__main__":
    main()
