"""Adapters that other tools wrote for SD3, FLUX, HunyuanVideo and Wan, read under diffusers' names.

    lora_unet_double_blocks_0_img_attn_qkv        kohya's sd-scripts, musubi-tuner
    lora_transformer_transformer_blocks_0_attn_to_q   OneTrainer
    diffusion_model.double_blocks.0.img_attn.qkv  ComfyUI, SimpleTuner, ai-toolkit
    double_blocks.0.processor.qkv_lora1           XLabs
    double_blocks.0.img_attn.qkv                  the original authors; fal, behind peft's prefix
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..types import ParetuneError
from .layout import Factors
from .original_names import Found, diffusers_of, original_of

# What a name begins with -> whose it is. The original models' own names begin with their blocks.
_TOOLS = {
    "lora_unet_": "kohya",
    "lora_te": "kohya",
    "lora_transformer_": "kohya",
    "lycoris_": "LyCORIS",
    "diffusion_model.": "ComfyUI",
    "model.diffusion_model.": "ComfyUI",
    "double_blocks.": "the original FLUX or HunyuanVideo",
    "single_blocks.": "the original FLUX or HunyuanVideo",
    "joint_blocks.": "the original SD3",
}


def tool_of(name: str) -> str | None:
    """Whose key names a module's name is of; None for peft's and diffusers'."""
    return next((tool for start, tool in _TOOLS.items() if name.startswith(start)), None)


def translate(path: Path, modules: Mapping[str, Factors]) -> dict[str, Factors]:
    """The modules under diffusers' names, split where the originals keep several in one.

    Raises ParetuneError for a name that no table has and for rows that do not split.
    """
    tool = next(tool for name in modules if (tool := tool_of(name)))
    done: dict[str, Factors] = {}
    for name, factors in modules.items():
        found = _find(name)
        if found is None:
            raise ParetuneError(_unknown(path, name, tool_of(name) or tool))
        for target, part in zip(found.targets, _split(path, name, factors, found, tool), strict=True):
            if target in done:
                raise ParetuneError(f"{path} changes {target} twice, by {name} and another of its modules")
            done[target] = part
    return done


def _unknown(path: Path, name: str, tool: str) -> str:
    if name.startswith("lora_te"):
        return (
            f"{path} cannot be merged ({name}): kohya key names of a text encoder: merge one model's "
            "adapters only"
        )
    return (
        f"{path} cannot be merged ({name}): {tool} key names: load and save it once with diffusers "
        "(load_lora_weights, then save_lora_weights); SD3's, FLUX's, HunyuanVideo's and Wan's are read"
    )


def _find(name: str) -> Found | None:
    for start in ("lora_unet_", "model.diffusion_model.", "diffusion_model."):
        if name.startswith(start):
            rest, flat = name.removeprefix(start), start == "lora_unet_"
            return original_of(rest, flat) or diffusers_of(rest, flat)
    if name.startswith("lora_transformer_"):
        return diffusers_of(name.removeprefix("lora_transformer_"), flat=True)
    return original_of(name)


def _split(path: Path, name: str, factors: Factors, found: Found, tool: str) -> list[Factors]:
    """The factors of each of a module's parts: the same A, and rows of B."""
    rows, columns = factors.shape
    original = found.original
    swap = original.swap == "always" or (original.swap == "halves" and rows == 2 * columns)
    unit, rest = divmod(rows, sum(original.shares))
    if rest or (swap and rows % 2):
        raise ParetuneError(
            f"{path} cannot be merged ({name}): {tool} key names, but its {rows} rows do not split into "
            f"{' and '.join(found.targets)}"
        )
    if len(original.shares) == 1:
        return [replace(factors, swap=swap)]
    parts, start = [], 0
    for share in original.shares:
        end = start + unit * share
        parts.append(replace(factors, shape=(end - start, columns), rows=(start, end)))
        start = end
    return parts
