"""Detection of the family of a folder, an embedded model or a hub id, and checks of a folder's parts."""

from __future__ import annotations

import difflib
import functools
from pathlib import Path
from typing import Any

from ..foreign.fetched import FETCHED, is_here
from ..foreign.gguf import is_gguf, opened
from ..foreign.hub_errors import refusal
from ..foreign.loading import needs_code
from ..types import ParetuneError
from ..worlds.embedded import EMBEDDED, SETTINGS
from .config_files import read_config, read_model_config
from .family import Family, by_hub_id, by_pipeline, families, transformers_of


def family_of(path: str) -> Family:
    """The family of a folder, an embedded model or a hub id; for an unknown hub id the hub is queried.

    Raises ParetuneError for a model without a policy, and when the hub cannot be reached.
    """
    return check_model(path) or by_hub_id().get(path) or _ask_hub(path)


def resolve_path(path: str) -> str:
    """The folder of an embedded model, or the one that a GGUF file is opened as; any other path unchanged."""
    if path in EMBEDDED:
        return str(EMBEDDED[path])
    return str(opened(path)) if is_gguf(path) else path


def place_of(path: str) -> Path:
    """As `resolve_path`, for what asks without loading: a model that is not fetched yet keeps its name."""
    return Path(path if path in FETCHED and not is_here(path) else resolve_path(path))


def world_of(path: str) -> str:
    """The embedded world of a model, "" for a model that is not embedded."""
    return EMBEDDED[path].parent.name if path in EMBEDDED else ""


def settings_of(path: str) -> dict[str, Any]:
    """The default settings of an embedded model under `model:`; {} for other models."""
    return dict(SETTINGS.get(path, {}))


def check_model(path: str) -> Family | None:
    """The family of a local folder, or None for a hub id or a model that is not fetched yet.

    Raises ParetuneError when the folder is not a valid model of a family that has a policy.
    """
    if path in FETCHED and not is_here(path):
        return None
    resolved = Path(resolve_path(path))
    if path in EMBEDDED and not resolved.exists():
        raise ParetuneError(f"model.path: the embedded model {path} is not in this installation")
    if not resolved.exists():
        if path.count("/") == 1 and not path.startswith((".", "~")) and not Path(path).parent.is_dir():
            return None
        raise ParetuneError(f"model.path: no folder {path}; give a pipeline folder or a hub id")
    if resolved.is_file():
        raise ParetuneError(
            f"model.path: {path} is one file; give a folder of safetensors, or a GGUF file"
        )
    if (resolved / "config.json").exists() and not (resolved / "model_index.json").exists():
        family = _transformers_family(path, resolved / "config.json")
        _check_weights(resolved)
        return family
    index = resolved / "model_index.json"
    if not index.exists():
        raise ParetuneError(f"model.path: {path} is no diffusers pipeline: model_index.json is missing")
    family = _pipeline_family(path, index)
    for part in transformers_of([folder.name for folder in sorted(resolved.iterdir()) if folder.is_dir()]):
        _check_weights(resolved / part)
    _check_parts(path, resolved, family)
    return family


def _check_parts(path: str, folder: Path, family: Family) -> None:
    """Check that every part is in the index and in its folder, and that the transformer is the family's."""
    index = read_config(folder / "model_index.json")
    _check_libraries(path, folder, index, family)
    listed = {part for part, kind in index.items() if isinstance(kind, list) and kind and kind[0] is not None}
    parts = (*family.parts, *family.more_parts(index))
    # Each text encoder needs the tokenizer with its number.
    encoders = [part for part in parts if part.startswith("text_encoder")]
    tokenizers = [part.replace("text_encoder", "tokenizer") for part in encoders]
    scheduler = ("scheduler",) if "vae" in parts else ()
    for part in (*parts, *scheduler, *tokenizers):
        if part not in listed or not (folder / part).is_dir() or not any((folder / part).iterdir()):
            raise ParetuneError(f"model.path: {path} lacks its {part}")
    for part in sorted(listed):
        if part in parts and not (folder / part / "config.json").exists():
            raise ParetuneError(f"model.path: {path} lacks its {part}/config.json")
        for config in sorted((folder / part).glob("*config.json")):
            read_model_config(config)
    for part in transformers_of(parts):
        config = folder / part / "config.json"
        kind = read_config(config).get("_class_name", family.transformer)
        if kind != family.transformer:
            raise ParetuneError(
                f"model.path: model_index.json of {path} is of another model: it needs a "
                f"{family.transformer}, and the {part} is a {kind}"
            )


def _check_libraries(path: str, folder: Path, index: dict[str, Any], family: Family) -> None:
    """Check that every part has a class of the two libraries; diffusers would run a file of another part."""
    for part, entry in index.items():
        if part.startswith("_") or not isinstance(entry, list) or entry[:1] in ([], [None]):
            continue
        if entry[0] not in family.libraries or (folder / part / f"{entry[0]}.py").exists():
            raise ParetuneError(needs_code(f"model.path: the {part} of {path}", folder / part))


def _pipeline_family(path: str, index: Path) -> Family:
    """The family of the pipeline class that a model_index.json names."""
    kind = read_config(index).get("_class_name")
    if isinstance(kind, list):  # [file, class]: a pipeline with custom code
        raise ParetuneError(needs_code(f"model.path: the pipeline {path}", index.parent))
    if not isinstance(kind, str):
        raise ParetuneError(f"model.path: {index} is damaged: its _class_name is not a name")
    known = by_pipeline()
    if kind not in known:
        near = difflib.get_close_matches(kind, known, n=1, cutoff=0.0)[0]
        raise ParetuneError(
            f"model.path: {path} is a {kind}, which no family here draws (the nearest is {known[near].name}, "
            f"of a {near}); docs/add-a-model.md says how a family is added"
        )
    return known[kind]


def _transformers_family(path: str, config: Path) -> Family:
    """The family of the architectures that a config.json of transformers names."""
    values = read_model_config(config)
    kinds = values.get("architectures")
    if kinds is None:
        raise ParetuneError(f"model.path: {config} names no architectures")
    if values.get("auto_map") and not _is_known_causal_lm(values.get("model_type")):
        raise ParetuneError(needs_code(f"model.path: {path}", config.parent))
    for family in families().values():
        if family.architectures and any(str(kind).endswith(family.architectures) for kind in kinds or ()):
            return family
    known = " or ".join(f"..{end}" for family in families().values() for end in family.architectures)
    raise ParetuneError(f"model.path: {path} is a {', '.join(kinds or ['?'])}, not a {known}")


def _is_known_causal_lm(model_type: object) -> bool:
    """Whether transformers itself has a causal language model for the model_type of a config.json."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    return str(model_type) in KNOWN


@functools.lru_cache(maxsize=32)
def _ask_hub(path: str) -> Family:
    """The family of a hub id, from its model_index.json or config.json, which is a small download."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity_error()  # its retries would be twenty lines before the error message

    readers: dict[str, Any] = {"model_index.json": _pipeline_family, "config.json": _transformers_family}
    reached = True
    for name, reader in readers.items():
        try:
            return reader(path, Path(hf_hub_download(path, name)))
        except LocalEntryNotFoundError:  # there is no connection, and the file was never downloaded
            reached = False
        except EntryNotFoundError:  # the repository has no such file
            continue
        except ParetuneError:
            raise
        except Exception as error:  # the library passes on any error of its layers
            reason = refusal(error, path) or (str(error).strip() or type(error).__name__).split("\n")[0]
            raise ParetuneError(f"model.path: the hub does not give {path}: {reason}") from error
    if not reached:
        raise ParetuneError(
            f"model.path: the hub cannot be reached to ask what {path} is; connect, or give its folder"
        )
    raise ParetuneError(f"model.path: {path} on the hub has neither {' nor '.join(readers)}")


def _check_weights(weights: Path) -> None:
    if not any(weights.glob("*.safetensors")):
        pickles = [p.name for p in weights.glob("*") if p.suffix in {".bin", ".pt", ".ckpt", ".pth"}]
        what = f"only a pickle ({pickles[0]})" if pickles else "no weights"
        raise ParetuneError(
            f"model.path: {weights} holds {what}; convert it to safetensors, paretune reads no pickle"
        )
