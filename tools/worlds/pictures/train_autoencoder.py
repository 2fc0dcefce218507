"""Train the decoder of the tiny FLUX's autoencoder.

    python -m tools.worlds.pictures.train_autoencoder --out DIR

The encoder is analytic (`flux_model.build_autoencoder`). Minutes are of processor time on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .data import build_bank
from .flow_training import schedule
from .flux_model import build_autoencoder
from .tokenizer import build_tokenizer

HELD_OUT = 256


def main() -> None:
    """Train, then tell the error on held-out pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--bank", type=int, default=8_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--noise", type=float, default=0.03, help="on the latents: sampled ones err a little")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    vae: Any = build_autoencoder()
    tokenizer = build_tokenizer(args.out / "vocabulary")
    pictures = build_bank(tokenizer, args.bank + HELD_OUT, 0.0, args.seed).pictures.float() / 127.5 - 1
    known, held_out = pictures[:-HELD_OUT], pictures[-HELD_OUT:]
    optimiser = torch.optim.AdamW(vae.decoder.parameters(), lr=args.lr, weight_decay=0.0)
    start, step = time.process_time(), 0
    while (share := (time.process_time() - start) / (60 * args.minutes)) < 1:
        optimiser.param_groups[0]["lr"] = args.lr * schedule(step, share, 0.7)
        batch = known[torch.randint(len(known), (args.batch,))]
        with torch.no_grad():
            latents = vae.encode(batch).latent_dist.mode()
        drawn = vae.decode(latents + args.noise * torch.randn_like(latents)).sample
        error = drawn - batch
        (error.square().mean() + 0.1 * error.abs().mean()).backward()
        nn.utils.clip_grad_norm_(vae.decoder.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        step += 1
    vae.save_pretrained(args.out)
    with torch.no_grad():
        back = vae.decode(vae.encode(held_out).latent_dist.mode()).sample
    error = float((back - held_out).square().mean())
    psnr = round(10 * math.log10(4 / error), 2)
    told = {"seed": args.seed, "steps": step, "minutes": args.minutes, "psnr": psnr}
    (args.out / "log.json").write_text(json.dumps(told) + "\n")
    print(told)


if __name__ == "__main__":
    main()
