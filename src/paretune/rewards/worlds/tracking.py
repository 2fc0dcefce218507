"""Where the shape of a clip is in every frame, from pixels alone. Shapes: B clips, T frames.

The background is the commonest colour along the frame's rim; how far a pixel is from it tells how much of
the shape it holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# As colours differ from a background by at least about 0.4 in this distance, less is noise.
FLOOR = 0.12


@dataclass(frozen=True)
class Track:
    """places: [B, T, 2], the shape's centre (x, y) in pixels. mass: [B, T], its contrast summed.

    backgrounds: [B, 3]. weights: [B, T, H, W], each pixel's contrast, 0 where it is background.
    """

    places: torch.Tensor
    mass: torch.Tensor
    backgrounds: torch.Tensor
    weights: torch.Tensor

    @property
    def steps(self) -> torch.Tensor:
        """From each frame to the next: [B, T - 1, 2] pixels."""
        return self.places[:, 1:] - self.places[:, :-1]


def track(clips: torch.Tensor) -> Track:
    """clips: float [B, T, 3, H, W] in [0, 1]."""
    height, width = clips.shape[-2:]
    backgrounds = _rim(clips).median(dim=1).values
    contrast = (clips - backgrounds[:, None, :, None, None]).square().sum(2).sqrt()
    weights = (contrast - FLOOR).clamp(min=0)
    mass = weights.sum((2, 3))
    x, y = torch.arange(width).float(), torch.arange(height).float()
    total = mass.clamp(min=1e-6)
    places = torch.stack(
        [(weights.sum(2) * x).sum(2) / total, (weights.sum(3) * y).sum(2) / total], dim=2
    )
    return Track(places, mass, backgrounds, weights)


def _rim(clips: torch.Tensor) -> torch.Tensor:
    """The pixels of the outermost rows and columns of all frames. [B, N, 3]."""
    rows = torch.cat([clips[..., 0, :], clips[..., -1, :]], dim=-1)
    columns = torch.cat([clips[..., :, 0], clips[..., :, -1]], dim=-1)
    return torch.cat([rows, columns], dim=-1).permute(0, 1, 3, 2).flatten(1, 2)
