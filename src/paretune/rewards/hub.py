"""What rewards with networks of transformers share: where they run, how they are loaded, how pictures are
prepared as their processors would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from paretune.foreign.loading import load
from paretune.types import ParetuneError

from .loaded import check_loaded, refuse_pickles


def frozen(
    kind: Any, model: str, device: str | None = None, dtype: str = "float32", **options: Any
) -> Any:
    """A class of transformers loaded from a hub id or folder for inference.

    device: a GPU where there is one, unless given. The network's `device` says which it was. options: more of
    from_pretrained's. Raises ParetuneError for weights in pickles, and for any that are missing or damaged.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # paretune shows its own progress
    wanted = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    refuse_pickles(model)
    try:
        network, info = load(
            kind, model, f"reward model {model}",
            dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **options,
        )  # fmt: skip
    except OSError as error:
        if "safetensors" not in str(error):
            raise
        raise ParetuneError(
            f"reward model {model} has no weights in safetensors, and pickles are never read: convert them"
        ) from error
    check_loaded(info, network, f"reward model {model}")
    return network.eval().requires_grad_(False).to(wanted)


def processor_settings(name: str, **options: Any) -> dict[str, Any]:
    """The settings of a hub id's or folder's image processor, read without making one (torchvision).

    options: more of from_pretrained's, `revision` for one.
    """
    from transformers.image_processing_base import ImageProcessingMixin

    return ImageProcessingMixin.get_image_processor_dict(name, **options)[0]


def normalised(pictures: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(pictures - mean) / std, a mean and a deviation for each of three channels of [.., 3, H, W]."""
    middle, spread = (pictures.new_tensor(values).view(3, 1, 1) for values in (mean, std))
    return (pictures - middle) / spread
