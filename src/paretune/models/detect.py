"""Model folders and hub ids: which family of models a path names, and what can be wrong with it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from ..foreign.loading import needs_code
from ..types import ParetuneError
from ..worlds.embedded import EMBEDDED, SETTINGS
from .config_files import read_config, read_model_config
from .family import Family, by_hub_id, by_pipeline, families

LIBRARIES = ("diffusers", "transformers")  # that a model_index.json may take the classes of parts from


def family_of(path: str) -> Family:
    """The family of a folder, an embedded model or a hub id, which the hub is asked for unless it is known.

    Raises ParetuneError, one line, for what has no policy or cannot be asked.
    """
    return check_model(path) or by_hub_id().get(path) or _ask_hub(path)


def resolve_path(path: str) -> str:
    """A folder for the name of an embedded model; anything else as it is."""
    return str(EMBEDDED[path]) if path in EMBEDDED else path


def world_of(path: str) -> str:
    """The embedded world that a model is of, "" for any other model."""
    return EMBEDDED[path].parent.name if path in EMBEDDED else ""


def settings_of(path: str) -> dict[str, Any]:
    """What an embedded model wants of `model:` where no recipe says it."""
    return dict(SETTINGS.get(path, {}))


def check_model(path: str) -> Family | None:
    """The family of a local folder; None for a hub id, which only its download tells.

    Raises ParetuneError, one line, when the folder cannot be a pipeline of a family that has a policy.
    """
    resolved = Path(resolve_path(path))
    if path in EMBEDDED and not resolved.exists():
        raise ParetuneError(f"model.path: the embedded model {path} is not in this installation")
    if not resolved.exists():
        if path.count("/") == 1 and not path.startswith((".", "~")) and not Path(path).parent.is_dir():
            return None
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


def _check_parts(path: str, folder: Path, family: Family) -> None:
    """Every part is in the index and in its folder, and the transformer is the family's."""
    index = read_config(folder / "model_index.json")
    _check_libraries(path, folder, index)
    listed = {part for part, kind in index.items() if isinstance(kind, list) and kind and kind[0] is not None}
    # A text encoder is nothing without the tokenizer of its number.
    encoders = [part for part in family.parts if part.startswith("text_encoder")]
    tokenizers = [part.replace("text_encoder", "tokenizer") for part in encoders]
    scheduler = ("scheduler",) if "vae" in family.parts else ()
    for part in (*family.parts, *scheduler, *tokenizers):
        if part not in listed or not (folder / part).is_dir() or not any((folder / part).iterdir()):
            raise ParetuneError(f"model.path: {path} lacks its {part}")
    for part in sorted(listed):
        if part in family.parts and not (folder / part / "config.json").exists():
            raise ParetuneError(f"model.path: {path} lacks its {part}/config.json")
        for config in sorted((folder / part).glob("*config.json")):
            read_model_config(config)
    config = folder / "transformer" / "config.json"
    kind = read_config(config).get("_class_name", family.transformer)
    if kind != family.transformer:
        raise ParetuneError(
            f"model.path: model_index.json of {path} is of another model: it wants a "
            f"{family.transformer}, and the transformer is a {kind}"
        )


def _check_libraries(path: str, folder: Path, index: dict[str, Any]) -> None:
    """Every part is of a class of the two libraries: diffusers would run a part's own file."""
    for part, entry in index.items():
        if part.startswith("_") or not isinstance(entry, list) or entry[:1] in ([], [None]):
            continue
        if entry[0] not in LIBRARIES or (folder / part / f"{entry[0]}.py").exists():
            raise ParetuneError(needs_code(f"model.path: the {part} of {path}", folder / part))


def _pipeline_family(path: str, index: Path) -> Family:
    """What a model_index.json tells."""
    kind = read_config(index).get("_class_name")
    if isinstance(kind, list):  # [file, class]: a pipeline of its own code
        raise ParetuneError(needs_code(f"model.path: the pipeline {path}", index.parent))
    if not isinstance(kind, str):
        raise ParetuneError(f"model.path: {index} is damaged: its _class_name is no name")
    known = by_pipeline()
    if kind not in known:
        raise ParetuneError(f"model.path: {path} is a {kind}, not a {' or '.join(known)}")
    return known[kind]


def _transformers_family(path: str, config: Path) -> Family:
    """What a config.json of transformers tells."""
    facts = read_model_config(config)
    kinds = facts.get("architectures")
    if kinds is None:
        raise ParetuneError(f"model.path: {config} names no architectures")
    if facts.get("auto_map") and not _known_writer(facts.get("model_type")):
        raise ParetuneError(needs_code(f"model.path: {path}", config.parent))
    for family in families().values():
        if family.architectures and any(str(kind).endswith(family.architectures) for kind in kinds or ()):
            return family
    told = " or ".join(f"..{end}" for own in families().values() for end in own.architectures)
    raise ParetuneError(f"model.path: {path} is a {', '.join(kinds or ['?'])}, not a {told}")


def _known_writer(model_type: object) -> bool:
    """Whether transformers has a class of its own that writes text for a config.json's model_type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    return str(model_type) in KNOWN


@functools.lru_cache(maxsize=32)
def _ask_hub(path: str) -> Family:
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
