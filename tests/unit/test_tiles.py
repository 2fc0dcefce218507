"""Tiles: where they begin, that nothing is lost, and that no seam is left between them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import interpolate

from paretune.config import ModelConfig
from paretune.models.loading import open_policy
from paretune.models.tiles import Axis, decode_in_tiles
from tests.families.hunyuan_video15 import make_hunyuan15


@pytest.mark.parametrize(
    ("length", "starts"),
    [(32, [0]), (8, [0]), (33, [0, 1]), (56, [0, 24]), (57, [0, 12, 25]), (60, [0, 14, 28])],
)
def test_tiles_have_the_full_size_and_overlap_by_a_quarter(length: int, starts: list[int]) -> None:
    axis = Axis(32, 8, 8)
    assert axis.starts(length) == starts
    assert all(b - a <= 24 for a, b in pairwise(starts))
    assert starts[-1] + 32 >= length


def _upsample(z: torch.Tensor) -> torch.Tensor:
    """As a causal autoencoder: one frame for the first latent, two for each other; four pixels a latent."""
    frames = torch.cat([z[:, :, :1], z[:, :, 1:].repeat_interleave(2, dim=2)], 2)
    return interpolate(frames, scale_factor=(1, 4, 4))


def test_a_decoder_that_sees_one_latent_gives_the_same_in_tiles() -> None:
    z = torch.randn(2, 3, 21, 11, 14, generator=torch.Generator().manual_seed(0))
    axes = (Axis(8, 5, 2, causal=True, warm_up=2), Axis(6, 2, 4), Axis(6, 2, 4))
    seen = list[torch.Size]()

    def decode(tile: torch.Tensor) -> torch.Tensor:
        seen.append(tile.shape)
        return _upsample(tile)

    torch.testing.assert_close(decode_in_tiles(decode, z, axes), _upsample(z), atol=1e-6, rtol=0)
    assert set(seen) == {torch.Size((2, 3, 8, 6, 6))}
    assert len(seen) == 6 * 3 * 3


def test_a_constant_that_differs_between_tiles_passes_over_smoothly() -> None:
    """Two tiles of 6 latents that overlap by 2: ones, then threes."""
    values = iter((1.0, 3.0))
    z = torch.zeros(1, 1, 10)
    decoded = decode_in_tiles(lambda t: torch.full((1, 1, 12), next(values)), z, (Axis(6, 2, 2),))
    expected = [1.0] * 8 + [1.0859, 1.6328, 2.3672, 2.9141] + [3.0] * 8  # 1 + 2 (3 x^2 - 2 x^3)
    assert decoded.flatten().tolist() == pytest.approx(expected, abs=1e-4)


def test_frames_without_their_past_are_dropped() -> None:
    """A running sum over time begins anew in every tile; with a warm-up as long as its window it does not."""
    z = torch.randn(1, 1, 20, generator=torch.Generator().manual_seed(0))

    def window(x: torch.Tensor) -> torch.Tensor:
        return x + torch.nn.functional.pad(x, (1, 0))[..., :-1] + torch.nn.functional.pad(x, (2, 0))[..., :-2]

    cold, warm = (
        (decode_in_tiles(window, z, (Axis(8, 5, 1, causal=True, warm_up=w),)) - window(z)).abs().max()
        for w in (0, 1)
    )
    assert cold > 0.01
    assert warm < 1e-6


def _normalised(z: torch.Tensor) -> torch.Tensor:
    """A decoder that normalises over all of a tile, as group normalisation does, and blurs at its borders."""
    x = _upsample(z / (1 + 0.2 * z.square().mean((2, 3, 4), keepdim=True)))
    return torch.nn.functional.avg_pool3d(torch.nn.functional.pad(x, (2, 2, 2, 2, 2, 0)), (3, 5, 5), 1)


def _jump(off: torch.Tensor) -> float:
    """The largest jump of a difference from one frame, row or column to the next, [B, C, T, H, W]."""
    jumps = [off.diff(dim=dim).abs().mean([d for d in range(5) if d != dim]).max() for dim in (2, 3, 4)]
    return float(max(jumps))


def test_no_seam_is_left_where_a_decoder_depends_on_its_tile() -> None:
    """The largest jump at a border, in units of the clip's own differences between neighbours."""
    t, y, x = (torch.arange(n).view([-1 if d == i else 1 for d in range(3)]) / n
               for i, n in enumerate((21, 20, 20)))  # fmt: skip
    z = torch.sin(3 * (t + 2 * y + x))[None, None] + 0.5 * torch.cos(7 * y * x - t)[None, None]
    whole = _normalised(z)
    usual = float(whole.diff(dim=4).abs().mean())
    abutting = (Axis(8, 0, 2, causal=True), Axis(12, 0, 4), Axis(12, 0, 4))
    blended = (Axis(8, 5, 2, causal=True, warm_up=2), Axis(12, 3, 4), Axis(12, 3, 4))
    jumps = [_jump(decode_in_tiles(_normalised, z, axes) - whole) / usual for axes in (abutting, blended)]
    assert jumps[0] > 5
    assert jumps[1] < 0.5


@pytest.mark.parametrize("family", ["hunyuan_video", "hunyuan_video15"])
def test_large_clips_are_decoded_in_tiles_unless_a_recipe_wants_none(
    family: str, tiny_hunyuan: Path, tmp_path: Path
) -> None:
    folder, frames = (tiny_hunyuan, 49) if family == "hunyuan_video" else (make_hunyuan15(tmp_path), 25)
    decoded = {}
    for tiles in ("blended", "none"):
        model = {"path": str(folder), "height": 48, "width": 48,
                 "options": {"frames": frames, "tiles": tiles}}  # fmt: skip
        policy: Any = open_policy(ModelConfig.model_validate(model))
        policy.vae.tile_sample_min_height = policy.vae.tile_sample_min_width = 32
        seen = list[tuple[int, ...]]()
        policy.vae.decoder.register_forward_hook(lambda m, given, out, s=seen: s.append(given[0].shape[2:]))
        clean = policy.initial_noise(1, torch.Generator().manual_seed(0))
        decoded[tiles] = policy.decode(clean)
        side = 32 // policy.vae.spatial_compression_ratio
        assert seen == ([(8, side, side)] * 3 * 2 * 2 if tiles == "blended" else [clean.shape[2:]])
    assert decoded["blended"].shape == decoded["none"].shape == (1, frames, 3, 48, 48)
    assert not torch.equal(decoded["blended"], decoded["none"])
    first = decoded["blended"][:, :9, :, :16, :16] - decoded["none"][:, :9, :, :16, :16]
    assert first.abs().mean() < 0.1  # far from other tiles, in the same place
