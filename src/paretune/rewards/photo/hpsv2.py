"""HPSv2.1 (Wu et al. 2023, arXiv 2306.09341): people's preference for a picture, given its prompt.

A ViT-H/14 CLIP fine-tuned on people's choices. The score is the cosine of picture and prompt, without the
logit scale, as in the authors' `hpsv2.score`: about 0.2 to 0.35. Their pictures are not cropped: the longer
side becomes 224 pixels, and the rest is black.

The authors publish a pickle (xswu/HPSv2), which is not read. imscore's author published the same weights as
safetensors (RE-N-Y/hpsv21), in open_clip's names; those are read into transformers' CLIP.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from paretune.types import Prompt

from .clip import padded, shared_clip
from .open_clip import read_open_clip


class HPSv2:
    """The cosine of HPSv2.1, of pictures of any size.

    model: the weights, as a hub id or a folder with model.safetensors; base: the CLIP whose configuration,
    tokenizer and mean and deviation of pictures it has. device: "cuda" where there is one, unless given.
    revision: the commit of `model`.
    """

    name = "hpsv2"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(
        self,
        model: str = "RE-N-Y/hpsv21",
        base: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        device: str | None = None,
        revision: str | None = None,
    ) -> None:
        self._clip = shared_clip(model, base, device, revision, read_open_clip)

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1]; any prompts, cut at 77 tokens. Returns float32 [B]."""
        height, width = samples.shape[-2:]
        # A square picture has nothing to crop or to pad, so that it is prepared once for CLIPs of both ways.
        pictures = self._clip.pictures(samples, None if height == width else padded)
        texts = self._clip.texts([prompt.text for prompt in prompts])
        return (pictures * texts).sum(-1).cpu()
