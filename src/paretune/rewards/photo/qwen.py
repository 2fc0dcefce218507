"""A Qwen2-VL or Qwen2.5-VL of transformers that is shown one picture and asked one question.

Shapes: a picture is [3, H, W] in [0, 1].
"""

from __future__ import annotations

import math
from typing import Any
from weakref import WeakValueDictionary

import torch

from paretune.foreign.loading import load
from paretune.types import ParetuneError

from ..hub import frozen, processor_settings
from ..pinned import pinned
from ..qwen_vision import CHAT, MERGE, patches, resized

LEAST_PIXELS, MOST_PIXELS = 56 * 56, 14 * 14 * 4 * 1280  # of transformers' processor
PICTURE = "<|image_pad|>"
CLASSES = {"qwen2_vl": "Qwen2VLForConditionalGeneration", "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration"}
_models: WeakValueDictionary[Any, QwenVL] = WeakValueDictionary()


def shared_qwen(
    model: str, dtype: str = "bfloat16", device: str | None = None, revision: str | None = None
) -> QwenVL:
    """The model of a hub id or folder: one for all rewards of this process that ask for the same."""
    key = (model, dtype, device, revision)
    if (known := _models.get(key)) is None:
        known = _models[key] = QwenVL(*key)
    return known


class QwenVL:
    """A model with its tokenizer. Raises ParetuneError for a model of another architecture."""

    def __init__(
        self, model: str, dtype: str = "bfloat16", device: str | None = None, revision: str | None = None
    ) -> None:
        import transformers

        commit = pinned(model, revision)
        where = f"reward model {model}"
        kind = load(transformers.AutoConfig, model, where, **commit).model_type
        if kind not in CLASSES:
            raise ParetuneError(f"{where} is a {kind}; this reward asks a {' or '.join(CLASSES)}")
        self.network = frozen(getattr(transformers, CLASSES[kind]), model, device, dtype, **commit)
        self.tokenizer: Any = load(transformers.AutoTokenizer, model, where, **commit)
        settings = processor_settings(model, **commit)
        size = settings.get("size") or {}
        self._limits = (
            settings.get("min_pixels") or size.get("shortest_edge") or LEAST_PIXELS,
            settings.get("max_pixels") or size.get("longest_edge") or MOST_PIXELS,
        )

    @torch.no_grad()
    def chances(self, picture: torch.Tensor, question: str) -> torch.Tensor:
        """The chance of every token to begin the answer, float32 [vocabulary] on the CPU."""
        out = self.network(**self._asked(picture, question), use_cache=False, logits_to_keep=1)
        return out.logits[0, -1].float().softmax(-1).cpu()

    @torch.no_grad()
    def answer(self, picture: torch.Tensor, question: str, most: int = 256) -> str:
        """The likeliest answer, token by token, of `most` tokens at most."""
        asked = self._asked(picture, question)
        out = self.network.generate(**asked, max_new_tokens=most, do_sample=False, repetition_penalty=1.0)
        return self.tokenizer.decode(out[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)

    def _asked(self, picture: torch.Tensor, question: str) -> dict[str, torch.Tensor]:
        device = self.network.device
        pixels, grid = patches(resized(picture[None].to(device), *self._limits))
        ids = question_ids(self.tokenizer, question, grid)
        seen = ids == self.network.config.image_token_id
        return {
            "input_ids": ids.to(device),
            "attention_mask": torch.ones_like(ids).to(device),
            "mm_token_type_ids": seen.int().to(device),
            "pixel_values": pixels.to(self.network.dtype),
            "image_grid_thw": torch.tensor([grid], device=device),
        }


def question_ids(tokenizer: Any, question: str, grid: list[int]) -> torch.Tensor:
    """The tokens [1, L] of a question about a picture of a grid of patches."""
    merged = math.prod(grid) // MERGE**2
    text = CHAT.format(seen=PICTURE * merged, text=question)
    return tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]


def refuse_tokens(name: str, prompt: str, tokens: tuple[str, ...] = ()) -> None:
    """Raise ParetuneError for a prompt that holds a token which would be read as a picture or a turn."""
    special = (PICTURE, "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", *tokens)
    if found := next((token for token in special if token in prompt), None):
        raise ParetuneError(f"{name}: the prompt {prompt[:60]!r} holds the token {found}")
