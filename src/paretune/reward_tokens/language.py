"""Reward tokens of a language model: vectors directly before the answer.

In plain transformers a token is a word that is added to the tokenizer, with a row in the embedding table. It
is written after the rendered prompt, and so after the marks of the chat template. Here the model does not
grow: a copy of the tokenizer has one additional mark, and at its positions the model gets the vectors instead
of rows of its table. So the model can never generate a token, and only the vectors get gradients. Shapes: B
prompts of up to T tokens, vectors [k, D].
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
    """One term of a blend: its weight, the ids of the prompts, and the vectors of the ids -1 .. -k."""

    weight: float
    ids: list[list[int]]
    vectors: Tensor | None


class Padded(NamedTuple):
    """Padded prompts. ids, mask: [B, T]; the ids of vectors are below 0."""

    ids: Tensor
    mask: Tensor


def added_token(word: str) -> Any:
    """A token as an added word of a tokenizer, which does not change how the text before it is split."""
    from tokenizers import AddedToken

    return AddedToken(word, normalized=False, special=True)


def with_words(tokenizer: Any, words: Sequence[str]) -> Any:
    """A copy of a tokenizer with additional words, each of which is one token."""
    extended = copy.deepcopy(tokenizer)
    extended.add_tokens([added_token(word) for word in words], special_tokens=True)
    return extended


def as_written(tokenizer: Any) -> Any:
    """A copy of a tokenizer that adds no special tokens, for texts that contain them already."""
    kind = type(tokenizer)

    class AsWritten(kind):
        def __call__(self, *args: Any, **options: Any) -> Any:
            return super().__call__(*args, **{"add_special_tokens": False, **options})

    AsWritten.__name__ = kind.__name__  # the class name is saved in files
    copied = copy.deepcopy(tokenizer)
    copied.__class__ = AsWritten
    return copied


class SoftPrompts:
    """Prompts that contain vectors, as inputs of a model."""

    def __init__(self, model: Any, tokenizer: Any, special: bool = True) -> None:
        """special: whether the tokenizer adds its special tokens, which a chat template has written."""
        self.special = special
        self.model, self.pad = model, tokenizer.pad_token_id
        self.tokenizer = with_words(tokenizer, [MARK])
        self._mark = self.tokenizer.convert_tokens_to_ids(MARK)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts that contain marks; the marks of each text become -1, -2, .. in order."""
        rows = []
        for row in self.tokenizer(list(texts), add_special_tokens=self.special)["input_ids"]:
            places = iter(range(-1, -len(row) - 1, -1))
            rows.append([next(places) if i == self._mark else i for i in row])
        return rows

    def padded(self, rows: Sequence[Sequence[int]], left: bool) -> Padded:
        """Pad rows to one length: on the left for prompts to continue, on the right for texts to train on."""
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
        """Embeddings [B, T, D]: rows of the table, and vectors where ids are below 0."""
        layer = self.model.get_input_embeddings()
        embeds = layer(ids.clamp(min=0))
        if vectors is None:
            return embeds
        rows = vectors.to(embeds.device, embeds.dtype)
        # Some layers (Gemma's) scale the rows of their table; a token's vectors are unscaled rows.
        scale = getattr(layer, "embed_scale", None)
        rows = rows if scale is None else rows * torch.as_tensor(scale).to(rows)
        return torch.where((ids < 0)[..., None], rows[(-1 - ids).clamp(min=0)], embeds)

    def start(self, branches: Sequence[Branch]) -> Mapping[str, Any]:
        """The arguments of `generate` that continue the prompts of the branches, blended."""
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
            embeds = torch.cat([self.embed(part, branch.vectors) for branch, part in parts])
            weights = [branch.weight for branch in branches]
            mixed = MixedLogits(self.model, weights, embeds, rows.mask)
            inputs["logits_processor"] = LogitsProcessorList([mixed])
        return inputs


def _filled(ids: Tensor, mask: Tensor) -> Tensor:
    """Ids for code that reads them, such as a repetition penalty: a vector gets the prompt's first id."""
    words = (mask > 0) & (ids >= 0)
    first = ids.gather(1, words.long().argmax(1, keepdim=True)).clamp(min=0)
    return torch.where(ids < 0, first, ids)


def vectors_of(model: Any, present: Sequence[Scaled]) -> Tensor | None:
    """The vectors of tokens in order, [k, D]; None without tokens.

    Raises ParetuneError for tokens of another model.
    """
    if not present:
        return None
    width = model.get_input_embeddings().weight.shape[1]
    for scaled in present:
        vectors = scaled.token.vectors.get(EMBEDDING)
        if vectors is None:
            raise ParetuneError(f"token {scaled.token.name} holds no vectors for a language model")
        if vectors.shape[1] != width:
            raise ParetuneError(
                f"token {scaled.token.name} has vectors of width {vectors.shape[1]}, "
                f"this model's have {width}: it was trained on another model"
            )
    return torch.cat([s.token.vectors[EMBEDDING].repeat(s.count, 1) for s in present])


def length_of(present: Sequence[Scaled]) -> int:
    """The number of positions that tokens take after a prompt."""
    return sum(s.count * len(s.token.vectors.get(EMBEDDING, ())) for s in present)


def is_bare(terms: Sequence[Blend]) -> bool:
    """Whether a blend is the prompt alone, without any token."""
    return len(terms) == 1 and not terms[0].present
