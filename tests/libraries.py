"""The libraries that a process loads before others are forked from it."""

from __future__ import annotations

import os
import warnings
from importlib import import_module

# No paretune among them: it reads the environment when it is imported.
LIBRARIES = ("torch", "transformers", "diffusers", "peft", "scipy.stats", "matplotlib.pyplot", "jinja2",
             "rich.progress", "typer", "pydantic", "yaml", "PIL.Image")  # fmt: skip
CLASSES = {
    "diffusers": ("StableDiffusion3Pipeline", "AutoencoderKL", "SD3Transformer2DModel",
                  "FlowMatchEulerDiscreteScheduler"),
    "transformers": ("CLIPTextModelWithProjection", "CLIPTokenizer", "PreTrainedTokenizerFast"),
}  # fmt: skip


def load() -> None:
    """Load them, with the classes that they load when they are first asked for."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # as paretune sets them before it loads these
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = {name: import_module(name) for name in LIBRARIES}
        for name, classes in CLASSES.items():
            for kind in classes:
                getattr(loaded[name], kind)
