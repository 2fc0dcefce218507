"""mPLUG-Owl2 (Ye et al. 2023, arXiv 2311.04257): a LLaMA that is shown one picture, for one answered token.

A vision transformer reads the picture, an abstractor turns its states into a few, and a LLaMA reads those
among the words. Words and picture have normalisations, keys and values of their own ("modality-adaptive").
transformers has no class for it, and the published one is code on the hub, which never runs here. These
layers are written after its authors' description (github X-PLUG/mPLUG-Owl, Apache-2.0) around transformers'
LLaMA, under the published tensors' names, and give the published code's numbers (tests/unit/test_deqa.py).

Shapes: B pictures [B, 3, S, S], V = (S / patch)^2 + 1 visual states, Q queries, D the width of the states.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

# What a configuration leaves out, as the published classes fill it in.
VISION = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 448, "patch_size": 14, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-6,
}  # fmt: skip
ABSTRACTOR = {
    "num_learnable_queries": 64, "hidden_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 16,
    "intermediate_size": 2816, "layer_norm_eps": 1e-6, "encoder_hidden_size": 1024, "grid_size": 32,
}  # fmt: skip


@dataclass
class Place:
    """Which tokens are the picture's: from `first` to before `end`."""

    first: int = 0
    end: int = 0


class Multiway(nn.Module):
    """A layer for words (`multiway.0`) and its twin for the picture (`multiway.1`)."""

    def __init__(self, make: Callable[[], nn.Module], place: Place) -> None:
        super().__init__()
        self.multiway = nn.ModuleList([make(), make()])
        self._place = place

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[B, L, ..] -> [B, L, ..], each token by its own twin."""
        words, picture = self.multiway
        first, end = self._place.first, self._place.end
        parts = words(states[:, :first]), picture(states[:, first:end]), words(states[:, end:])
        return torch.cat(parts, dim=1)


# ---------------------------------------------------------------- the picture


class VisionLayer(nn.Module):
    """A layer of the vision transformer; its query, key and value are one matrix, head by head."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        from transformers.activations import ACT2FN

        width, inner, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self.heads = config.num_attention_heads
        attention = {"query_key_value": nn.Linear(width, 3 * width), "dense": nn.Linear(width, width)}
        self.self_attn = nn.ModuleDict(attention)
        self.input_layernorm = nn.LayerNorm(width, eps=eps)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})
        self.post_attention_layernorm = nn.LayerNorm(width, eps=eps)
        self._act = ACT2FN[config.hidden_act]

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[B, V, D] -> [B, V, D]."""
        joined = self.self_attn["query_key_value"](self.input_layernorm(states))
        query, key, value = joined.unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        states = states + self.self_attn["dense"](_attended(query, key, value))
        inner = self._act(self.mlp["fc1"](self.post_attention_layernorm(states)))
        return states + self.mlp["fc2"](inner)


class Vision(nn.Module):
    """Pictures [B, 3, S, S] -> states [B, V, D]: a class token, then the patches row by row."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width, patch, eps = config.hidden_size, config.patch_size, config.layer_norm_eps
        count = (config.image_size // patch) ** 2 + 1
        self.embeddings = nn.Module()
        self.embeddings.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.embeddings.position_embedding = nn.Parameter(torch.zeros(1, count, width))
        self.embeddings.patch_embed = nn.Conv2d(3, width, patch, patch, bias=False)
        self.embeddings.pre_layernorm = nn.LayerNorm(width, eps=eps)
        self.encoder = nn.ModuleDict({"layers": _layers(VisionLayer, config)})
        self.post_layernorm = nn.LayerNorm(width, eps=eps)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """See the class."""
        own: Any = self.embeddings
        patches = own.patch_embed(pictures).flatten(2).transpose(1, 2)
        states = torch.cat([own.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        states = own.pre_layernorm(states + own.position_embedding)
        for layer in self.encoder["layers"]:  # type: ignore[union-attr]
            states = layer(states)
        return self.post_layernorm(states)


# ---------------------------------------------------------------- the abstractor


class AbstractorLayer(nn.Module):
    """Queries look at themselves and at the picture. What they add to is their normalised states."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width, seen, inner = config.hidden_size, config.encoder_hidden_size, config.intermediate_size
        self.heads = config.num_attention_heads
        attention, output, mlp = nn.Module(), nn.Module(), nn.Module()
        attention.query, attention.key = nn.Linear(width, width), nn.Linear(seen, width)
        attention.value = nn.Linear(seen, width)
        attention.register_buffer("q_pos_embed", torch.zeros(config.num_learnable_queries, width))
        attention.register_buffer("k_pos_embed", torch.zeros(config.grid_size**2 + 1, width))
        mlp.w1, mlp.w2, mlp.w3 = nn.Linear(width, inner), nn.Linear(inner, width), nn.Linear(width, inner)
        mlp.ffn_ln = nn.LayerNorm(inner, eps=config.layer_norm_eps)
        output.out_proj, output.norm2, output.mlp = nn.Linear(width, width), nn.LayerNorm(width), mlp
        cross = nn.Module()
        cross.attention, cross.output = attention, output
        cross.norm1, cross.normk = nn.LayerNorm(width), nn.LayerNorm(seen)
        self.crossattention = cross

    def forward(self, queries: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """queries [B, Q, D], seen [B, V, D] -> [B, Q, D]."""
        cross: Any = self.crossattention
        own, output, mlp = cross.attention, cross.output, cross.output.mlp
        queries = cross.norm1(queries)
        seen = torch.cat([queries, cross.normk(seen)], dim=1)
        places = torch.cat([own.q_pos_embed, own.k_pos_embed])
        query, key = own.query(queries + own.q_pos_embed), own.key(seen + places)
        heads = [t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (query, key, own.value(seen))]
        queries = queries + output.out_proj(_attended(*heads))
        normed = output.norm2(queries)
        gated = functional.silu(mlp.w1(normed)) * mlp.w3(normed)
        return queries + mlp.w2(mlp.ffn_ln(gated))


class Abstractor(nn.Module):
    """Visual states [B, V, D] -> what a LLaMA of `width` reads of a picture, [B, Q + 1, width]."""

    def __init__(self, config: Any, width: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"layers": _layers(AbstractorLayer, config)})
        self.visual_fc = nn.Linear(config.hidden_size, width)
        self.query_embeds = nn.Parameter(torch.zeros(1, config.num_learnable_queries, config.hidden_size))
        self.vit_eos = nn.Parameter(torch.zeros(1, 1, width))

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """See the class."""
        queries = self.query_embeds.expand(len(seen), -1, -1)
        for layer in self.encoder["layers"]:  # type: ignore[union-attr]
            queries = layer(queries, seen)
        return torch.cat([self.visual_fc(queries), self.vit_eos.expand(len(seen), -1, -1)], dim=1)


def _layers(kind: Callable[[Any], nn.Module], config: Any) -> nn.ModuleList:
    return nn.ModuleList(kind(config) for _ in range(config.num_hidden_layers))


def _attended(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention of [B, heads, .., D / heads] each, with the heads joined: [B, .., D]."""
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


# ---------------------------------------------------------------- the whole


def settings(config: Any, part: str, usual: dict[str, Any]) -> SimpleNamespace:
    """The settings of "visual_model" or "visual_abstractor", those of `usual` where there are none."""
    given = (getattr(config, "visual_config", None) or {}).get(part) or {}
    return SimpleNamespace(**{key: given.get(key) or value for key, value in usual.items()})


@functools.cache
def owl2_class() -> Any:
    """The class of the network, for `from_pretrained`. Its `picture_size` is S."""
    from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    class Owl2Config(LlamaConfig):
        """A LLaMA's, with `visual_config`."""

        model_type = "mplug_owl2"

    class Owl2Model(LlamaModel):
        """The LLaMA with twins, and what reads pictures."""

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            width, self.place = config.hidden_size, Place()
            norm = functools.partial(LlamaRMSNorm, width, eps=config.rms_norm_eps)
            for layer in self.layers:
                own: Any = layer
                own.input_layernorm = Multiway(norm, self.place)
                own.post_attention_layernorm = Multiway(norm, self.place)
                for name in ("k_proj", "v_proj"):
                    one = getattr(own.self_attn, name)
                    twin = functools.partial(
                        nn.Linear, one.in_features, one.out_features, bias=one.bias is not None
                    )
                    setattr(own.self_attn, name, Multiway(twin, self.place))
            self.vision_model = Vision(settings(config, "visual_model", VISION))
            self.visual_abstractor = Abstractor(settings(config, "visual_abstractor", ABSTRACTOR), width)

    class Owl2(LlamaPreTrainedModel):
        """The likelihood of the next token after words, a picture and words."""

        config_class = Owl2Config

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.model = Owl2Model(config)
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
            self.picture_size = settings(config, "visual_model", VISION).image_size
            self.post_init()

        def forward(
            self, before: Sequence[int], pictures: torch.Tensor, after: Sequence[int]
        ) -> torch.Tensor:
            """Logits [B, vocabulary] after the tokens `before`, a picture of [B, 3, S, S], and `after`."""
            seen = self.model.visual_abstractor(self.model.vision_model(pictures))
            words = [
                self.model.embed_tokens(torch.tensor([ids], device=seen.device)).expand(len(seen), -1, -1)
                for ids in (before, after)
            ]
            self.model.place.first = len(before)
            self.model.place.end = len(before) + seen.shape[1]
            told = torch.cat([words[0], seen, words[1]], dim=1)
            states = self.model(inputs_embeds=told, use_cache=False).last_hidden_state[:, -1]
            return self.lm_head(states)

    return Owl2
