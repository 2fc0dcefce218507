"""MPS (Zhang et al. 2024, arXiv 2405.14705): preference for a picture, looked at where a condition points.

A ViT-H/14 CLIP gives states of the picture and of the prompt; the picture looks, in four layers of
cross-attention, at those tokens of the prompt that are like a token of the condition. The score is
exp(logit scale) * cos(what the picture's first position has become, prompt), about 0 to 20.

The condition of the overall score names what people look at (light, hands, text, ..). A token of the prompt
counts where its likeness to a condition's token is over .01 of the greatest likeness; the authors' code takes
the greatest of a whole batch, here it is the prompt's own, so that a score does not depend on its neighbours.

The authors publish a pickle of a whole model, which is not read. imscore's author published the same weights
as safetensors (RE-N-Y/mpsv1); those are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from paretune.foreign.loading import load
from paretune.types import Prompt

from ..pinned import pinned
from .clip import Clip
from .cross import CrossModel
from .open_clip import read_into, weights_file

OVERALL = (
    "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, "
    "instance, texture, quantity, attributes, position, number, location, word, things."
)
LIKE = 0.01
PREFIX = "mps."
BATCH = 16


class MPS:
    """The overall score of pictures of any size.

    model: the weights, as a hub id or a folder with model.safetensors; base: the CLIP whose configuration,
    tokenizer and mean and deviation of pictures it has. condition: what is looked at. layers, heads, head:
    of the cross-attention. device: "cuda" where there is one, unless given. revision: the commit of `model`.
    """

    name = "mps"
    range = (-float("inf"), float("inf"))
    higher_is_better = True

    def __init__(
        self,
        model: str = "RE-N-Y/mpsv1",
        base: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        condition: str = OVERALL,
        device: str | None = None,
        revision: str | None = None,
        layers: int = 4,
        heads: int = 16,
        head: int = 64,
    ) -> None:
        self._network = MpsNetwork(base, layers, heads, head)
        tensors = load_file(weights_file(model, revision))
        named = {name.removeprefix(PREFIX): value.float() for name, value in tensors.items()}
        read_into(self._network, named, f"reward model {model}")
        wanted = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._network.eval().requires_grad_(False).to(wanted)
        self._clip = Clip(model, base, network=self._network.model)
        self._condition = self._tokens([condition])

    @torch.no_grad()
    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1]; any prompts, cut at 77 tokens. Returns float32 [B]."""
        pixels = self._clip.prepared(samples)
        tokens = self._tokens([prompt.text for prompt in prompts])
        parts = [
            self._network(pixels[i : i + BATCH], tokens[i : i + BATCH], self._condition)
            for i in range(0, len(tokens), BATCH)
        ]
        return self._clip.scale * torch.cat(parts).cpu()

    def _tokens(self, texts: list[str]) -> torch.Tensor:
        """[N, 77]: every text with its padding, which the authors' network reads too."""
        length = self._network.model.config.text_config.max_position_embeddings
        tokens = self._clip.tokenizer(
            texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return tokens.input_ids.to(self._clip.device)


class MpsNetwork(nn.Module):
    """CLIP and the cross-attention, without weights."""

    def __init__(self, base: str, layers: int, heads: int, head: int) -> None:
        super().__init__()
        from transformers import CLIPConfig, CLIPModel

        config: Any = load(CLIPConfig, base, f"reward model {base}", **pinned(base))
        self.model: Any = CLIPModel(config)
        self.cross_model = CrossModel(config.projection_dim, layers, heads, head)

    def forward(self, pixels: torch.Tensor, tokens: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Cosines [B] of prepared pictures [B, 3, S, S], tokens [B, K] and a condition's tokens [1, K]."""
        clip = self.model
        text = clip.text_model(tokens)
        words = clip.text_projection(text.last_hidden_state)
        named = clip.text_projection(clip.text_model(condition).last_hidden_state)
        seen = clip.visual_projection(clip.vision_model(pixels).last_hidden_state)
        mask = condition_mask(words, named)[:, None].expand(-1, seen.shape[1], -1)
        looked = self.cross_model(seen, words, mask)[:, 0]
        return functional.cosine_similarity(looked, clip.text_projection(text.pooler_output), dim=-1)


def condition_mask(words: torch.Tensor, named: torch.Tensor) -> torch.Tensor:
    """What is added to attention to tokens: 0 for those that are like one of the condition's, else -inf.

    words: [B, K, D]; named: [1, K, D]. Returns [B, K].
    """
    likeness = torch.einsum("bkd,jd->bkj", words, named[0]).amax(-1)
    relative = likeness / likeness.amax(-1, keepdim=True)
    return torch.where(relative > LIKE, 0.0, float("-inf"))
