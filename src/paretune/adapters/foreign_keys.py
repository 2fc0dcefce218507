"""Translation of other tools' key names for SD3, FLUX, HunyuanVideo and Wan into diffusers' names.

    lora_unet_double_blocks_0_img_attn_qkv        kohya's sd-scripts, musubi-tuner
    lora_transformer_transformer_blocks_0_attn_to_q   OneTrainer
    diffusion_model.double_blocks.0.img_attn.qkv  ComfyUI, SimpleTuner, ai-toolkit
    double_blocks.0.processor.qkv_lora1           XLabs
    double_blocks.0.img_attn.qkv                  the original authors; fal, behind peft's prefix
    blocks.0.self_attn.q                          the original authors of Wan
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..types import ParetuneError
from .layout import Factors
from .original_names import NameMatch, diffusers_of, original_of

# Beginning of a module's name -> the tool that writes it. Names in the original models begin with a block;
# Wan's begin as diffusers' do.
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
_WAN = re.compile(r"blocks\.\d+\.((self|cross)_attn\.(q|k|v|o|k_img|v_img)|ffn\.[02])$")


def tool_of(name: str) -> str | None:
    """The tool that writes such a module name; None for peft and diffusers."""
    if _WAN.match(name):
        return "the original Wan"
    return next((tool for start, tool in _TOOLS.items() if name.startswith(start)), None)


def translate(path: Path, modules: Mapping[str, Factors]) -> dict[str, Factors]:
    """The modules under diffusers' names, split where an original module holds several of diffusers'.

    Raises ParetuneError for a name that is in no table, and for rows that cannot be split.
    """
    tool = next(tool for name in modules if (tool := tool_of(name)))
    translated: dict[str, Factors] = {}
    for name, factors in modules.items():
        match = _find(name)
        if match is None:
            raise ParetuneError(_unknown(path, name, tool_of(name) or tool))
        for target, part in zip(match.targets, _split(path, name, factors, match, tool), strict=True):
            if target in translated:
                raise ParetuneError(f"{path} changes {target} twice, by {name} and another of its modules")
            translated[target] = part
    return translated


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


def _find(name: str) -> NameMatch | None:
    for start in ("lora_unet_", "model.diffusion_model.", "diffusion_model."):
        if name.startswith(start):
            rest, flat = name.removeprefix(start), start == "lora_unet_"
            return original_of(rest, flat) or diffusers_of(rest, flat)
    if name.startswith("lora_transformer_"):
        return diffusers_of(name.removeprefix("lora_transformer_"), flat=True)
    return original_of(name)


def _split(path: Path, name: str, factors: Factors, match: NameMatch, tool: str) -> list[Factors]:
    """The factors of each part of a module: the same A, and some rows of B."""
    rows, columns = factors.shape
    original = match.original
    swap = original.swap == "always" or (original.swap == "halves" and rows == 2 * columns)
    unit, rest = divmod(rows, sum(original.shares))
    if rest or (swap and rows % 2):
        raise ParetuneError(
            f"{path} cannot be merged ({name}): {tool} key names, but its {rows} rows do not split into "
            f"{' and '.join(match.targets)}"
        )
    if len(original.shares) == 1:
        return [replace(factors, swap=swap)]
    parts, start = [], 0
    for share in original.shares:
        end = start + unit * share
        parts.append(replace(factors, shape=(end - start, columns), rows=(start, end)))
        start = end
    return parts
