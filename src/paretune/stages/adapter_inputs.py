"""Adapters as a user names them: a folder, a .safetensors file, or a Hugging Face hub id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..policies.adapter_files import AdapterFile, read_adapter
from ..policies.adapter_keys import Layout, frozen
from ..seal import check_adapter
from ..types import ParetuneError

_HUB = re.compile(r"^[\w.-]+/[\w.-]+(/.+\.safetensors)?$")


def open_adapter(name: str | Path) -> AdapterFile:
    """Open an adapter by path, by hub id "owner/name", or by "owner/name/file.safetensors".

    A path that exists wins over a hub id. Only adapter files are downloaded, never a base model.
    Raises ParetuneError in one line when there is none.
    """
    text = str(name)
    if Path(name).is_dir():
        check_adapter(Path(name))
    if Path(name).exists() or not _HUB.match(text) or text.startswith("."):
        return read_adapter(name)
    return read_adapter(_download(text))


def _download(text: str) -> Path:
    """The local copy of a hub adapter's weights file (its configuration beside it)."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity_error()  # its retries would be twenty lines before our one
    owner, repository, *inner = text.split("/", 2)
    hub_id = f"{owner}/{repository}"
    try:
        files = HfApi().list_repo_files(hub_id)
        weights = inner[0] if inner else _choose(hub_id, files)
        config = str(Path(weights).with_name("adapter_config.json"))
        if config in files:
            hf_hub_download(hub_id, config)
        return Path(hf_hub_download(hub_id, weights))
    except ParetuneError:
        raise
    except Exception as error:  # the library raises whatever its layers raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ParetuneError(
            f"no adapter at {text}, neither here nor on the hub: {reason}"
        ) from error


def _choose(hub_id: str, files: Sequence[str]) -> str:
    """The adapter among a repository's files: the standard names first, else the only candidate."""
    for known in ("adapter_model.safetensors", "pytorch_lora_weights.safetensors"):
        if known in files:
            return known
    found = [file for file in files if file.endswith(".safetensors") and "/" not in file]
    if len(found) == 1:
        return found[0]
    what = f"several ({', '.join(found)}): name one as {hub_id}/FILE" if found else "none"
    raise ParetuneError(f"{hub_id} should hold one safetensors adapter, it holds {what}")


def check_together(
    adapters: Sequence[AdapterFile], names: Sequence[str], base_model: str | None = None
) -> str:
    """Check that adapters may be merged; return the base model they share ("" when none is named).

    base_model: what the user says it is, which overrides the files. Raises ParetuneError on
    different base models, different shapes or layouts of a module, and differing modules_to_save.
    """
    bases = {a.base_model: name for a, name in zip(adapters, names, strict=True) if a.base_model}
    if base_model is None and len(bases) > 1:
        told = ", ".join(f"{name}: {base}" for base, name in bases.items())
        raise ParetuneError(
            f"these adapters are for different base models ({told}); if they are the same model "
            "under two names, give that as the base model"
        )
    seen: dict[str, tuple[str, tuple[int, int], Layout]] = {}
    for adapter, name in zip(adapters, names, strict=True):
        for module, layout in adapter.layouts.items():
            first, shape, kind = seen.setdefault(module, (name, adapter.shape(module), layout))
            if (shape, kind) != (adapter.shape(module), layout):
                raise ParetuneError(
                    f"{first} and {name} differ in {module}: {kind.kind} {shape} against "
                    f"{layout.kind} {adapter.shape(module)}; they are for different base models"
                )
    _check_whole(adapters, names)
    return base_model or next(iter(bases), "")


def _check_whole(adapters: Sequence[AdapterFile], names: Sequence[str]) -> None:
    """Tensors stored whole can be carried over only when every adapter holds the very same ones.

    A frozen weight that peft stores beside a module's factors is the base's own: who lacks it has the same.
    """
    every = dict.fromkeys(bare for adapter in adapters for bare in adapter.whole)
    for bare in every:
        holders = [
            (adapter.file.read(adapter.whole[bare]), name)
            for adapter, name in zip(adapters, names, strict=True)
            if bare in adapter.whole
        ]
        first, holder = holders[0]
        clashing = [
            name
            for tensor, name in holders
            if tensor.shape != first.shape or not bool((tensor == first).all())
        ]
        if frozen(bare) is None:
            clashing += [n for a, n in zip(adapters, names, strict=True) if bare not in a.whole]
        if clashing:
            raise ParetuneError(
                f"{holder} and {clashing[0]} clash in {bare}, stored whole (modules_to_save): its "
                "change cannot be told without the base; train without modules_to_save"
            )
