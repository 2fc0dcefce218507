"""The CLIP networks of the rewards, each loaded once, and each batch of pictures read once by each.

Rewards that name the same network share it, and its features of the batch that they score one after the
other. Rewards of other weights with the same way to prepare pictures share the prepared pictures. What is
remembered is the result for a whole batch, so that a score does not depend on who asked first.
Pictures are prepared in torch as CLIP's processor does it with PIL, bytes aside.

Shapes: B pictures of H x W, N texts, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch.nn import functional

from paretune.foreign.loading import load

from ..hub import frozen, normalised, processor_settings
from ..pinned import PINNED, pinned
from .memo import Memo, digest

PREPARED, FEATURES = 256 << 20, 32 << 20  # bytes that are remembered
# A way to bring pictures to a square: [B, 3, H, W] and a size -> [B, 3, size, size].
Squared = Callable[[torch.Tensor, int], torch.Tensor]
Read = Callable[[str, str, str | None, str | None], Any]
_clips: WeakValueDictionary[Any, Clip] = WeakValueDictionary()
_prepared = Memo(PREPARED)


def shared_clip(
    model: str,
    processor: str,
    device: str | None = None,
    revision: str | None = None,
    read: Read | None = None,
) -> Clip:
    """The CLIP of a hub id or folder: one for all rewards of this process that ask for the same.

    processor: where its tokenizer and its pictures' mean and deviation lie. revision: the commit of `model`.
    read: what makes the network of these arguments, for files in other names than transformers'.
    """
    revision = revision or PINNED.get(model)
    key = (model, processor, device, revision, read)
    if (known := _clips.get(key)) is None:
        network = None if read is None else read(model, processor, device, revision)
        known = _clips[key] = Clip(model, processor, device, revision, network)
    return known


class Clip:
    """A CLIP of transformers in float32, with its tokenizer and its own way to prepare pictures.

    network: one that is loaded already, in place of `model`'s.
    """

    def __init__(
        self,
        model: str,
        processor: str,
        device: str | None = None,
        revision: str | None = None,
        network: Any = None,
    ) -> None:
        from transformers import AutoTokenizer, CLIPModel

        self.network = network or frozen(CLIPModel, model, device, **pinned(model, revision))
        self.device: torch.device = self.network.device
        self.tokenizer = load(
            AutoTokenizer, processor, f"reward model {processor}", **pinned(processor)
        )
        settings = processor_settings(processor, **pinned(processor))
        self._mean, self._std = settings["image_mean"], settings["image_std"]
        self._size: int = self.network.config.vision_config.image_size
        self._length: int = self.network.config.text_config.max_position_embeddings
        self.scale = float(self.network.logit_scale.exp())
        self._features = Memo(FEATURES)

    @torch.no_grad()
    def pictures(self, pictures: torch.Tensor, square: Squared | None = None) -> torch.Tensor:
        """Unit features [B, D] of pictures [B, 3, H, W] in [0, 1]. square: `squared`, unless given."""
        key = digest(pictures)
        return self._features.get(
            (key, square), lambda: functional.normalize(self._pooled(pictures, square, key), dim=-1)
        )

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit features [N, D] of texts, each cut at the model's length."""
        return self._features.get(("texts", *texts), lambda: self._text_features(texts))

    def prepared(
        self, pictures: torch.Tensor, square: Squared | None = None, key: bytes | None = None
    ) -> torch.Tensor:
        """What the network is shown of pictures: [B, 3, size, size], normalised. key: their digest."""
        way = square or squared
        told = (key or digest(pictures), way, self._size, *self._mean, *self._std, self.device)
        return _prepared.get(told, lambda: self._prepare(pictures, way))

    def _prepare(self, pictures: torch.Tensor, square: Squared) -> torch.Tensor:
        pixels = square(pictures.detach().to(self.device, torch.float32), self._size)
        return normalised(pixels, self._mean, self._std)

    def _pooled(self, pictures: torch.Tensor, square: Squared | None, key: bytes) -> torch.Tensor:
        pooled = self.network.vision_model(self.prepared(pictures, square, key)).pooler_output
        return self.network.visual_projection(pooled)

    def _text_features(self, texts: Sequence[str]) -> torch.Tensor:
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._length, return_tensors="pt"
        ).to(self.device)
        pooled = self.network.text_model(tokens.input_ids, tokens.attention_mask).pooler_output
        return functional.normalize(self.network.text_projection(pooled), dim=-1)


def squared(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """[B, 3, H, W] -> [B, 3, size, size]: the shorter side to `size` (bicubic), then the middle."""
    # Of a thin strip, only what is near its middle: enlarging all of it could take gigabytes.
    most = 4 * min(pictures.shape[-2:])
    cuts = [max(0, side - most) // 2 for side in pictures.shape[-2:]]
    pictures = pictures[..., cuts[0] :, cuts[1] :][..., :most, :most]
    height, width = pictures.shape[-2:]
    shape = [max(size, side * size // min(height, width)) for side in (height, width)]
    resized = functional.interpolate(pictures, shape, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = ((side - size) // 2 for side in shape)
    return resized[..., top : top + size, left : left + size]


def padded(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """[B, 3, H, W] -> [B, 3, size, size]: the longer side to `size` (bicubic), black on both sides."""
    height, width = pictures.shape[-2:]
    shape = [max(1, round(side * size / max(height, width))) for side in (height, width)]
    if shape != [height, width]:
        pictures = functional.interpolate(pictures, shape, mode="bicubic", antialias=True).clamp(0, 1)
    down, across = (size - side for side in shape)
    return functional.pad(pictures, (across // 2, across - across // 2, down // 2, down - down // 2))
