"""Loading of other people's models without running the code that comes with them.

Unless `trust_remote_code` is False, transformers asks on the terminal whether it may run such code, and a "y"
that is piped in by chance is an answer. paretune loads every model through `load`, which never asks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..types import ParetuneError
from .hub_errors import refusal

ADAPTER = "adapter_config.json"  # of PEFT
CONFIGS = ("config.json", "tokenizer_config.json", "processor_config.json", "model_index.json")


def load(kind: Any, place: str | Path, what: str, **settings: Any) -> Any:
    """`kind.from_pretrained(place)`, which refuses a model that needs custom code.

    Args:
        kind: a class of transformers or diffusers.
        place: a folder or a hub id.
        what: the beginning of the error message, such as "model.path: FOLDER".
        **settings: further arguments of `from_pretrained`.

    Raises:
        ParetuneError: the model needs custom code, or an adapter lies beside the network, which transformers
            would apply without a message. Other errors are those of the library.
    """
    folder = Path(place) / str(settings.get("subfolder") or "")
    network = hasattr(kind, "from_config") or hasattr(kind, "_from_config")
    if network and str(kind.__module__).startswith("transformers") and (folder / ADAPTER).is_file():
        raise ParetuneError(with_adapter(what))
    # Networks of diffusers run no custom code and do not take this argument.
    no_code = {} if str(kind.__module__).startswith("diffusers.models") else {"trust_remote_code": False}
    try:
        made = kind.from_pretrained(str(place), **no_code, **settings)
    except Exception as error:
        text = str(error)
        unknown = "does not recognize this architecture" in text or "Unrecognized" in text
        if "trust_remote_code" in text or (unknown and custom_code(Path(place))):
            raise ParetuneError(needs_code(what, place)) from error
        if told := refusal(error, str(place)):
            raise ParetuneError(f"{what}: {told}") from error
        raise
    first = made[0] if isinstance(made, tuple) else made
    if getattr(first, "_hf_peft_config_loaded", False):  # of a hub id, whose files are not here before
        raise ParetuneError(with_adapter(what))
    return made


def with_adapter(what: str) -> str:
    """The line for a network with an adapter in its own folder."""
    return (
        f"{what} holds an adapter beside the model ({ADAPTER}), which would be used without a word: fold it "
        "in by `paretune fold`, or move its files away"
    )


def needs_code(what: str, place: str | Path) -> str:
    """The error message for a model that neither library has a class for."""
    classes = custom_code(Path(place))
    example = f" ({classes[0]})" if classes else ""
    return (
        f"{what} needs code of its own{example}, and paretune runs no code of models: give one that "
        "transformers and diffusers have classes for"
    )


def custom_code(folder: Path) -> list[str]:
    """The classes in custom code that a folder's configurations name, as "config.json: model.Net"."""
    references = []
    for name in CONFIGS:
        try:
            config = json.loads((folder / name).read_text(encoding="utf-8"))
            mapped = config.get("auto_map") or {}
            classes = mapped.values() if isinstance(mapped, dict) else [mapped]
        except (OSError, ValueError, AttributeError, RecursionError):  # such files are reported elsewhere
            continue
        for value in classes:
            parts = [part for part in (value if isinstance(value, list) else [value]) if part]
            references += [f"{name}: {' '.join(str(part).split())[:80]}" for part in parts]
    return references
