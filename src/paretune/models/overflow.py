"""Values that leave the range of float16, in one line: its largest number is 65504."""

from __future__ import annotations

import torch

from ..config import ModelConfig
from ..types import ParetuneError


def check_finite(values: torch.Tensor, what: str, config: ModelConfig) -> None:
    """Raise ParetuneError where a float16 model gives NaN or infinity. Other dtypes are not checked.

    values: [..]. what: they are, such as "the samples".
    """
    if config.dtype == "float16" and not bool(torch.isfinite(values).all()):
        raise ParetuneError(
            f"model.dtype: float16 is too narrow for {config.path}: {what} hold NaN or infinite values; "
            "take bfloat16 or float32"
        )
