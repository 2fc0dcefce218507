"""Labels of parts of samples: of segments of clips, and of patches of pictures, on the latents' cells.

A label of a segment is a score; one of a patch is a weight in [0, 1]. K samples, S latent frames or patches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch.nn.functional import interpolate

from ...data.preferences import Preference
from ...models.shapes import Shape
from ...types import ParetuneError
from .presets import Composition

Grid = Sequence[Sequence[float]]


def segment_scores(labels: Sequence[Sequence[float]], frames: int, latent_frames: int) -> torch.Tensor:
    """The scores of latent frames from those of a clip's equal segments. [K, S].

    Args:
        labels: for each of K samples the scores of its n segments.
        frames: of a clip.
        latent_frames: S: the first is one frame of the clip, the others share the rest evenly.

    A latent frame has the scores of the segment in which most of its frames lie. Where no segment has more
    than half of them it is a tie: 0 for all samples.
    """
    count = len(labels[0])
    each = (frames - 1) / max(latent_frames - 1, 1)
    out = torch.zeros(len(labels), latent_frames)
    for j in range(latent_frames):
        first = 0 if j == 0 else round(1 + (j - 1) * each)
        last = 1 if j == 0 else round(1 + j * each)
        inside = Counter(place * count // frames for place in range(first, last))
        segment, most = inside.most_common(1)[0]
        if 2 * most > last - first:
            out[:, j] = torch.tensor([own[segment] for own in labels], dtype=torch.float32)
    return out


def patch_weights(grids: Sequence[Grid | None], latent: torch.Tensor, shape: Shape | None) -> torch.Tensor:
    """The weights of latent patches from grids of any size, by means over areas. [K, S].

    grids: of K samples; None: 1 everywhere. latent: one sample, [C, h, w], or packed [N, C], whose sides have
    the ratio of the picture's.
    """
    h, w = latent.shape[1:] if latent.ndim == 3 else _sides(latent.shape[0], shape)
    rows = [
        torch.ones(h * w) if grid is None
        else interpolate(torch.tensor(grid)[None, None].float(), (h, w), mode="area").flatten()
        for grid in grids
    ]  # fmt: skip
    return torch.stack(rows)


def _sides(count: int, shape: Shape | None) -> tuple[int, int]:
    ratio = 1.0 if shape is None else shape.height / shape.width
    h = round((count * ratio) ** 0.5)
    return h, count // h


def check_labels(record: Preference, preset: Composition, shape: Shape | None, clips: bool) -> None:
    """Raise ParetuneError if the labels of a record do not fit the objective or the model's samples."""
    if preset.cells == "frames" and record.segments is None:
        raise ParetuneError(
            f'{record.where}: this objective compares frames; give "segments", a list of scores a sample'
        )
    if record.segments is not None and not clips:
        raise ParetuneError(f'{record.where}: "segments" are of clips, and the model draws pictures')
    if record.patches is not None and clips:
        raise ParetuneError(f'{record.where}: "patches" are of pictures, and the model draws clips')
    frames = None if shape is None else shape.frames
    if record.segments is not None and frames is not None and len(record.segments[0]) > frames:
        told = f"{len(record.segments[0])} segments, but a clip has {frames} frames"
        raise ParetuneError(f"{record.where}: {told}")
