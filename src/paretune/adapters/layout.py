"""How a module's factors lie in an adapter file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Layout:
    """How a module's factors lie in a file. kernel: a convolution's kernel sizes, () for others."""

    kind: Literal["linear", "conv", "embedding"] = "linear"
    kernel: tuple[int, ...] = ()


@dataclass
class Factors:
    """One module's tensors: their names in the file, rank, and diffusers' alpha tensor if any.

    told: the rank and alpha that the configuration gives it; None where there is no configuration.
    rows: the rows of the stored B that are this module's, where a file keeps several in one; None: all.
    swap: whether the two halves of its rows are stored in the other order.
    """

    names: dict[str, str] = field(default_factory=dict)  # "A" and "B" -> tensor name
    layout: Layout = field(default_factory=Layout)
    rank: int = 0
    shape: tuple[int, int] = (0, 0)
    alpha: str | None = None
    told: tuple[int, float] | None = None
    rows: tuple[int, int] | None = None
    swap: bool = False
