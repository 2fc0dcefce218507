"""ImageReward (Xu et al. 2023, arXiv 2304.05977): people's preference for a picture, given its prompt.

BLIP's ViT-L/16 sees the picture, its BERT reads the prompt and looks at the picture in every layer, and five
linear layers turn the first token's state into a number, of which the authors' mean is taken away and which
is divided by their deviation (ImageReward/ImageReward.py): about -2.3 to 2, the greater the better.

The authors publish a pickle (zai-org/ImageReward), which is not read. imscore's author published the same
weights as safetensors (RE-N-Y/ImageReward), in the names of BLIP's own code; they are read into transformers'
BLIP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from paretune.foreign.loading import load
from paretune.types import Prompt

from ..hub import normalised
from ..pinned import pinned
from .clip import squared
from .open_clip import read_into, weights_file

MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the authors' validation scores
PIXEL_MEAN, PIXEL_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
MOST_TOKENS = 35
BATCH = 16
# ViT-L/16 at 224 pixels, and BERT-base with two more words than its tokenizer (BLIP's [DEC] and [ENC]).
VISION: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 16, "layer_norm_eps": 1e-6,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "vocab_size": 30524, "hidden_size": 768, "encoder_hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 512,
}  # fmt: skip
HEAD_WIDTHS, HEAD_PLACES = (1024, 128, 64, 16, 1), (0, 2, 4, 6, 7)
_VISUAL = {
    "cls_token": "embeddings.class_embedding", "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding", "norm": "post_layernorm",
}  # fmt: skip
_BLOCK = {
    "norm1": "layer_norm1", "norm2": "layer_norm2", "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
}  # fmt: skip
_UNUSED = re.compile(r"^blip\.(vision_proj|text_proj)\.|\.position_ids$")  # of BLIP's training


class ImageReward:
    """The standardised reward of pictures of any size; the first 35 tokens of a prompt are read.

    model: the weights, as a hub id or a folder with model.safetensors; tokenizer: BERT's, a hub id or folder.
    device: "cuda" where there is one, unless given. revision: the commit of `model`. vision, text: what
    differs from the published networks' sizes.
    """

    name = "imagereward"
    range = (-float("inf"), float("inf"))
    higher_is_better = True

    def __init__(
        self,
        model: str = "RE-N-Y/ImageReward",
        tokenizer: str = "google-bert/bert-base-uncased",
        device: str | None = None,
        revision: str | None = None,
        vision: Mapping[str, Any] | None = None,
        text: Mapping[str, Any] | None = None,
    ) -> None:
        from transformers import AutoTokenizer

        self._network = RewardNetwork({**VISION, **(vision or {})}, {**TEXT, **(text or {})})
        tensors = load_file(weights_file(model, revision))
        named = {new_name(n): v.float() for n, v in tensors.items() if not _UNUSED.search(n)}
        read_into(self._network, named, f"reward model {model}")
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._network.eval().requires_grad_(False).to(self._device)
        where = f"reward model {tokenizer}"
        self._tokenizer: Any = load(AutoTokenizer, tokenizer, where, **pinned(tokenizer))

    @torch.no_grad()
    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1]; any prompts. Returns float32 [B]."""
        texts = [prompt.text for prompt in prompts]
        parts = [
            self._score(samples[i : i + BATCH], texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)
        ]
        return (torch.cat(parts).cpu() - MEAN) / STD

    def _score(self, samples: torch.Tensor, texts: list[str]) -> torch.Tensor:
        pixels = squared(samples.detach().to(self._device, torch.float32), self._network.size)
        tokens = self._tokenizer(
            texts, padding="max_length", truncation=True, max_length=MOST_TOKENS, return_tensors="pt"
        ).to(self._device)
        return self._network(
            normalised(pixels, PIXEL_MEAN, PIXEL_STD), tokens.input_ids, tokens.attention_mask
        )


class RewardNetwork(nn.Module):
    """BLIP's picture and text networks of transformers, and the layers from a state to a number."""

    def __init__(self, vision: Mapping[str, Any], text: Mapping[str, Any]) -> None:
        super().__init__()
        from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

        self.vision = BlipVisionModel(BlipVisionConfig(**vision))
        # BLIP's text network is a decoder where it writes; here it reads in both directions.
        self.text: Any = BlipTextModel(BlipTextConfig(**text, is_decoder=True), add_pooling_layer=False)
        self.size: int = vision["image_size"]
        inputs = (text["hidden_size"], *HEAD_WIDTHS[:-1])
        self.head = nn.Sequential()
        for place, inner, outer in zip(HEAD_PLACES, inputs, HEAD_WIDTHS, strict=True):
            self.head.add_module(str(place), nn.Linear(inner, outer))

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Rewards [B] of normalised pixels [B, 3, S, S] and tokens [B, L] with their mask."""
        seen = self.vision(pixels).last_hidden_state
        states = self.text(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
            is_decoder=False,
        ).last_hidden_state
        return self.head(states[:, 0]).squeeze(-1)


def new_name(name: str) -> str:
    """A tensor's name in `RewardNetwork`, from that in the published file."""
    if name.startswith("mlp.layers."):
        return f"head.{name.removeprefix('mlp.layers.')}"
    if name.startswith("blip.text_encoder."):
        return f"text.{name.removeprefix('blip.text_encoder.')}"
    inner = name.removeprefix("blip.visual_encoder.")
    if block := re.match(r"blocks\.(\d+)\.(.+)\.(weight|bias)$", inner):
        module = _BLOCK.get(block[2], block[2])
        return f"vision.encoder.layers.{block[1]}.{module}.{block[3]}"
    module, dot, kind = inner.rpartition(".")
    whole = _VISUAL.get(inner) or f"{_VISUAL.get(module, module)}{dot}{kind}"
    return f"vision.{whole}"
