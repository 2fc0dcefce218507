"""How a module's factors are stored in an adapter file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Layout:
    """The kind of a module, which decides the shapes of its factors. kernel: of a convolution, else ()."""

    kind: Literal["linear", "conv", "embedding"] = "linear"
    kernel: tuple[int, ...] = ()


@dataclass
class Factors:
    """The stored factors of one module: names in the file, rank, shape, and diffusers' alpha tensor if any.

    configured: the rank and alpha of the configuration; None without a configuration.
    rows: the rows of the stored B that belong to this module, if the file joins several modules; None: all.
    swap: whether the two halves of its rows are stored in the other order.
    """

    names: dict[str, str] = field(default_factory=dict)  # "A" and "B" -> tensor name
    layout: Layout = field(default_factory=Layout)
    rank: int = 0
    shape: tuple[int, int] = (0, 0)
    alpha: str | None = None
    configured: tuple[int, float] | None = None
    rows: tuple[int, int] | None = None
    swap: bool = False
