"""Reward tokens in the text encoders of any diffusers pipeline.

In every encoder a token is added to the prompt where it ends (see `appending`). The tokenizers give its
vectors ids below 0, which no vocabulary has, and the embedding layer replaces them by the vectors. So the
pipeline does not grow, only the vectors get gradients, and CLIP pools at its usual position, also in old
checkpoints that find the end token as the largest id.

If a prompt is too long, its last words are cut, never a token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from ..types import ParetuneError
from .appending import PROMPT, Appending
from .files import Token
from .spec import TokenUse
from .start import first_rows, row_scale

# Text encoder -> its tokenizer, by their names in every diffusers pipeline.
PARTS = {
    "text_encoder": "tokenizer",
    "text_encoder_2": "tokenizer_2",
    "text_encoder_3": "tokenizer_3",
}
MOST_SCALED = 6  # tokens whose scale is neither 0 nor 1: each doubles the number of encodings


@dataclass(frozen=True)
class Scaled:
    """A token that is added `count` times at `scale`: 0 is its absence, 1 its presence."""

    token: Token
    count: int = 1
    scale: float = 1.0


def resolve(uses: Sequence[TokenUse], bank: Mapping[str, Token]) -> tuple[Scaled, ...]:
    """The requested tokens with their vectors. Raises ParetuneError when the bank lacks one."""
    for use in uses:
        if use.name not in bank:
            known = ", ".join(bank) if bank else "none: `paretune tokens RUN` trains them"
            raise ParetuneError(f"no token {use.name}; known: {known}")
    return tuple(Scaled(bank[use.name], use.count, use.scale) for use in uses)


@dataclass(frozen=True)
class Blend:
    """One term of the interpolation: its weight, and the tokens that are present."""

    weight: float
    present: tuple[Scaled, ...]


def blends(tokens: Sequence[Scaled]) -> list[Blend]:
    """Multilinear interpolation over presence and absence: Σ_S Π_{i in S} s_i Π_{i not in S} (1 - s_i) c(S).

    At scales of 0 and 1 there is one term, exactly the prompt without, or with, each token. The result is
    linear in every scale, and scales beyond 1 extrapolate.
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
    pipe: Any,
    run: Callable[[], Mapping[str, Tensor]],
    tokens: Sequence[Scaled],
    written: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    """Call `run`, which embeds prompts with the pipeline's encoders, with the tokens after every prompt.

    Args:
        pipe: the pipeline.
        run: embeds the prompts.
        tokens: the reward tokens.
        written: tokenizer -> the pattern into which the pipeline writes a prompt, "{}" if it is not named.

    Returns:
        The blended outputs of `run`. Without tokens, or with all at scale 0, the output of `run` unchanged.
    """
    terms = blends(tokens)
    outputs: list[Mapping[str, Tensor]] = []
    for term in terms:
        with appended(pipe, rows_of(pipe, term.present), written or {}):
            outputs.append(run())
    if len(terms) == 1:
        return dict(outputs[0])
    weights = [term.weight for term in terms]
    return {name: _weighted_sum(weights, [output[name] for output in outputs]) for name in outputs[0]}


def _weighted_sum(weights: Sequence[float], parts: Sequence[Tensor]) -> Tensor:
    """Σ w_i x_i, summed in float32 and returned in the dtype of the parts, but masks of integers in float32.

    Prompts with more tokens are longer: without a fixed length, zeros follow the others.
    """
    longest = max(parts, key=lambda part: part.shape[1])
    total = torch.zeros_like(longest, dtype=torch.float32)
    for weight, part in zip(weights, parts, strict=True):
        total[:, : part.shape[1]] += weight * part.float()
    return total.to(parts[0].dtype) if parts[0].is_floating_point() else total


def needs_gradient(tokens: Sequence[Scaled]) -> bool:
    """Whether any of the tokens is in training."""
    return any(v.requires_grad for t in tokens for v in t.token.vectors.values())


def encoders_of(pipe: Any) -> dict[str, nn.Module]:
    """The pipeline's text encoders that are loaded, by name."""
    return {name: part for name in PARTS if (part := getattr(pipe, name, None)) is not None}


def rows_of(pipe: Any, present: Sequence[Scaled]) -> dict[str, Tensor]:
    """The vectors to append in each encoder, [k, width], in order. Encoders without vectors are left out."""
    rows: dict[str, Tensor] = {}
    for name, encoder in encoders_of(pipe).items():
        width = _table(encoder).shape[1]
        parts = [s.token.vectors[name].repeat(s.count, 1) for s in present if name in s.token.vectors]
        if any(part.shape[1] != width for part in parts):
            raise ParetuneError(
                f"a token's {name} vectors have width {parts[0].shape[1]}, this model's have {width}: "
                "it was trained on another model"
            )
        if parts:
            rows[name] = torch.cat(parts)
    if present and not rows:
        raise ParetuneError("the tokens hold no vectors for any text encoder that is loaded")
    return rows


@contextmanager
def appended(
    pipe: Any, rows: Mapping[str, Tensor], written: Mapping[str, str]
) -> Iterator[None]:
    """Within the block, the pipeline embeds every prompt with the rows, [k, width], where the prompt ends.

    Raises ParetuneError at its end where the pipeline read prompts in a way that no token can join.
    """
    with ExitStack() as stack:
        tokenizers: list[Appending] = []
        for name, vectors in rows.items():
            part = PARTS[name]
            pattern = written.get(part, PROMPT)
            tokenizers.append(stack.enter_context(_tokenizer_with(pipe, part, len(vectors), pattern)))
            stack.enter_context(_embedding_with(encoders_of(pipe)[name], vectors))
        yield
    if tokenizers and not any(t.appended for t in tokenizers):
        raise ParetuneError(
            f"a {type(pipe).__name__} does not fill its prompts up to a fixed length, nor cut them to one, "
            "so reward tokens cannot be appended to them: sample without tokens"
        )


@contextmanager
def _tokenizer_with(pipe: Any, name: str, count: int, written: str) -> Iterator[Appending]:
    # vars() avoids DiffusionPipeline's setter, which would write the wrapper's class into the config.
    parts = vars(pipe)
    tokenizer = parts[name]
    parts[name] = appending = Appending(tokenizer, count, written)
    try:
        yield appending
    finally:
        parts[name] = tokenizer


@contextmanager
def _embedding_with(encoder: nn.Module, vectors: Tensor) -> Iterator[None]:
    """Within the block, ids below 0 are embedded as the vectors."""
    pending: list[Tensor] = []

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        pending.append(args[0])
        return (args[0].clamp(min=0), *args[1:])

    def after(_: nn.Module, __: tuple[Any, ...], embeds: Tensor) -> Tensor:
        ids = pending.pop()
        rows = vectors.to(embeds.device, embeds.dtype)
        return torch.where((ids < 0)[..., None], rows[(-1 - ids).clamp(min=0)], embeds)

    table = _table(encoder)
    # T5 has two layers with one table, and embeds with the one that get_input_embeddings does not return.
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
    """A new token to train, as float32 parameters that require gradients.

    Args:
        pipe: the pipeline.
        name: the token's name.
        vectors: the number of vectors.
        init: words whose mean embedding is the start of every vector, or "" for random directions. In both
            cases the vectors get the average length of the encoder's embeddings.
        generator: for random directions.
    """
    values = {}
    for encoder, module in encoders_of(pipe).items():
        tokenizer = getattr(pipe, PARTS[encoder])
        values[encoder] = first_rows(module, tokenizer, vectors, init, generator)
    return Token(name, values)


def row_scales(pipe: Any) -> dict[str, float]:
    """The root mean square of each encoder's embeddings, the unit of a training step's length."""
    return {name: row_scale(module) for name, module in encoders_of(pipe).items()}
