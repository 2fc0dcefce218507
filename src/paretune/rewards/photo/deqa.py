"""DeQA-Score (You et al. 2025, arXiv 2501.11561): the technical quality of a picture, from 1 to 5.

An mPLUG-Owl2 is asked how it would rate the quality of a picture, and its answer is begun; the score is the
mean of 5, 4, 3, 2, 1 under the chances of the next words excellent, good, fair, poor, bad among these five.
Question, words and weights are those of the authors' code (github zhiyuanyou/DeQA-Score, MIT,
src/evaluate/scorer.py); pictures are padded to a square with the mean colour, as there. Unlike there, the
chances are computed in float32 and pictures are resized in torch. Flow-GRPO asks the same of a server, and
sends it pictures after JPEG.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from paretune.types import ParetuneError, Prompt

from ..hub import frozen, normalised
from ..pinned import pinned
from .owl2 import owl2_class

# The question in the tokens of LLaMA 2, which the checkpoint was trained with:
# "<s>USER: How would you rate the quality of this image?\n", the picture, and
# "\nASSISTANT: The quality of the image is". It never changes, so that no tokenizer is needed, nor the
# package that reads the published one (sentencepiece).
BEFORE = (1, 3148, 1001, 29901, 1128, 723, 366, 6554, 278, 11029, 310, 445, 1967, 29973, 13)
AFTER = (29871, 13, 22933, 9047, 13566, 29901, 450, 11029, 310, 278, 1967, 338)
WORDS = {"excellent": 15129, "good": 1781, "fair": 6534, "poor": 6460, "bad": 4319}
WEIGHTS = (5.0, 4.0, 3.0, 2.0, 1.0)
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's CLIP
BATCH = 8


class DeQA:
    """The score, 1 (bad) to 5 (excellent), of pictures of any size, whatever the prompt says.

    model: a DeQA-Score, as a hub id or a folder. dtype: the type the network computes in; the authors' is
    float16, and a CPU needs float32. device: "cuda" where there is one, unless told. revision: the commit of
    `model`.
    """

    name = "deqa"
    range = (1.0, 5.0)
    higher_is_better = True

    def __init__(
        self,
        model: str = "zhiyuanyou/DeQA-Score-Mix3",
        dtype: str = "float16",
        device: str | None = None,
        revision: str | None = None,
    ) -> None:
        self._network = frozen(owl2_class(), model, device, dtype, **pinned(model, revision))
        words: int = self._network.config.vocab_size
        if words <= max(*BEFORE, *AFTER):
            raise ParetuneError(f"reward model {model} has {words} words, and deqa asks in those of LLaMA 2")

    @torch.no_grad()
    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1]. Returns float32 [B]."""
        return torch.cat([self._scores(part) for part in samples.split(BATCH)])

    def _scores(self, samples: torch.Tensor) -> torch.Tensor:
        network = self._network
        pictures = prepared(samples.detach().to(network.device, torch.float32), network.picture_size)
        logits = network(BEFORE, pictures.to(network.dtype), AFTER)
        return mean_level(logits[:, list(WORDS.values())]).cpu()


def mean_level(logits: torch.Tensor) -> torch.Tensor:
    """[B, 5] logits of the five words, best first -> the mean level [B], float32."""
    return logits.float().softmax(-1) @ torch.tensor(WEIGHTS, device=logits.device)


def prepared(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """[B, 3, H, W] in [0, 1] -> what the network is shown, [B, 3, size, size].

    Whole numbers 0..255, the shorter sides padded with the mean colour, resized bicubically, normalised.
    """
    height, width = pictures.shape[-2:]
    side = max(height, width)
    square = pictures.new_tensor([int(255 * value) for value in MEAN]).view(3, 1, 1).repeat(1, side, side)
    square = square.expand(len(pictures), -1, -1, -1).clone()
    top, left = (side - height) // 2, (side - width) // 2
    square[..., top : top + height, left : left + width] = (pictures.clamp(0, 1) * 255).round()
    resized = functional.interpolate(square, (size, size), mode="bicubic", antialias=True)
    return normalised(resized.round().clamp(0, 255) / 255, MEAN, STD)
