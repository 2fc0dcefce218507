"""Model folders and hub ids: which family of models a path names, and what can be wrong with it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from ..types import ParetuneError
from .config_files import read_config, read_model_config

_WORLDS = Path(__file__).parent.parent / "worlds"
# The name of an embedded model, and its folder in that of its world.
EMBEDDED = {
    "pictures": _WORLDS / "pictures" / "checkpoint",
    "pictures-flux": _WORLDS / "pictures" / "flux",
    "clips": _WORLDS / "clips" / "checkpoint",
    "assistant": _WORLDS / "assistant" / "checkpoint",
}
# The pipelines that have a policy, and the family each belongs to.
PIPELINES = {
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
    "HunyuanVideoPipeline": "hunyuan_video",
}
# What each family's pipeline cannot do without, and the class of its transformer. SD3's T5 may be missing.
PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2")
TRANSFORMERS = {
    "sd3": "SD3Transformer2DModel",
    "flux": "FluxTransformer2DModel",
    "hunyuan_video": "HunyuanVideoTransformer3DModel",
}
# How the classes of transformers end that write text from left to right; GPT-2's is older than the others.
WRITERS = ("ForCausalLM", "LMHeadModel")
# Families of published models, so that their recipes are planned without a connection.
HUB = {
    "stabilityai/stable-diffusion-3.5-medium": "sd3",
    "stabilityai/stable-diffusion-3.5-large": "sd3",
    "stabilityai/stable-diffusion-3-medium-diffusers": "sd3",
    "black-forest-labs/FLUX.1-dev": "flux",
    "hunyuanvideo-community/HunyuanVideo": "hunyuan_video",
    "meta-llama/Llama-2-7b-hf": "causal_lm",
    "meta-llama/Llama-2-13b-hf": "causal_lm",
    "meta-llama/Llama-3.1-8B": "causal_lm",
    "Qwen/Qwen2.5-7B": "causal_lm",
}


def family_of(path: str) -> str:
    """The family of a folder, an embedded model or a hub id, which the hub is asked for unless it is known.

    Raises ParetuneError, one line, for what has no policy or cannot be asked.
    """
    return check_model(path) or HUB.get(path) or _ask_hub(path)


def resolve_path(path: str) -> str:
    """A folder for the name of an embedded model; anything else as it is."""
    return str(EMBEDDED[path]) if path in EMBEDDED else path


def world_of(path: str) -> str:
    """The embedded world that a model is of, "" for any other model."""
    return EMBEDDED[path].parent.name if path in EMBEDDED else ""


def check_model(path: str) -> str:
    """The family of a local folder; "" for a hub id, which only its download tells.

    Raises ParetuneError, one line, when the folder cannot be a pipeline of a family that has a policy.
    """
    resolved = Path(resolve_path(path))
    if path in EMBEDDED and not resolved.exists():
        raise ParetuneError(f"model.path: the embedded model {path} is not in this installation")
    if not resolved.exists():
        if path.count("/") == 1 and not path.startswith((".", "~")) and not Path(path).parent.is_dir():
            return ""
        raise ParetuneError(f"model.path: no folder {path}; give a pipeline folder or a hub id")
    if resolved.is_file():
        raise ParetuneError(
            f"model.path: {path} is one file; paretune reads diffusers folders of safetensors"
        )
    if (resolved / "config.json").exists() and not (resolved / "model_index.json").exists():
        family = _transformers_family(path, resolved / "config.json")
        _check_weights(resolved)
        return family
    index = resolved / "model_index.json"
    if not index.exists():
        raise ParetuneError(f"model.path: {path} is no diffusers pipeline: model_index.json is missing")
    family = _pipeline_family(path, index)
    if (resolved / "transformer").is_dir():
        _check_weights(resolved / "transformer")
    _check_parts(path, resolved, family)
    return family


def _check_parts(path: str, folder: Path, family: str) -> None:
    """Every part is in the index and in its folder, and the transformer is the family's."""
    index = read_config(folder / "model_index.json")
    listed = {part for part, kind in index.items() if isinstance(kind, list) and kind and kind[0] is not None}
    # A text encoder is nothing without the tokenizer of its number.
    needed = (*PARTS, "scheduler", *(p.replace("text_encoder", "tokenizer") for p in PARTS[2:]))
    for part in needed:
        if part not in listed or not (folder / part).is_dir() or not any((folder / part).iterdir()):
            raise ParetuneError(f"model.path: {path} lacks its {part}")
    for part in sorted(listed):
        if part in PARTS and not (folder / part / "config.json").exists():
            raise ParetuneError(f"model.path: {path} lacks its {part}/config.json")
        for config in sorted((folder / part).glob("*config.json")):
            read_model_config(config)
    config = folder / "transformer" / "config.json"
    kind = read_config(config).get("_class_name", TRANSFORMERS[family])
    if kind != TRANSFORMERS[family]:
        raise ParetuneError(
            f"model.path: model_index.json of {path} is of another model: it wants a "
            f"{TRANSFORMERS[family]}, and the transformer is a {kind}"
        )


def _pipeline_family(path: str, index: Path) -> str:
    """What a model_index.json tells."""
    kind = read_config(index).get("_class_name")
    if not isinstance(kind, str):
        raise ParetuneError(f"model.path: {index} is damaged: its _class_name is no name")
    if kind not in PIPELINES:
        raise ParetuneError(f"model.path: {path} is a {kind}, not a {' or '.join(PIPELINES)}")
    return PIPELINES[kind]


def _transformers_family(path: str, config: Path) -> str:
    """What a config.json of transformers tells."""
    kinds = read_model_config(config).get("architectures")
    if kinds is None:
        raise ParetuneError(f"model.path: {config} names no architectures")
    if not any(kind.endswith(WRITERS) for kind in kinds):
        told = " or ".join(f"..{end}" for end in WRITERS)
        raise ParetuneError(f"model.path: {path} is a {', '.join(kinds or ['?'])}, not a {told}")
    return "causal_lm"


@functools.lru_cache(maxsize=32)
def _ask_hub(path: str) -> str:
    """The family of a hub id, by its own model_index.json or config.json: a small download."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity_error()  # its retries would be twenty lines before our one

    readers: dict[str, Any] = {"model_index.json": _pipeline_family, "config.json": _transformers_family}
    reached = True
    for name, reader in readers.items():
        try:
            return reader(path, Path(hf_hub_download(path, name)))
        except LocalEntryNotFoundError:  # no connection, and it was never downloaded
            reached = False
        except EntryNotFoundError:  # a repository of another kind
            continue
        except ParetuneError:
            raise
        except Exception as error:  # the library raises whatever its layers raise
            reason = (str(error).strip() or type(error).__name__).split("\n")[0]
            raise ParetuneError(f"model.path: the hub does not give {path}: {reason}") from error
    if not reached:
        raise ParetuneError(
            f"model.path: the hub cannot be reached to ask what {path} is; connect, or give a folder of it"
        )
    raise ParetuneError(f"model.path: {path} on the hub has neither {' nor '.join(readers)}")


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
