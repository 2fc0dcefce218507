"""Reward tokens on disk: diffusers' textual-inversion format, one safetensors file a text encoder.

NAME/text_encoder.safetensors, NAME/text_encoder_2.safetensors, ... each hold one tensor, called "<NAME>",
float32 [vectors, width]. `load_textual_inversion` of diffusers reads them (docs/tokens.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save

from ..files import write_bytes
from ..types import ParetuneError
from .tensor_files import open_tensors


@dataclass(frozen=True, eq=False)
class Token:
    """A learned token. vectors: text encoder's name in the pipeline -> float32 [vectors, width]."""

    name: str
    vectors: Mapping[str, torch.Tensor]

    @property
    def word(self) -> str:
        """What diffusers calls it, and a prompt of a plain pipeline says."""
        return f"<{self.name}>"


def write_token(folder: Path, token: Token) -> list[str]:
    """Write a token's files into `folder`; returns their names."""
    names = []
    for encoder, vectors in token.vectors.items():
        names.append(f"{encoder}.safetensors")
        tensor = vectors.detach().cpu().float().clone().contiguous()
        write_bytes(folder / names[-1], save({token.word: tensor}))
    return names


def read_token(folder: Path, name: str | None = None) -> Token:
    """Read a token's folder, ours or anyone's whose files are named by their encoders.

    name: instead of the folder's own. Raises ParetuneError, one line, for what is no token.
    """
    paths = sorted(folder.glob("text_encoder*.safetensors"))
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
    """Every token of a folder of tokens, by name; {} where there is none."""
    found = sorted({path.parent for path in folder.glob("*/text_encoder*.safetensors")})
    return {place.name: read_token(place) for place in found}
