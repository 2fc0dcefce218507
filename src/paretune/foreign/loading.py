"""Code that comes with other people's models: it is never run, and nobody is asked whether it may be.

transformers asks on the terminal unless `trust_remote_code` is False, and a "y" piped in by chance is an
answer. Everything that paretune loads goes through `load`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..types import ParetuneError

ADAPTER = "adapter_config.json"  # of PEFT
CONFIGS = ("config.json", "tokenizer_config.json", "processor_config.json", "model_index.json")


def load(kind: Any, place: str | Path, what: str, **settings: Any) -> Any:
    """`kind.from_pretrained(place)`, where a model that needs code of its own is refused in one line.

    what: how the line begins, such as "model.path: FOLDER". Other errors are the library's. An adapter that
    lies beside a network is refused: transformers would put it on the network without a word.
    """
    folder = Path(place) / str(settings.get("subfolder") or "")
    network = hasattr(kind, "from_config") or hasattr(kind, "_from_config")
    if network and str(kind.__module__).startswith("transformers") and (folder / ADAPTER).is_file():
        raise ParetuneError(with_adapter(what))
    # Networks of diffusers run no code, and take no such word.
    never = {} if str(kind.__module__).startswith("diffusers.models") else {"trust_remote_code": False}
    try:
        made = kind.from_pretrained(str(place), **never, **settings)
    except Exception as error:
        text = str(error)
        unknown = "does not recognize this architecture" in text or "Unrecognized" in text
        if "trust_remote_code" in text or (unknown and own_code(Path(place))):
            raise ParetuneError(needs_code(what, place)) from error
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
    """The line for a model that no library has a class for."""
    named = own_code(Path(place))
    told = f" ({named[0]})" if named else ""
    return (
        f"{what} needs code of its own{told}, and paretune runs no code of models: give one that "
        "transformers and diffusers have classes for"
    )


def own_code(folder: Path) -> list[str]:
    """The classes of their own code that a folder's configurations name, as "config.json: model.Net"."""
    found = []
    for name in CONFIGS:
        try:
            config = json.loads((folder / name).read_text(encoding="utf-8"))
            mapped = config.get("auto_map") or {}
            classes = mapped.values() if isinstance(mapped, dict) else [mapped]
        except (OSError, ValueError, AttributeError, RecursionError):  # no folder, damaged: told elsewhere
            continue
        for value in classes:
            parts = [part for part in (value if isinstance(value, list) else [value]) if part]
            found += [f"{name}: {' '.join(str(part).split())[:80]}" for part in parts]
    return found
