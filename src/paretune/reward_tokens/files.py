"""Reward tokens on disk, in diffusers' textual-inversion format: one safetensors file per embedding table.

NAME/text_encoder.safetensors, NAME/text_encoder_2.safetensors, ... each hold one tensor, called "<NAME>",
float32 [vectors, width]. `load_textual_inversion` of diffusers reads them (docs/tokens.md). A language model
has one table: NAME/embedding.safetensors, in the same format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save

from ..adapters.tensors import open_tensors
from ..files import write_bytes
from ..types import ParetuneError

EMBEDDING = "embedding"  # the name of a language model's table


@dataclass(frozen=True, eq=False)
class Token:
    """A learned token.

    vectors: name of the text encoder in the pipeline -> float32 [vectors, width]. For a language model the
    only key is `EMBEDDING`.
    """

    name: str
    vectors: Mapping[str, torch.Tensor]

    @property
    def word(self) -> str:
        """The token's name in diffusers, which is also its word in a prompt of a plain pipeline."""
        return f"<{self.name}>"

    @property
    def words(self) -> list[str]:
        """One word per vector: the token as written for a tokenizer with these words."""
        count = len(next(iter(self.vectors.values())))
        return [self.word, *(f"{self.word}_{i}" for i in range(1, count))]


def write_token(folder: Path, token: Token) -> list[str]:
    """Write a token's files into `folder`; returns their names."""
    names = []
    for encoder, vectors in token.vectors.items():
        names.append(f"{encoder}.safetensors")
        tensor = vectors.detach().cpu().float().clone().contiguous()
        write_bytes(folder / names[-1], save({token.word: tensor}))
    return names


def read_token(folder: Path, name: str | None = None) -> Token:
    """Read the folder of a token of any tool that names files after text encoders.

    name: the token's name; by default the folder's. Raises ParetuneError for a folder without a token.
    """
    paths = _files(folder)
    if not paths:
        raise ParetuneError(f"{folder} holds no token: no text_encoder*.safetensors is there")
    return Token(name or folder.name, {path.stem: read_vectors(path) for path in paths})


def read_vectors(path: Path) -> torch.Tensor:
    """The one tensor of a textual-inversion file, float32 [vectors, width]."""
    file = open_tensors(path)
    if len(file.entries) != 1:
        raise ParetuneError(f"{path} holds {len(file.entries)} tensors; a token's file holds one")
    vectors = file.read_float(next(iter(file.entries)))
    vectors = vectors[None] if vectors.dim() == 1 else vectors
    if vectors.dim() != 2 or 0 in vectors.shape:
        raise ParetuneError(f"{path} holds no token: its shape is {list(vectors.shape)}")
    return vectors


def read_bank(folder: Path) -> dict[str, Token]:
    """Every token in a folder of tokens, by name; {} if there is none."""
    folders = sorted({path.parent for inner in folder.glob("*/") for path in _files(inner)})
    return {inner.name: read_token(inner) for inner in folders}


def _files(folder: Path) -> list[Path]:
    names = ("text_encoder*.safetensors", f"{EMBEDDING}.safetensors")
    return sorted(path for name in names for path in folder.glob(name))
