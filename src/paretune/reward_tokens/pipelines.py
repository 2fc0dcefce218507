"""Reward tokens in the text encoders of a diffusers pipeline, whichever and however many those are.

A token is appended to the prompt before its end, in every encoder. The tokenizers give it ids below 0,
which no vocabulary has, and the embedding layer is told which vector each stands for: nothing of the
pipeline grows, gradients reach the vectors alone, and CLIP pools where it always did, also in old
checkpoints that look for their end as the largest id.

A long prompt gives way: its own last words are cut, never a token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ..types import ParetuneError
from .files import Token
from .spec import TokenUse
from .start import first_rows, row_scale

# tokenizer -> the encoder that reads it, as every diffusers pipeline calls them.
PARTS = {
    "text_encoder": "tokenizer",
    "text_encoder_2": "tokenizer_2",
    "text_encoder_3": "tokenizer_3",
}
MOST_SCALED = 6  # tokens whose scale is neither 0 nor 1: each doubles the number of encodings


@dataclass(frozen=True)
class Scaled:
    """A token with its vectors, `count` times, at `scale`: 0 is its absence, 1 its presence."""

    token: Token
    count: int = 1
    scale: float = 1.0


def resolve(uses: Sequence[TokenUse], bank: Mapping[str, Token]) -> tuple[Scaled, ...]:
    """The tokens that were asked for. Raises ParetuneError when the bank lacks one."""
    for use in uses:
        if use.name not in bank:
            known = ", ".join(bank) if bank else "none: `paretune tokens RUN` trains them"
            raise ParetuneError(f"no token {use.name}; known: {known}")
    return tuple(Scaled(bank[use.name], use.count, use.scale) for use in uses)


@dataclass(frozen=True)
class Blend:
    """One term of the interpolation: the tokens that are present, and how much it counts."""

    weight: float
    present: tuple[Scaled, ...]


def blends(tokens: Sequence[Scaled]) -> list[Blend]:
    """Multilinear interpolation over presence and absence: Σ_S Π_{i in S} s_i Π_{i not in S} (1 - s_i) c(S).

    At scales of 0 and 1 it is one term, exactly the prompt without, or with, each token; it is linear in
    every scale, and beyond 1 it extrapolates.
    """
    wanted = [t for t in tokens if t.scale != 0]
    loose = [t for t in wanted if t.scale != 1]
    if len(loose) > MOST_SCALED:
        raise ParetuneError(f"at most {MOST_SCALED} tokens may have a scale other than 0 and 1")
    terms = []
    for chosen in product((True, False), repeat=len(loose)):
        here = iter(chosen)
        present = tuple(t for t in wanted if t.scale == 1 or next(here))
        factors = (t.scale if on else 1 - t.scale for t, on in zip(loose, chosen, strict=True))
        terms.append(Blend(math.prod(factors), present))
    return terms


def encode_with(
    pipe: Any, run: Callable[[], Mapping[str, Tensor]], tokens: Sequence[Scaled]
) -> dict[str, Tensor]:
    """What `run` embeds (through the pipeline's own encoders) with the tokens after every prompt.

    Without tokens, or all at scale 0, it is what `run` gives, to the bit.
    """
    terms = blends(tokens)
    outputs: list[Mapping[str, Tensor]] = []
    for term in terms:
        with appended(pipe, rows_of(pipe, term.present)):
            outputs.append(run())
    if len(terms) == 1:
        return dict(outputs[0])
    weights = [term.weight for term in terms]
    return {name: _weighted_sum(weights, [own[name] for own in outputs]) for name in outputs[0]}


def _weighted_sum(weights: Sequence[float], parts: Sequence[Tensor]) -> Tensor:
    """Σ w_i x_i in float32, back in the parts' own dtype."""
    total = torch.zeros_like(parts[0], dtype=torch.float32)
    for weight, part in zip(weights, parts, strict=True):
        total = total + weight * part.float()
    return total.to(parts[0].dtype)


def needs_gradient(tokens: Sequence[Scaled]) -> bool:
    """Whether any of the tokens is in training."""
    return any(v.requires_grad for t in tokens for v in t.token.vectors.values())


def encoders_of(pipe: Any) -> dict[str, nn.Module]:
    """The pipeline's text encoders that are loaded, by name."""
    return {name: part for name in PARTS if (part := getattr(pipe, name, None)) is not None}


def rows_of(pipe: Any, present: Sequence[Scaled]) -> dict[str, Tensor]:
    """For each encoder the vectors to append, [k, width], in order. Encoders without any are left out."""
    rows: dict[str, Tensor] = {}
    for name, encoder in encoders_of(pipe).items():
        width = _table(encoder).shape[1]
        own = [s.token.vectors[name].repeat(s.count, 1) for s in present if name in s.token.vectors]
        if any(part.shape[1] != width for part in own):
            raise ParetuneError(
                f"a token's {name} vectors have width {own[0].shape[1]}, this model's have {width}: "
                "it was trained on another model"
            )
        if own:
            rows[name] = torch.cat(own)
    if present and not rows:
        raise ParetuneError("the tokens hold no vectors for any text encoder that is loaded")
    return rows


@contextmanager
def appended(pipe: Any, rows: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the pipeline embeds every prompt with the rows, [k, width], before its end."""
    with ExitStack() as stack:
        for name, vectors in rows.items():
            stack.enter_context(_tokenizer_with(pipe, PARTS[name], len(vectors)))
            stack.enter_context(_embedding_with(encoders_of(pipe)[name], vectors))
        yield


@contextmanager
def _tokenizer_with(pipe: Any, name: str, count: int) -> Iterator[None]:
    # Past DiffusionPipeline's own setter, which would write the wrapper's class into the pipeline's config.
    parts = vars(pipe)
    own = parts[name]
    parts[name] = _Appending(own, count)
    try:
        yield
    finally:
        parts[name] = own


class _Appending:
    """A tokenizer that ends every text with the ids -1 .. -count, before the end of the sequence."""

    def __init__(self, tokenizer: Any, count: int) -> None:
        self._tokenizer, self._count = tokenizer, count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: str | Sequence[str], **settings: Any) -> Any:
        if settings.get("padding") != "max_length":  # the pipeline only asks what it will cut, for its log
            return self._tokenizer(text, **settings)
        limit = settings["max_length"]
        if limit - self._count <= self._tokenizer.num_special_tokens_to_add():
            raise ParetuneError(
                f"{self._count} token vectors leave no room for a prompt in {limit} tokens; use fewer"
            )
        texts = [text] if isinstance(text, str) else list(text)
        plain = self._tokenizer(texts, truncation=True, max_length=limit - self._count)["input_ids"]
        added = list(range(-1, -self._count - 1, -1))
        pad = [self._tokenizer.pad_token_id]
        rows = [[*row[:-1], *added, row[-1], *pad * (limit - len(row) - self._count)] for row in plain]
        length = torch.tensor([[len(row) + self._count] for row in plain])
        mask = (torch.arange(limit) < length).long()
        return SimpleNamespace(input_ids=torch.tensor(rows), attention_mask=mask)


@contextmanager
def _embedding_with(encoder: nn.Module, vectors: Tensor) -> Iterator[None]:
    """Ids below 0 stand for the vectors' rows."""
    asked: list[Tensor] = []

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        asked.append(args[0])
        return (args[0].clamp(min=0), *args[1:])

    def after(_: nn.Module, __: tuple[Any, ...], embeds: Tensor) -> Tensor:
        ids = asked.pop()
        rows = vectors.to(embeds.device, embeds.dtype)
        return torch.where((ids < 0)[..., None], rows[(-1 - ids).clamp(min=0)], embeds)

    table = _table(encoder)
    # T5 has two layers over one table, and embeds by the one that it does not show.
    layers = [m for m in encoder.modules() if isinstance(m, nn.Embedding) and m.weight is table]
    handles = [layer.register_forward_pre_hook(before) for layer in layers]
    handles += [layer.register_forward_hook(after) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _table(encoder: Any) -> Tensor:
    return encoder.get_input_embeddings().weight


def new_token(
    pipe: Any, name: str, vectors: int, init: str, generator: torch.Generator
) -> Token:
    """A token to begin training with, as float32 parameters that want gradients.

    init: words whose mean embedding every vector starts at, or "" for random directions; either way the
    vectors have the length that the encoder's own have on average.
    """
    values = {}
    for encoder, module in encoders_of(pipe).items():
        tokenizer = getattr(pipe, PARTS[encoder])
        values[encoder] = first_rows(module, tokenizer, vectors, init, generator)
    return Token(name, values)


def row_scales(pipe: Any) -> dict[str, float]:
    """The root mean square of each encoder's embeddings: what a step's length is measured in."""
    return {name: row_scale(module) for name, module in encoders_of(pipe).items()}
