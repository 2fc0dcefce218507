"""Four dimensions of VBench (CVPR 2024) for any clip, as judges: flicker, consistency, and how much moves.

Formulas are those of github Vchitect/VBench (Apache-2.0), files vbench/temporal_flickering.py,
subject_consistency.py, background_consistency.py and dynamic_degree.py. The networks come from transformers:
DINO ViT-B/16 and CLIP ViT-B/32 are VBench's own; for the optical flow VBench takes RAFT, which no library
here has, and this file takes Perceiver IO (arXiv 2107.14795), so that `vbench_dynamic` is VBench's rule on
another network's flow and its values are not comparable with published ones.

None of them is a reward to train on alone: a still clip has no flicker and is perfectly consistent.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional

from paretune.types import ParetuneError, Prompt

from ..hub import frozen, normalised
from ..pinned import pinned

DINO = "facebook/dino-vitb16"
CLIP = "openai/clip-vit-base-patch32"
FLOW = "deepmind/optical-flow-perceiver"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_PIXELS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIDE = 224
SEEN_RATE = 8  # frames a second that the dynamic degree looks at
FLOW_SCALE = 20.0  # of the published flow model: github deepmind/deepmind-research, issue 266


class Flicker:
    """1 minus the mean absolute difference of neighbouring frames. VBench asks it of still scenes."""

    name, range, higher_is_better = "vbench_flicker", (0.0, 1.0), True

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, T, 3, H, W] in [0, 1], T from 2. Returns float32 [B]."""
        frames = _whole(_clips(self.name, samples))
        return 1 - (frames[:, 1:] - frames[:, :-1]).abs().mean(dim=(1, 2, 3, 4)) / 255


class SubjectConsistency:
    """How alike frames are in DINO: of each frame the mean of its cosines with the former and the first."""

    name, range, higher_is_better = "vbench_subject", (0.0, 1.0), True

    def __init__(
        self, model: str = DINO, device: str | None = None, revision: str | None = None
    ) -> None:
        from transformers import ViTModel

        commit = pinned(model, revision)
        self._network: Any = frozen(ViTModel, model, device, add_pooling_layer=False, **commit)

    @torch.no_grad()
    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, T, 3, H, W] in [0, 1], T from 2. Returns float32 [B]."""
        return torch.stack([consistency(self._features(c)) for c in _clips(self.name, samples)])

    def _features(self, clip: torch.Tensor) -> torch.Tensor:
        pixels = normalised(shorter_side(_whole(clip).to(self._network.device), "bilinear") / 255, *IMAGENET)
        rows = [
            self._network(frame[None], interpolate_pos_encoding=True).last_hidden_state[:, 0]
            for frame in pixels
        ]
        return torch.cat(rows).cpu()


class BackgroundConsistency:
    """How alike frames are in CLIP, as `SubjectConsistency`."""

    name, range, higher_is_better = "vbench_background", (0.0, 1.0), True

    def __init__(
        self, model: str = CLIP, device: str | None = None, revision: str | None = None
    ) -> None:
        from transformers import CLIPModel

        self._network: Any = frozen(CLIPModel, model, device, **pinned(model, revision))

    @torch.no_grad()
    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, T, 3, H, W] in [0, 1], T from 2. Returns float32 [B]."""
        return torch.stack([consistency(self._features(c)) for c in _clips(self.name, samples)])

    def _features(self, clip: torch.Tensor) -> torch.Tensor:
        side = self._network.config.vision_config.image_size
        pixels = shorter_side(_whole(clip).to(self._network.device), "bicubic", side)
        top, left = ((length - side) // 2 for length in pixels.shape[-2:])
        cut = pixels[..., top : top + side, left : left + side] / 255
        pooled = self._network.vision_model(normalised(cut, *CLIP_PIXELS)).pooler_output
        return self._network.visual_projection(pooled).cpu()


class DynamicDegree:
    """1 where something moves fast in enough frames, else 0. rate: frames a second of the clips."""

    name, range, higher_is_better = "vbench_dynamic", (0.0, 1.0), True

    def __init__(
        self, rate: float = 24.0, model: str = FLOW, device: str | None = None, revision: str | None = None
    ) -> None:
        from transformers import PerceiverForOpticalFlow

        self._step = max(1, round(rate / SEEN_RATE))
        self._network: Any = frozen(PerceiverForOpticalFlow, model, device, **pinned(model, revision))

    @torch.no_grad()
    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, T, 3, H, W] in [0, 1], T from 2. Returns float32 [B], 0 or 1."""
        return torch.tensor([float(self._moves(clip)) for clip in _clips(self.name, samples)])

    def _moves(self, clip: torch.Tensor) -> bool:
        frames = _whole(clip[:: self._step])
        speeds = [fastest(self._flow(first, second)) for first, second in pairwise(frames)]
        return moves(speeds, len(frames), min(clip.shape[-2:]))

    def _flow(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """[H, W, 2] in pixels, from two frames [3, H, W] that are brought to the network's size and back."""
        height, width = self._network.config.train_size
        pair = torch.stack([first, second]).to(self._network.device)
        scaled = functional.interpolate(pair, (height, width), mode="bilinear", antialias=True) / 127.5 - 1
        flow = self._network(inputs=neighbourhoods(scaled)[None]).logits[0] * FLOW_SCALE
        return flow * flow.new_tensor([first.shape[-1] / width, first.shape[-2] / height])


def consistency(features: torch.Tensor) -> torch.Tensor:
    """The mean over frames 2..T of (cosine with the former + cosine with the first) / 2, each from 0 up."""
    unit = functional.normalize(features.float(), dim=-1)
    former = (unit[1:] * unit[:-1]).sum(-1).clamp(min=0)
    return ((former + (unit[1:] @ unit[0]).clamp(min=0)) / 2).mean()


def fastest(flow: torch.Tensor) -> float:
    """The mean length of the 5 % longest arrows of a flow [H, W, 2]."""
    lengths = flow.norm(dim=-1).flatten()
    return float(lengths.topk(max(1, int(len(lengths) * 0.05))).values.mean())


def moves(speeds: Sequence[float], frames: int, side: int) -> bool:
    """VBench: round(4 frames / 16) of the speeds, at least one, are above 6 pixels of a side of 256."""
    return sum(speed > 6.0 * side / 256.0 for speed in speeds) >= max(1, round(4 * frames / 16.0))


def neighbourhoods(frames: torch.Tensor) -> torch.Tensor:
    """[2, 3, H, W] -> [2, 27, H, W]: the 3 x 3 pixels around each, row by row, channels last; 0 outside."""
    size = frames.shape[-2:]
    parts = functional.unfold(frames, 3, padding=1).view(len(frames), 3, 9, *size)
    return parts.transpose(1, 2).reshape(len(frames), 27, *size)


def shorter_side(frames: torch.Tensor, mode: str, side: int = SIDE) -> torch.Tensor:
    """Whole numbers 0..255 with a shorter side of `side`, resized without antialiasing as VBench does."""
    height, width = frames.shape[-2:]
    shape = [side if length == min(height, width) else int(side * length / min(height, width))
             for length in (height, width)]  # fmt: skip
    return functional.interpolate(frames, shape, mode=mode, align_corners=False).clamp(0, 255).round()


def _whole(frames: torch.Tensor) -> torch.Tensor:
    return (frames.detach().float().clamp(0, 1) * 255).round()


def _clips(name: str, samples: torch.Tensor) -> torch.Tensor:
    if samples.ndim != 5 or samples.shape[1] < 2:
        raise ParetuneError(f"{name} scores clips of two frames or more, [B, T, 3, H, W]")
    return samples
