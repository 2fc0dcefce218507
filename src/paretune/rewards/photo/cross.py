"""The cross-attention that MPS puts between picture and text, in the names of its published weights.

The layers of lucidrains' CoCa (github lucidrains/CoCa-pytorch), as github Kwai-Kolors/MPS uses them: each
looks at the text and then at the other positions of the picture, both beside a feed-forward part, and one key
and one value serve all heads. Shapes: B pictures, Q positions of a picture, K tokens, D features, H heads.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Norm(nn.Module):
    """A layer norm without a trained offset; the file holds one of zeros."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.register_buffer("bias", torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[.., width] of the same."""
        return functional.layer_norm(x, x.shape[-1:], self.weight, self.get_buffer("bias"))


class Gated(nn.Module):
    """SiLU of the second half times the first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[.., D] of [.., 2 D]."""
        values, gate = x.chunk(2, dim=-1)
        return functional.silu(gate) * values


class Rotary(nn.Module):
    """Angles of positions: [Q, head]."""

    def __init__(self, head: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / (10000 ** (torch.arange(0, head, 2).float() / head)))

    def forward(self, count: int) -> torch.Tensor:
        """The angles of `count` positions."""
        speeds = self.get_buffer("inv_freq")
        angles = torch.outer(torch.arange(count, device=speeds.device, dtype=speeds.dtype), speeds)
        return torch.cat([angles, angles], dim=-1)


class Looks(nn.Module):
    """Attention from picture positions [B, Q, D] to tokens [B, K, D]. mask: [B, Q, K], added."""

    def __init__(self, width: int, heads: int, head: int, wide: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = Norm(width)
        self.to_q = nn.Linear(width, heads * head, bias=False)
        self.to_kv = nn.Linear(width, 2 * head, bias=False)
        self.to_out = nn.Linear(heads * head, width, bias=False)
        self.ff = nn.Sequential(
            nn.Linear(width, 2 * wide, bias=False), Gated(), nn.Linear(wide, width, bias=False)
        )

    def forward(self, x: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[B, Q, D], without what went in."""
        x = self.norm(x)
        key, value = self.to_kv(tokens).chunk(2, dim=-1)
        return self.to_out(_attend(self.to_q(x), key, value, self.heads, mask)) + self.ff(x)


class Parallel(nn.Module):
    """Attention among positions [B, Q, D], beside a feed-forward part; one matrix makes all inputs."""

    def __init__(self, width: int, heads: int, head: int, wide: int) -> None:
        super().__init__()
        self.heads, self.sizes = heads, (heads * head, head, head, 2 * wide)
        self.norm, self.rotary_emb = Norm(width), Rotary(head)
        self.fused_attn_ff_proj = nn.Linear(width, sum(self.sizes), bias=False)
        self.attn_out = nn.Linear(heads * head, width, bias=False)
        self.ff_out = nn.Sequential(Gated(), nn.Linear(wide, width, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, Q, D], without what went in."""
        query, key, value, inner = self.fused_attn_ff_proj(self.norm(x)).split(self.sizes, dim=-1)
        angles = self.rotary_emb(x.shape[1])
        turned = _turned(query.unflatten(-1, (self.heads, -1)), angles[:, None]).flatten(-2)
        return self.attn_out(_attend(turned, _turned(key, angles), value, self.heads)) + self.ff_out(inner)


class Residual(nn.Module):
    """x + fn(x, ..)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        """What went in, and what `fn` made of it."""
        return x + self.fn(x, *more)


class CrossModel(nn.Module):
    """Picture positions that have looked at the tokens, `layers` times."""

    def __init__(self, width: int, layers: int = 4, heads: int = 16, head: int = 64, wider: int = 4) -> None:
        super().__init__()
        sizes = (width, heads, head, wider * width)
        self.layers = nn.ModuleList(
            nn.ModuleList([Residual(Looks(*sizes)), Residual(Parallel(*sizes))]) for _ in range(layers)
        )

    def forward(self, x: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[B, Q, D] of positions [B, Q, D], tokens [B, K, D] and a mask [B, Q, K] that is added."""
        for pair in self.layers:
            looks, parallel = pair.children()
            x = parallel(looks(x, tokens, mask))
        return x


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """[B, Q, H * head] of queries [B, Q, H * head], and one key and value [B, K, head] for all heads."""
    split = query.unflatten(-1, (heads, -1)) * key.shape[-1] ** -0.5
    logits = torch.einsum("bqhd,bkd->bhqk", split, key)
    chances = (logits if mask is None else logits + mask[:, None]).softmax(-1)
    return torch.einsum("bhqk,bkd->bqhd", chances, value).flatten(-2)


def _turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotary position: the two halves of the last axis are a number's real and imaginary parts."""
    first, second = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()
