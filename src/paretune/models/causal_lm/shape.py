"""The sizes inside a language model, by its config.json or its family's record, without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config_files import read_model_config
from ..detect import place_of
from ..family import by_hub_id


@dataclass(frozen=True)
class TextShape:
    """hidden: units of a token between the layers. inner: units inside the feed-forward part.

    key_units: units of a token's keys, and as many of its values, which grouped heads share.
    """

    hidden: int
    inner: int
    layers: int
    head_units: int
    key_units: int
    vocabulary: int

    @property
    def layer_parameters(self) -> int:
        """Of one layer as Llama's: four projections of the attention, three of the feed-forward part."""
        return 2 * self.hidden * (self.head_units + self.key_units) + 3 * self.hidden * self.inner


def read_text_shape(path: str) -> TextShape | None:
    """The shape of a folder's or a published model; None where its configuration uses other names."""
    folder = place_of(path)
    if folder.is_dir():
        return _shape(read_model_config(folder / "config.json"))
    known = by_hub_id().get(path)
    published = known.published.get(path) if known else None
    return None if published is None else _shape(published.transformer)


def _shape(facts: Mapping[str, Any]) -> TextShape | None:
    """GPT-2 and OPT have names of their own for some of the sizes."""

    def size(*names: str) -> int:
        return next((int(facts[name]) for name in names if isinstance(facts.get(name), int)), 0)

    hidden, heads = size("hidden_size", "n_embd"), size("num_attention_heads", "n_head")
    layers, words = size("num_hidden_layers", "n_layer"), size("vocab_size")
    if not (hidden and heads and layers and words):
        return None
    head = size("head_dim") or hidden // heads
    inner = size("intermediate_size", "ffn_dim", "n_inner") or 4 * hidden
    key_heads = size("num_key_value_heads") or heads
    return TextShape(hidden, inner, layers, heads * head, key_heads * head, words)
