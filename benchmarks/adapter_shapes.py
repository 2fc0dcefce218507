"""The shapes of LoRA adapters of SD3.5-Medium and FLUX.1-dev at the targets that Flow-GRPO trains.

They equal those of diffusers' own transformers built on the meta device. Of FLUX.1-dev only the 19
double-stream blocks are taken, 228 modules. The published targets end in attn.to_q, to_k and to_v, which
diffusers also finds in the 38 single-stream blocks: 114 modules more, 342 in all, are not measured here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj"]


@dataclass(frozen=True)
class Shapes:
    """A model's adapted modules: name -> (out, in), and the published rank and alpha."""

    rank: int
    alpha: int
    modules: dict[str, tuple[int, int]]

    def sample(self, count: int) -> list[str]:
        """The first `count` modules of every shape."""
        taken: dict[tuple[int, int], int] = {}
        names = []
        for name, shape in self.modules.items():
            taken[shape] = taken.get(shape, 0) + 1
            if taken[shape] <= count:
                names.append(name)
        return names

    def count(self, shape: tuple[int, int]) -> int:
        """How many modules have a shape."""
        return sum(other == shape for other in self.modules.values())


def sd35_medium() -> Shapes:
    """24 joint blocks, hidden 1536; the last has no to_add_out. attn2 is not among the targets."""
    names = [f"transformer_blocks.{b}.attn.{t}" for b in range(24) for t in ATTENTION]
    names += [f"transformer_blocks.{b}.attn.to_add_out" for b in range(23)]
    return Shapes(32, 64, dict.fromkeys(names, (1536, 1536)))


def flux1_dev() -> Shapes:
    """19 double-stream blocks, hidden 3072, with both feed-forwards; no single-stream block."""
    modules: dict[str, tuple[int, int]] = {}
    for block in range(19):
        prefix = f"transformer_blocks.{block}."
        modules |= {f"{prefix}attn.{t}": (3072, 3072) for t in [*ATTENTION, "to_add_out"]}
        for part in ("ff", "ff_context"):
            modules[f"{prefix}{part}.net.0.proj"] = (12288, 3072)
            modules[f"{prefix}{part}.net.2"] = (3072, 12288)
    return Shapes(64, 128, modules)


MODELS: dict[str, Callable[[], Shapes]] = {"sd35-medium": sd35_medium, "flux1-dev": flux1_dev}
