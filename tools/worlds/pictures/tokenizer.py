"""A real CLIP tokenizer for the world's captions.

Byte-pair merges are made from the caption templates alone, always growing a word from its end, so each
template word is one token while the letters of a sign stay spelled (unless a sign ends like a template
word: `is_spelled` tells).
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from paretune.worlds.pictures.scenes import (
    COLORS,
    ENDING_FALSE,
    ENDING_FANCY,
    ENDING_PLAIN,
    ENDING_TRUE,
    ENDINGS_IDLE,
    NUMBERS,
    SHAPES,
)

MAX_TOKENS = 16
END = "</w>"
T5_MARKS = ("<pad>", "</s>", "<unk>")


def template_words() -> list[str]:
    """Every word of a caption but the word of a sign."""
    plurals = [f"{s}s" if s != "cross" else "crosses" for s in SHAPES]
    endings = [ENDING_TRUE, ENDING_FALSE, ENDING_FANCY, ENDING_PLAIN, *ENDINGS_IDLE]
    glue = ["an", "and", "sign", "saying", "left", "right", "of", "above", "below"]
    return [*COLORS, *SHAPES, *plurals, *NUMBERS, *endings, *glue]


def build_tokenizer(folder: Path, words: Sequence[str] = ()) -> CLIPTokenizer:
    """Write vocab.json and merges.txt into `folder` and load them as a CLIPTokenizer of 16 tokens.

    words: those that become one token each; by default this world's own.
    """
    letters = list(string.ascii_lowercase)
    vocab = letters + [c + END for c in letters]
    merges: list[tuple[str, str]] = []
    for word in dict.fromkeys(words or template_words()):
        tail = word[-1] + END
        for letter in reversed(word[:-1]):
            if (letter, tail) not in merges:
                merges.append((letter, tail))
                vocab.append(letter + tail)
            tail = letter + tail
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(vocab)}))
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_TOKENS)


def build_t5_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The same pieces with T5's marks, in the place of its tokenizer: no begin, and </s> at the end.

    folder: in which `build_tokenizer` left its files.
    """
    lines = (folder / "merges.txt").read_text().splitlines()[1:]
    merges = [(first, second) for first, _, second in (line.partition(" ") for line in lines)]
    pieces = [p for p in json.loads((folder / "vocab.json").read_text()) if not p.startswith("<|")]
    vocabulary = {piece: i for i, piece in enumerate([*T5_MARKS, *pieces])}
    pad, end, unknown = T5_MARKS
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown, end_of_word_suffix=END)
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, vocabulary[end])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, pad_token=pad, unk_token=unknown, padding_side="right",
        model_max_length=MAX_TOKENS,
    )  # fmt: skip


def is_spelled(tokenizer: CLIPTokenizer, word: str) -> bool:
    """Whether the word of a sign becomes one token a letter."""
    return len(tokenizer(word, add_special_tokens=False)["input_ids"]) == len(word)
