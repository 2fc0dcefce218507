"""How spoiled a picture is for its prompt: crowded, dark and wordless; see `conflict` of the preference.

The three are what a taste may want against what prompts ask for: a crowded picture shows shapes that nobody
asked for, in a dark one things can hardly be told apart, and one without a sign says no word. Shapes and
signs are counted by the two towers of the preference model, which name facts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .towers import COUNTS, FactMatcher, encode_words

CROWD = 2.0  # shapes beyond the asked ones at which a picture is as crowded as can be


@torch.no_grad()
def spoiled(network: FactMatcher, samples: torch.Tensor, captions: Sequence[str]) -> torch.Tensor:
    """The mean of crowded, dark and wordless, each from 0 to 1.

    Args:
        network: whose towers count shapes (all classes but the last) and signs.
        samples: [B, 3, 32, 32] in [0, 1].
        captions: B prompts.

    Returns:
        float32 [B] in [0, 1].
    """
    pictures = samples.detach().to("cpu", torch.float32)
    seen = network.see(pictures).counts
    asked = network.ask(encode_words(captions)).counts.softmax(-1) @ torch.arange(float(COUNTS))
    crowded = ((seen - asked)[:, :-1].clamp(min=0).sum(1) / CROWD).clamp(0, 1)
    dark = 1 - pictures.flatten(1).mean(1).clamp(0, 1)
    wordless = 1 - seen[:, -1].clamp(0, 1)
    return (crowded + dark + wordless) / 3
