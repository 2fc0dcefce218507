"""Model folders and hub ids: which family of models a path names, and what can be wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

from ..types import ParetuneError

_WORLDS = Path(__file__).parent.parent / "worlds"
EMBEDDED = {name: _WORLDS / name / "checkpoint" for name in ("pictures", "clips", "assistant")}
# The pipelines that have a policy, and the family each belongs to.
PIPELINES = {
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
    "HunyuanVideoPipeline": "hunyuan_video",
}


def resolve_path(path: str) -> str:
    """A folder for the name of an embedded model; anything else as it is."""
    return str(EMBEDDED[path]) if path in EMBEDDED else path


def check_model(path: str) -> str:
    """The family of a local folder; "" for a hub id, which only its download tells.

    Raises ParetuneError, one line, when the folder cannot be a pipeline of a family that has a policy.
    """
    resolved = Path(resolve_path(path))
    if path in EMBEDDED and not resolved.exists():
        raise ParetuneError(f"model.path: the embedded model {path} was not built: see docs/world-clips.md")
    if not resolved.exists():
        if path.count("/") == 1 and not path.startswith((".", "~")):
            return ""
        raise ParetuneError(f"model.path: no folder {path}; give a pipeline folder or a hub id")
    if resolved.is_file():
        raise ParetuneError(
            f"model.path: {path} is one file; paretune reads diffusers folders of safetensors"
        )
    if (resolved / "config.json").exists() and not (resolved / "model_index.json").exists():
        return _transformers_family(path, resolved)
    index = resolved / "model_index.json"
    if not index.exists():
        raise ParetuneError(f"model.path: {path} is no diffusers pipeline: model_index.json is missing")
    try:
        kind = json.loads(index.read_text())["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ParetuneError(f"model.path: {index} is damaged") from error
    if kind not in PIPELINES:
        raise ParetuneError(f"model.path: {path} is a {kind}, not a {' or '.join(PIPELINES)}")
    _check_weights(resolved / "transformer")
    return PIPELINES[kind]


def _transformers_family(path: str, folder: Path) -> str:
    """The family of a folder that transformers wrote."""
    try:
        kinds = json.loads((folder / "config.json").read_text())["architectures"]
    except (ValueError, KeyError, TypeError) as error:
        raise ParetuneError(f"model.path: {folder / 'config.json'} names no architectures") from error
    if not any(str(kind).endswith("ForCausalLM") for kind in kinds or ()):
        raise ParetuneError(f"model.path: {path} is a {', '.join(kinds or ['?'])}, not a ..ForCausalLM")
    _check_weights(folder)
    return "causal_lm"


def _check_weights(weights: Path) -> None:
    if not any(weights.glob("*.safetensors")):
        pickles = [p.name for p in weights.glob("*") if p.suffix in {".bin", ".pt", ".ckpt", ".pth"}]
        what = f"only a pickle ({pickles[0]})" if pickles else "no weights"
        raise ParetuneError(
            f"model.path: {weights} holds {what}; convert it to safetensors, paretune reads no pickle"
        )


def quiet() -> None:
    """No bars and no advice from the libraries: our own progress is what the user reads."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
