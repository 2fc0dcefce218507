"""What tiles change in a decoded clip: python benchmarks/tile_seams.py [--seconds 30]

A tile is decoded without its surroundings, so that it differs from the whole clip near its borders and,
through normalisation and attention over all of a tile, everywhere a little. Reward models see it, and a
policy can learn it. No autoencoder of a published video model fits here, so one of the same class and of a
small size (4-fold in time and space, attention in the middle) is trained for a while on drawn clips. Then a
larger clip is decoded whole and in tiles. For each way it prints
  mean, max   |difference to the whole clip|, in the 255 levels of a pixel
  seam        the largest jump of the difference from one column or row, or frame, to the next: the mean of a
              whole column, row or frame; "neighbours" are the mean differences of the whole clip itself
  cost        latents that are decoded, in units of the whole clip
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportPrivateImportUsage=false

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch.nn.functional import interpolate

from paretune.models.tiles import Axis, decode_in_tiles
from paretune.worlds.clips.render import random_style, render
from paretune.worlds.clips.scenes import random_clip

Way = Callable[[torch.Tensor], torch.Tensor]
LEVELS, SCALE = 127.5, 4
SIDE, FRAMES = 160, 53  # of the clip that is decoded: 40 x 40 x 14 latents
TIME = Axis(8, 5, SCALE, causal=True, warm_up=2)
TILE, TILE_FRAMES = 128, 16  # as many latents as the published tiles of 256 pixels and 16 frames


def clips(count: int, side: int, frames: int, rng: random.Random) -> torch.Tensor:
    """Drawn clips of any size, [count, 3, frames, side, side] in [-1, 1]."""
    drawn = [np.asarray(render(random_clip(rng), random_style(rng), rng)) for _ in range(count)]
    pixels = torch.tensor(np.stack(drawn)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    grain = 0.1 * torch.randn(count, 3, frames, side, side, generator=torch.Generator().manual_seed(count))
    return (interpolate(pixels, (frames, side, side), mode="trilinear") + grain).clamp(-1, 1)


def train(seconds: float) -> AutoencoderKLHunyuanVideo:
    """A small autoencoder that reconstructs drawn clips."""
    torch.manual_seed(0)
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=8, down_block_types=("HunyuanVideoDownBlock3D",) * 3,
        up_block_types=("HunyuanVideoUpBlock3D",) * 3, block_out_channels=(8, 16, 16), layers_per_block=1,
        norm_num_groups=4, spatial_compression_ratio=4, temporal_compression_ratio=4,
    )  # fmt: skip
    vae.use_framewise_decoding = vae.use_framewise_encoding = False
    optimiser, rng = torch.optim.AdamW(vae.parameters(), lr=3e-3), random.Random(0)
    start = time.perf_counter()
    loss = torch.tensor(0.0)
    while time.perf_counter() - start < seconds:
        x = clips(2, 48, 9, rng)
        decoded = vae.decode(vae.encode(x).latent_dist.mode(), return_dict=False)[0]
        loss = (decoded - x).abs().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    print(json.dumps({"trained_seconds": seconds, "levels_off": round(float(loss.detach()) * LEVELS, 1)}))
    return vae.eval()


def seam(whole: torch.Tensor, tiled: torch.Tensor, dims: Sequence[int]) -> float:
    """The largest jump along some dimensions, in levels; see the module. [B, 3, T, H, W]."""
    largest = 0.0
    for dim in dims:
        jumps = (tiled - whole).diff(dim=dim).abs().mean([d for d in range(5) if d != dim])
        largest = max(largest, LEVELS * float(jumps.max()))
    return largest


def library(vae: AutoencoderKLHunyuanVideo, stride: int, stride_frames: int) -> Way:
    """The tiles of diffusers. stride, stride_frames: in pixels and frames; 0: no tiles."""

    def decode(z: torch.Tensor) -> torch.Tensor:
        vae.use_tiling, vae.use_framewise_decoding = bool(stride), bool(stride_frames)
        vae.tile_sample_min_height = vae.tile_sample_min_width = TILE
        vae.tile_sample_stride_height = vae.tile_sample_stride_width = stride or TILE
        vae.tile_sample_min_num_frames = TILE_FRAMES
        vae.tile_sample_stride_num_frames = stride_frames or TILE_FRAMES
        decoded = vae.decode(z, return_dict=False)[0]
        vae.use_tiling = vae.use_framewise_decoding = False
        return decoded

    return decode


def ours(vae: AutoencoderKLHunyuanVideo, overlap: int, frames: Axis | None) -> Way:
    """The tiles of `paretune.models.tiles`. overlap: of latents in space; 0: no tiles in space."""
    side = Axis(TILE // SCALE, overlap, SCALE) if overlap else Axis(SIDE, 0, SCALE)
    axes = (frames or Axis(FRAMES, 0, SCALE, True), side, side)
    return lambda z: decode_in_tiles(lambda tile: vae.decode(tile, return_dict=False)[0], z, axes)


@torch.no_grad()
def main() -> None:
    """Train, decode and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with torch.enable_grad():
        vae = train(args.seconds)
    z = vae.encode(clips(1, SIDE, FRAMES, random.Random(1))).latent_dist.mode()
    whole = vae.decode(z, return_dict=False)[0]
    steps = [round(LEVELS * float(whole.diff(dim=dim).abs().mean()), 2) for dim in (2, 3, 4)]
    print(json.dumps({"neighbours": dict(zip(("frames", "rows", "columns"), steps, strict=True))}))
    ways = {
        "space, no overlap": library(vae, TILE, 0), "space, diffusers": library(vae, 96, 0),
        "space, paretune": ours(vae, 8, None), "time, no overlap": library(vae, 0, 16),
        "time, diffusers": library(vae, 0, 12), "time, paretune": ours(vae, 0, TIME),
        "both, diffusers": library(vae, 96, 12), "both, paretune": ours(vae, 8, TIME),
    }  # fmt: skip
    for name, way in ways.items():
        decoded = list[int]()
        count = vae.decoder.register_forward_hook(lambda m, x, out, d=decoded: d.append(x[0][0, 0].numel()))
        tiled = way(z)
        count.remove()
        off = LEVELS * (tiled - whole).abs()
        facts = {
            "mean": float(off.mean()), "max": float(off.max()), "seam_space": seam(whole, tiled, (3, 4)),
            "seam_time": seam(whole, tiled, (2,)), "cost": sum(decoded) / z[0, 0].numel(),
        }  # fmt: skip
        print(json.dumps({"tiles": name, **{k: round(v, 2) for k, v in facts.items()}}), flush=True)


if __name__ == "__main__":
    main()
