"""The parts of a diffusers pipeline that an adapter changes: one transformer, or two in one adapter.

An adapter of one transformer has the module names of that transformer. In an adapter of two, such as experts
for high and for low noise, every name begins with "transformer_1." or "transformer_2.". diffusers loads one
transformer at a time, and wants names that begin with "transformer." for both:

    pipe.load_lora_weights(folder)
    pipe.load_lora_weights(folder, weight_name="pytorch_lora_weights_2.safetensors",
                           load_into_transformer_2=True)
"""

from __future__ import annotations

from collections.abc import Iterable

DIFFUSERS = "pytorch_lora_weights.safetensors"
# With what the names of a transformer's modules begin in an adapter of two -> its folder in the pipeline.
PAIR = {"transformer_1": "transformer", "transformer_2": "transformer_2"}
PAIR_FILES = dict(zip(PAIR, (DIFFUSERS, "pytorch_lora_weights_2.safetensors"), strict=True))


def part_of(module: str) -> str:
    """The key of PAIR with which a module's name begins, "" if none."""
    first = module.partition(".")[0]
    return first if first in PAIR else ""


def is_pair(modules: Iterable[str]) -> bool:
    """Whether these are the modules of an adapter of two transformers, of which one may be left out."""
    return all(part_of(name) for name in modules)


def files_of(modules: Iterable[str], component: str) -> list[tuple[str, str, str]]:
    """diffusers' files of an adapter: name, beginning of the module names that it holds, that in the file.

    component: the part of a pipeline that an adapter of one part changes.
    """
    present = {part_of(name) for name in modules}
    if "" in present:
        return [(DIFFUSERS, "", f"{component}.")]
    return [(file, f"{part}.", "transformer.") for part, file in PAIR_FILES.items() if part in present]
