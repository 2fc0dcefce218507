"""Draw a sheet of the base model's samples: python -m tools.worlds.pictures.sheet --out FILE."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image

from paretune.config import ModelConfig
from paretune.models.flow import Sampling, sample
from paretune.models.sd3.policy import SD3Policy

CAPTIONS = (
    "three red circles", "two blue squares and a green triangle", "four purple squares",
    "a yellow cross left of a purple circle", "an orange triangle above a blue square",
    "a blue cross below a red square", "a sign saying kite", "a sign saying house",
    "a sign saying bread", "a sign saying lemon below three green crosses",
    "a sign saying fish above a blue triangle", "a sign saying moon above two red circles",
)  # fmt: skip


def main() -> None:
    """Three rows of noise for twelve captions; the last row's captions end in "ok"."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="pictures")
    parser.add_argument("--zoom", type=int, default=3)
    args = parser.parse_args()
    policy = SD3Policy(ModelConfig.model_validate({"path": args.model}))
    rows = []
    for row in range(3):
        captions = [f"{c} ok" if row == 2 else c for c in CAPTIONS]
        noise = policy.initial_noise(len(captions), torch.Generator().manual_seed(row))
        clean = sample(policy, policy.encode(captions, False), noise, Sampling(10, 1.0)).clean
        rows.append(torch.cat(list(torch.nn.functional.pad(policy.decode(clean), (1, 1, 1, 1))), dim=2))
    array = (torch.cat(rows, dim=1).permute(1, 2, 0) * 255).round().byte().numpy()
    image = Image.fromarray(array)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    image.resize((image.width * args.zoom, image.height * args.zoom), Image.Resampling.NEAREST).save(args.out)


if __name__ == "__main__":
    main()
