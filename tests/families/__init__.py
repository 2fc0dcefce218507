"""One file for each family of models: what the shared tests of families have to know of it.

`tests/integration/test_every_family.py` runs the same tests for every CASE that is found here. A new family
adds one file, and no test is copied.
"""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from paretune.inputs.pictures import with_picture
from paretune.types import Prompt

PROMPTS = ("a red circle", "two blue squares")


def load_lora(pipe: Any, folder: Path) -> None:
    """Load an adapter as the users of diffusers do."""
    pipe.load_lora_weights(str(folder))


def write_picture(path: Path, size: tuple[int, int], seed: int) -> None:
    """A picture of random pixels. size: its width and height."""
    from PIL import Image

    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.byte().numpy()).save(path)


@dataclass(frozen=True)
class FamilyCase:
    """A family on a tiny random pipeline.

    name: of the case. make: writes a tiny random pipeline below an empty folder, saved by the real library,
    and returns the pipeline's folder. model: the keys of `model` in a recipe, without `path`: a small size.
    recipe: the name of the shipped recipe with the published settings.
    theirs(policy, prompts, noise, steps, guidance): what `policy.pipe` itself draws from that noise, as
    `policy.decode` gives it: [B, (T,) 3, H, W] in [0, 1]. guidances: one value without guidance and one with.
    tokens: the text encoders that take reward tokens; empty if none does. refusal: then, a part of the line
    that says so. load_lora: how plain diffusers loads the final adapter. changes: further keys of a test's
    recipe by section. pictures: width and height of the input pictures of the prompts, in turn; empty for a
    family that takes none.
    """

    name: str
    make: Callable[[Path], Path]
    model: Mapping[str, Any]
    recipe: str
    theirs: Callable[[Any, Sequence[str], torch.Tensor, int, float], torch.Tensor]
    guidances: tuple[float, float]
    tokens: tuple[str, ...] = ()
    refusal: str = ""
    load_lora: Callable[[Any, Path], None] = load_lora
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    pictures: tuple[tuple[int, int], ...] = ()

    def prompts(self, folder: Path) -> tuple[Prompt, ...]:
        """PROMPTS, with input pictures that are written to a folder."""
        if not self.pictures:
            return tuple(Prompt(text) for text in PROMPTS)
        made = []
        for number, (text, size) in enumerate(zip(PROMPTS, self.pictures, strict=True)):
            write_picture(folder / f"{number}.png", size, number)
            made.append(with_picture(Prompt(text), str(folder / f"{number}.png")))
        return tuple(made)


@functools.cache
def cases() -> dict[str, FamilyCase]:
    """Every case by the name of its file."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return {name: import_module(f"{__name__}.{name}").CASE for name in names}
