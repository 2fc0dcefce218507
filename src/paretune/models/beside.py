"""Input pictures whose packed latents follow those of the sample in the transformer's sequence.

Pictures may differ in size, so the samples of a batch are run by size. In `Conditions.more`: picture
[P, M, C], the latents, of smaller pictures with zeros after them; picture_size [P, 2], height and width in
tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from .conditions import Conditions

# (x, sigma, conditions) -> the velocity
Velocity = Callable[[torch.Tensor, torch.Tensor, Conditions], torch.Tensor]


def encode_pictures(policy: Any, pixels: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of P pictures for `Conditions.more`.

    Args:
        policy: a `PipelinePolicy` whose `scale` packs latents two by two.
        pixels: one picture each as the autoencoder takes it, [1, 3, .., h, w] in [-1, 1].
    """
    policy.vae.to(policy.device)
    side = 2 * policy.pipe.vae_scale_factor
    latents, sizes = list[torch.Tensor](), list[tuple[int, int]]()
    for one in pixels:
        z = policy.vae.encode(one.to(policy.device, policy.vae.dtype)).latent_dist.mode()
        latents.append(policy.scale(z)[0].float())
        sizes.append((one.shape[-2] // side, one.shape[-1] // side))
    policy.vae.to("cpu")
    return _packed(latents, sizes)


def random_pictures(policy: Any, count: int, height: int, width: int) -> dict[str, torch.Tensor]:
    """Random tensors in the place of those of pictures of this size in pixels."""
    side = 2 * policy.pipe.vae_scale_factor
    size = (height // side, width // side)
    shape = (count, size[0] * size[1], policy.latent_shape[-1])
    return _packed(torch.randn(shape, device=policy.device, dtype=policy.dtype), [size] * count)


def _packed(latents: Iterable[torch.Tensor], sizes: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
    picture = pad_sequence(list(latents), batch_first=True)
    return {"picture": picture, "picture_size": torch.tensor(sizes, device=picture.device)}


def size_of(conditions: Conditions) -> tuple[int, int]:
    """Height and width of the pictures in tokens. All must have one size."""
    height, width = conditions.more["picture_size"][0].tolist()
    return height, width


def pictures_of(conditions: Conditions) -> torch.Tensor:
    """The packed latents of pictures of one size, [B, M, C]."""
    height, width = size_of(conditions)
    return conditions.more["picture"][:, : height * width]


def by_size(x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, run: Velocity) -> torch.Tensor:
    """The velocity of samples beside pictures of any sizes. run: for samples whose pictures have one size."""
    sizes, group = torch.unique(conditions.more["picture_size"], dim=0, return_inverse=True)
    rows = [(group == number).nonzero().flatten() for number in range(len(sizes))]
    parts = [run(x[row], sigma[row], conditions.select(row)) for row in rows]
    return torch.cat(parts)[torch.cat(rows).argsort()]
