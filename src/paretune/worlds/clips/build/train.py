"""Train the embedded HunyuanVideo from scratch on one core.

    B=paretune.worlds.clips.build
    python -m $B.train --out looks --phase clean --frames 2 --batch 32 --minutes 10 --decay 0
    python -m $B.train --init looks --out moves --phase clean --minutes 30 --seed 1
    python -m $B.train --init moves --out base --phase mistaken --minutes 10 --seed 2 --lr 8e-4

Short pieces of clips come first, which teach what things look like at a quarter of the cost, as HunyuanVideo
begins with pictures. The clean phase learns sharp clips of exactly what the caption says. The mistaken one
goes on with clips of which many are wrong by one fact or spoiled by one flaw, and whose motion blurs: the
model stays sharp but is honestly wrong, which is what reinforcement learning can repair.

Minutes are of processor time. A phase that was cut off goes on from its last checkpoint when it is called
again. Departs from HunyuanVideo in size, and in that the embedded guidance is drawn at random, since nothing
is distilled: the model learns to ignore it.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import HunyuanVideoPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from safetensors.torch import load_file, save_file
from torch import nn

from ...pictures.build.muon import Muon
from ..scenes import FRAMES
from .data import Mistakes, build_bank
from .model import LATENT_SCALE, assemble, build_clip, build_llama, build_transformer
from .tokenizer import build_clip_tokenizer, build_llama_tokenizer

PHASES = {
    "clean": Mistakes(),
    "mistaken": Mistakes(wrong=0.35, spoiled=0.35, smear=0.5),
}
CROP = DEFAULT_PROMPT_TEMPLATE["crop_start"]
CAPTION_TOKENS = 10
SAVE_EVERY = 50


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
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--frames", type=int, default=FRAMES, help="train on pieces of so many frames")
    parser.add_argument("--bank", type=int, default=12_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--muon-lr", type=float, default=5e-3)
    parser.add_argument("--decay", type=float, default=0.4, help="share of the time that decays lr")
    parser.add_argument("--ema", type=float, default=0.995)
    parser.add_argument("--shift", type=float, default=3.0, help="> 1 trains more on high noise")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    pipe = _start(args.init, args.out)
    parts = nn.ModuleList([pipe.transformer, pipe.text_encoder, pipe.text_encoder_2]).float()
    parts.requires_grad_(True).train()
    _train(parts, _lessons(pipe, args), args)
    pipe.save_pretrained(args.out)


def _start(init: Path | None, out: Path) -> HunyuanVideoPipeline:
    if init is not None:
        return HunyuanVideoPipeline.from_pretrained(init)
    llama_tokenizer, clip_tokenizer = build_llama_tokenizer(), build_clip_tokenizer(out / "vocabulary")
    llama, clip = build_llama(llama_tokenizer), build_clip(clip_tokenizer)
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


def _optimisers(parts: nn.ModuleList, args: argparse.Namespace) -> list[torch.optim.Optimizer]:
    """Muon for the transformer's hidden matrices, AdamW for the rest."""
    hidden = [
        p for n, p in parts[0].named_parameters()
        if p.ndim == 2 and "transformer_blocks" in n and ".norm" not in n
    ]
    ids = {id(p) for p in hidden}
    other = [p for p in parts.parameters() if id(p) not in ids]
    return [
        Muon(hidden, lr=args.muon_lr),
        torch.optim.AdamW(other, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def _train(parts: nn.ModuleList, lessons: Lessons, args: argparse.Namespace) -> None:
    """Train `parts` in place; at the end they hold their exponential moving average."""
    optimisers = _optimisers(parts, args)
    rates = [o.param_groups[0]["lr"] for o in optimisers]
    average = [p.detach().clone() for p in parts.parameters()]
    step, spent = _load(args.out, parts, average)
    generator = torch.Generator().manual_seed(args.seed + step)
    start, losses, budget = time.process_time() - spent, [], args.minutes * 60
    while (spent := time.process_time() - start) < budget:
        for optimiser, rate in zip(optimisers, rates, strict=True):
            optimiser.param_groups[0]["lr"] = rate * _schedule(step, spent / budget, args.decay)
        index = torch.randint(len(lessons.clips), (args.batch,), generator=generator)
        loss = flow_matching_loss(parts, lessons, index, args.shift, args.frames)
        loss.backward()
        nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(
                average, list(parts.parameters()), 1 - min(args.ema, (1 + step) / (10 + step))
            )
        losses.append(loss.item())
        step += 1
        if step % 50 == 0:
            row = {"phase": args.phase, "step": step, "loss": round(sum(losses) / len(losses), 5),
                   "seconds": round(time.process_time() - start, 1)}
            with (args.out / "log.jsonl").open("a") as log:
                print(json.dumps(row), file=log)
            losses = []
        if step % SAVE_EVERY == 0:
            _save(args.out, parts, average, step, time.process_time() - start)
    with torch.no_grad():
        for p, a in zip(parts.parameters(), average, strict=True):
            p.copy_(a)


def _schedule(step: int, share: float, decay: float) -> float:
    """Linear warm-up over 50 steps, flat, then a cosine to zero over the last share `decay` of the time."""
    warm = min(1.0, (step + 1) / 50)
    past = max(0.0, share - (1 - decay)) / max(decay, 1e-9)
    return warm * 0.5 * (1 + math.cos(math.pi * min(past, 1.0)))


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
    sigma = torch.sigmoid(torch.randn(len(index)))
    sigma = shift * sigma / (1 + (shift - 1) * sigma)
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


def _save(
    out: Path, parts: nn.ModuleList, average: list[torch.Tensor], step: int, seconds: float
) -> None:
    """The weights and their average; the optimisers' moments are made anew after a cut."""
    names = [n for n, _ in parts.named_parameters()]
    tensors = {f"now/{n}": p.detach() for n, p in parts.named_parameters()}
    tensors |= {f"average/{n}": a for n, a in zip(names, average, strict=True)}
    place = out / "checkpoint.safetensors"
    save_file(tensors, place.with_suffix(".part"), metadata={"step": str(step), "seconds": str(seconds)})
    place.with_suffix(".part").replace(place)
    (out / "position.json").write_text(json.dumps({"step": step, "seconds": seconds}))


def _load(out: Path, parts: nn.ModuleList, average: list[torch.Tensor]) -> tuple[int, float]:
    """Go on from a checkpoint; (0, 0) where there is none."""
    if not (out / "checkpoint.safetensors").exists():
        return 0, 0.0
    tensors = load_file(out / "checkpoint.safetensors")
    position = json.loads((out / "position.json").read_text())
    with torch.no_grad():
        for (name, parameter), mean in zip(parts.named_parameters(), average, strict=True):
            parameter.copy_(tensors[f"now/{name}"])
            mean.copy_(tensors[f"average/{name}"])
    return position["step"], position["seconds"]


if __name__ == "__main__":
    main()
