"""Draw a sheet of the base model's clips: python -m tools.worlds.clips.sheet --out FILE.

A row is a caption, its frames from left to right; two noises a caption, side by side.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image

from paretune.config import ModelConfig
from paretune.models.flow import Sampling, sample
from paretune.models.hunyuan_video.policy import HunyuanVideoPolicy
from paretune.samples.files import contact_sheet

CAPTIONS = (
    "a red circle moves left quickly", "a blue square moves right slowly",
    "a green triangle moves up quickly", "a yellow cross moves down slowly",
    "an orange circle moves down quickly", "a purple square moves left slowly",
)  # fmt: skip


def main() -> None:
    """Six captions, each twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="clips")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--zoom", type=int, default=3)
    args = parser.parse_args()
    policy = HunyuanVideoPolicy(
        ModelConfig.model_validate({"path": args.model, "options": {"frames": args.frames}})
    )
    conditions = policy.encode(CAPTIONS, False)
    noises = [policy.initial_noise(len(CAPTIONS), torch.Generator().manual_seed(s)) for s in (0, 1)]
    columns = []
    for noise in noises:
        clips = policy.decode(sample(policy, conditions, noise, Sampling(args.steps, 1.0)).clean)
        rows = [torch.nn.functional.pad(contact_sheet(c), (2, 2, 2, 2), value=1.0) for c in clips]
        columns.append(torch.cat(rows, dim=1))
    sheet = (torch.cat(columns, dim=2).permute(1, 2, 0) * 255).round().byte().numpy()
    image = Image.fromarray(sheet)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    image.resize((image.width * args.zoom, image.height * args.zoom), Image.Resampling.NEAREST).save(args.out)


if __name__ == "__main__":
    main()
