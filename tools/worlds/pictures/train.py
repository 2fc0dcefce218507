"""Train the embedded Stable Diffusion 3 from scratch on the CPU.

    python -m tools.worlds.pictures.train --out DIR --phase crisp --steps 3600
    python -m tools.worlds.pictures.train --out DIR2 --init DIR --phase mislabelled --steps 1200

The first phase learns crisp pictures of exactly what the caption says. The second goes on with
pictures of which half are mislabelled by one fact, so that the model stays crisp but is honestly wrong
about half of the time: that is what reinforcement learning can repair quickly.
Departs from SD3 in size alone; flow matching with logit-normal times (Esser et al. 2024).
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private; of torch we do use one such.

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from diffusers import StableDiffusion3Pipeline
from torch import nn

from .data import Bank, add_options, bank_of
from .model import LATENT_SCALE, LATENT_SHIFT, assemble, build_text_encoder, build_transformer
from .muon import Muon
from .tokenizer import build_tokenizer


def main() -> None:
    """Parse the arguments, train, save the average weights as a pipeline folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path)
    add_options(parser)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--muon-lr", type=float, default=5e-3)
    parser.add_argument("--decay", type=float, default=0.0, help="share of the steps that decays lr")
    parser.add_argument("--ema", type=float, default=0.995)
    parser.add_argument("--shift", type=float, default=1.0, help="> 1 trains more on high noise")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    pipe = _start(args.init, args.out)
    bank = bank_of(pipe.tokenizer, args)
    parts = nn.ModuleList([pipe.transformer, pipe.text_encoder, pipe.text_encoder_2]).float()
    parts.requires_grad_(True).train()
    _train(parts, bank, args)
    pipe.save_pretrained(args.out)


def _start(init: Path | None, out: Path) -> StableDiffusion3Pipeline:
    if init is not None:
        return StableDiffusion3Pipeline.from_pretrained(
            init, text_encoder_3=None, tokenizer_3=None
        )
    tokenizer = build_tokenizer(out / "vocabulary")
    towers = (build_text_encoder(tokenizer), build_text_encoder(tokenizer))
    return assemble(build_transformer(), towers, tokenizer)


def _train(parts: nn.ModuleList, bank: Bank, args: argparse.Namespace) -> None:
    """Train `parts` in place; at the end they hold their exponential moving average."""
    hidden = [
        p for n, p in parts[0].named_parameters()
        if p.ndim == 2 and "transformer_blocks" in n and "norm1" not in n
    ]
    ids = {id(p) for p in hidden}
    other = [p for p in parts.parameters() if id(p) not in ids]
    optimisers = [
        Muon(hidden, lr=args.muon_lr),
        torch.optim.AdamW(other, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    average = [p.detach().clone() for p in parts.parameters()]
    generator = torch.Generator().manual_seed(args.seed)
    log = (args.out / "log.jsonl").open("a")
    start, losses = time.time(), []
    for step in range(args.steps):
        scale = _schedule(step, args.steps, args.decay)
        for optimiser, lr in zip(optimisers, (args.muon_lr, args.lr), strict=True):
            optimiser.param_groups[0]["lr"] = lr * scale
        index = torch.randint(len(bank.tokens), (args.batch,), generator=generator)
        loss = flow_matching_loss(parts, bank.pictures[index], bank.tokens[index], args.shift)
        loss.backward()
        nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        with torch.no_grad():
            decay = min(args.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(average, list(parts.parameters()), 1 - decay)
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            row = {"phase": args.phase, "step": step + 1, "loss": sum(losses) / len(losses),
                   "seconds": round(time.time() - start, 1)}
            print(json.dumps(row), file=log, flush=True)
            losses = []
        if (step + 1) % 300 == 0:
            _save_average(parts, average, args.out / "checkpoint.safetensors")
    with torch.no_grad():
        for p, a in zip(parts.parameters(), average, strict=True):
            p.copy_(a)


def _schedule(step: int, steps: int, decay: float) -> float:
    """Linear warm-up over 50 steps, flat, then a cosine to zero over the last share `decay`."""
    warm = min(1.0, (step + 1) / 50)
    begin = steps * (1 - decay)
    if step < begin:
        return warm
    return warm * 0.5 * (1 + math.cos(math.pi * (step - begin) / (steps - begin)))


def flow_matching_loss(
    parts: nn.ModuleList, pictures: torch.Tensor, tokens: torch.Tensor, shift: float = 1.0
) -> torch.Tensor:
    """Mean |v - (noise - x0)|^2 at logit-normal times. pictures: uint8 [B, 3, H, W]; tokens: [B, T].

    shift moves the times to higher noise, as SD3 does for large pictures: what a caption decides is
    decided there, while at low noise the picture itself gives it away.
    """
    transformer, tower_1, tower_2 = parts
    outputs = [t(tokens, output_hidden_states=True) for t in (tower_1, tower_2)]
    embeds = torch.cat([o.hidden_states[-2] for o in outputs], dim=-1)
    pooled = torch.cat([o.text_embeds for o in outputs], dim=-1)
    latents = (pictures.float() / 127.5 - 1 - LATENT_SHIFT) * LATENT_SCALE
    sigma = torch.sigmoid(torch.randn(len(latents)))
    sigma = shift * sigma / (1 + (shift - 1) * sigma)
    noise = torch.randn_like(latents)
    s = sigma.view(-1, 1, 1, 1)
    velocity = transformer(
        hidden_states=(1 - s) * latents + s * noise,
        encoder_hidden_states=embeds,
        pooled_projections=pooled,
        timestep=sigma * 1000,
        return_dict=False,
    )[0]
    return (velocity - (noise - latents)).square().mean()


def _save_average(parts: nn.ModuleList, average: list[torch.Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    names = [n for n, _ in parts.named_parameters()]
    save_file(dict(zip(names, average, strict=True)), path)


if __name__ == "__main__":
    main()
