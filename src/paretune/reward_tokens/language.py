"""Reward tokens of a language model: vectors that stand directly before the answer.

In plain transformers a token is a word that is added to the tokenizer, with its own row in the embedding
table, and is written behind the prompt as the model reads it, a chat template's own marks included. Here
nothing grows: a copy of the tokenizer knows one added mark, and where it stands the model is given the
vectors instead of a row of its table. So no token is ever a word that the model could say, and gradients
reach the vectors alone. Shapes: B prompts of up to T tokens, vectors [k, D].
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..types import ParetuneError
from .files import EMBEDDING
from .mixed_logits import MixedLogits
from .pipelines import Blend, Scaled

MARK = "<|reward token|>"


class Branch(NamedTuple):
    """One term of a blend: its weight, the prompts' ids, where -1 .. -k are the vectors, and these."""

    weight: float
    ids: list[list[int]]
    vectors: Tensor | None


class Padded(NamedTuple):
    """ids, mask: [B, T]. Where a vector stands, its id is still below 0."""

    ids: Tensor
    mask: Tensor


def added_token(word: str) -> Any:
    """How a tokenizer is told of a token: a word of its own, which leaves what is before it as it is."""
    from tokenizers import AddedToken

    return AddedToken(word, normalized=False, special=True)


def with_words(tokenizer: Any, words: Sequence[str]) -> Any:
    """A copy of a tokenizer that knows more words, each one token."""
    known = copy.deepcopy(tokenizer)
    known.add_tokens([added_token(word) for word in words], special_tokens=True)
    return known


def as_written(tokenizer: Any) -> Any:
    """A copy of a tokenizer that adds no special tokens: for texts in which they are written out."""
    kind = type(tokenizer)

    class AsWritten(kind):
        def __call__(self, *args: Any, **options: Any) -> Any:
            return super().__call__(*args, **{"add_special_tokens": False, **options})

    AsWritten.__name__ = kind.__name__  # as files name it
    own = copy.deepcopy(tokenizer)
    own.__class__ = AsWritten
    return own


class SoftPrompts:
    """Prompts with vectors in them, as a model takes them."""

    def __init__(self, model: Any, tokenizer: Any, special: bool = True) -> None:
        """special: the tokenizer adds its special tokens; a chat template has spelt them out."""
        self.special = special
        self.model, self.pad = model, tokenizer.pad_token_id
        self.tokenizer = with_words(tokenizer, [MARK])
        self._mark = self.tokenizer.convert_tokens_to_ids(MARK)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of texts with marks in them; the marks of each are -1, -2, .. in order."""
        rows = []
        for row in self.tokenizer(list(texts), add_special_tokens=self.special)["input_ids"]:
            places = iter(range(-1, -len(row) - 1, -1))
            rows.append([next(places) if i == self._mark else i for i in row])
        return rows

    def padded(self, rows: Sequence[Sequence[int]], left: bool) -> Padded:
        """Rows of one length. Padding lies left of prompts to go on from, right of texts to learn from."""
        longest = max(len(row) for row in rows)
        ids, masks = [], []
        for row in rows:
            gap, ones = [self.pad] * (longest - len(row)), [1] * len(row)
            zeros = [0] * len(gap)
            ids.append([*gap, *row] if left else [*row, *gap])
            masks.append([*zeros, *ones] if left else [*ones, *zeros])
        device = self.model.device
        return Padded(torch.tensor(ids, device=device), torch.tensor(masks, device=device))

    def embed(self, ids: Tensor, vectors: Tensor | None) -> Tensor:
        """[B, T, D]: the table's rows, and the vectors where ids are below 0."""
        layer = self.model.get_input_embeddings()
        embeds = layer(ids.clamp(min=0))
        if vectors is None:
            return embeds
        rows = vectors.to(embeds.device, embeds.dtype)
        # Some layers scale what their table holds (Gemma's); a token's vectors are rows of the table.
        scale = getattr(layer, "embed_scale", None)
        rows = rows if scale is None else rows * torch.as_tensor(scale).to(rows)
        return torch.where((ids < 0)[..., None], rows[(-1 - ids).clamp(min=0)], embeds)

    def start(self, branches: Sequence[Branch]) -> Mapping[str, Any]:
        """What `generate` is called with, to go on from the prompts of the branches, blended."""
        from transformers import LogitsProcessorList

        first, *others = branches
        ids, mask = self.padded(first.ids, left=True)
        inputs: dict[str, Any] = {
            "input_ids": _filled(ids, mask),
            "attention_mask": mask,
            "inputs_embeds": self.embed(ids, first.vectors),
        }
        if others:
            rows = self.padded([row for branch in others for row in branch.ids], left=True)
            count = len(first.ids)
            parts = zip(others, rows.ids.split(count), strict=True)
            embeds = torch.cat([self.embed(own, branch.vectors) for branch, own in parts])
            weights = [branch.weight for branch in branches]
            mixed = MixedLogits(self.model, weights, embeds, rows.mask)
            inputs["logits_processor"] = LogitsProcessorList([mixed])
        return inputs


def _filled(ids: Tensor, mask: Tensor) -> Tensor:
    """For those who look at a prompt's ids (a penalty on repetition): a vector counts as its first word."""
    words = (mask > 0) & (ids >= 0)
    first = ids.gather(1, words.long().argmax(1, keepdim=True)).clamp(min=0)
    return torch.where(ids < 0, first, ids)


def vectors_of(model: Any, present: Sequence[Scaled]) -> Tensor | None:
    """The vectors of tokens in order, [k, D]; None where there are none.

    Raises ParetuneError where they are not this model's.
    """
    if not present:
        return None
    width = model.get_input_embeddings().weight.shape[1]
    for scaled in present:
        own = scaled.token.vectors.get(EMBEDDING)
        if own is None:
            raise ParetuneError(f"token {scaled.token.name} holds no vectors for a language model")
        if own.shape[1] != width:
            raise ParetuneError(
                f"token {scaled.token.name} has vectors of width {own.shape[1]}, this model's have {width}: "
                "it was trained on another model"
            )
    return torch.cat([s.token.vectors[EMBEDDING].repeat(s.count, 1) for s in present])


def length_of(present: Sequence[Scaled]) -> int:
    """How many places tokens take after a prompt."""
    return sum(s.count * len(s.token.vectors.get(EMBEDDING, ())) for s in present)


def is_bare(terms: Sequence[Blend]) -> bool:
    """Whether a blend is the prompt without any token."""
    return len(terms) == 1 and not terms[0].present
