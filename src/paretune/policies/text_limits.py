"""How many tokens of a prompt each text encoder of a family reads, as the families' pipelines do."""

from __future__ import annotations

from typing import NamedTuple

from ..config import ModelConfig
from .options import FlowOptions, SD3Options, VideoOptions, read_options

# The words that HunyuanVideoPipeline writes around a prompt, of which it drops the first `_BEFORE` tokens.
_WRITTEN = (
    "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
)
_BEFORE = 95
CLIP = 77


class Limit(NamedTuple):
    """tokens: of a prompt; 0: as the tokenizer says. written: around it; before: tokens of that, dropped."""

    tokenizer: str
    encoder: str
    tokens: int = 0
    written: str = "{}"
    before: int = 0


def limits_of(family: str, model: ModelConfig) -> list[Limit]:
    """The encoders of a family's pipeline; none of a language model."""
    if family == "sd3":
        own = read_options(SD3Options, model)
        both = [Limit("tokenizer", "text_encoder"), Limit("tokenizer_2", "text_encoder_2")]
        length = 256 if own.max_sequence_length is None else own.max_sequence_length
        return [*both, *([Limit("tokenizer_3", "text_encoder_3", length)] if own.load_t5 else [])]
    if family == "flux":
        length = read_options(FlowOptions, model).max_sequence_length or 512
        return [Limit("tokenizer", "text_encoder"), Limit("tokenizer_2", "text_encoder_2", length)]
    if family == "hunyuan_video":
        length = read_options(VideoOptions, model).max_sequence_length or 256
        llama = Limit("tokenizer", "text_encoder", length, _WRITTEN, _BEFORE)
        return [llama, Limit("tokenizer_2", "text_encoder_2", CLIP)]
    return []
