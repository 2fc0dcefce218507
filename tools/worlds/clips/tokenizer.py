"""The world's two tokenizers: CLIP's, and one in the place of Llama's.

HunyuanVideo puts a prompt into a system text and drops the first 95 tokens of what comes out. So this one
cuts that system text into exactly 95: words and signs, of which one word is cut in two.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import re
from pathlib import Path

from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from paretune.worlds.clips.scenes import DIRECTIONS, ENDING_FALSE, ENDING_TRUE, ENDINGS_IDLE, SPEEDS
from paretune.worlds.pictures.scenes import COLORS, SHAPES

from ..pictures.tokenizer import build_tokenizer

MARKS = ("<|begin_of_text|>", "<|end_of_text|>", "<pad>", "<unk>",
         "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")  # fmt: skip
PIECES = r"<\|\w+\|>|\n+|detail(?=ing)|(?<=detail)ing|\w+|[^\w\s]"


def words() -> list[str]:
    """Every word of a caption."""
    endings = [ENDING_TRUE, ENDING_FALSE, *ENDINGS_IDLE]
    return [*COLORS, *SHAPES, *DIRECTIONS, *SPEEDS, "a", "an", "moves", *endings]


def build_clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """One token a word of a caption, letters for any other."""
    return build_tokenizer(folder, words())


def build_llama_tokenizer() -> PreTrainedTokenizerFast:
    """Words, signs and marks as tokens; any other word is <unk>."""
    system = re.findall(PIECES, DEFAULT_PROMPT_TEMPLATE["template"].replace("{}", ""))
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*MARKS, *system, *words()]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    # "removed" drops what the pattern matches, so it matches all but the pieces: spaces.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(" +"), "removed"),
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
        ]
    )
    begin = MARKS[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, vocabulary[begin])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token=MARKS[1], pad_token="<pad>",
        unk_token="<unk>", padding_side="right", model_max_length=512,
    )  # fmt: skip
