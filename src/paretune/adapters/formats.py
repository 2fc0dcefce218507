"""Export of adapters in the format of one tool: peft, diffusers, ComfyUI or kohya."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..files import check_new, disk_errors, partial_folder, write_json
from ..types import ParetuneError
from .original_names import TABLES
from .original_writer import write_original
from .parts import PAIR_FILES
from .read import DIFFUSERS_WEIGHTS, PEFT_CONFIG, PEFT_WEIGHTS, AdapterFile, read_adapter
from .renaming import divided
from .store import MOMENTUM
from .write import PROVENANCE

FILES = {"peft": (PEFT_CONFIG, PEFT_WEIGHTS), "diffusers": (DIFFUSERS_WEIGHTS,)}
FORMATS = (*FILES, "comfyui", "kohya")
# Part of a base model's name -> its family.
_HINTS = {"flux": "flux", "hunyuan": "hunyuan_video", "diffusion-3": "sd3", "sd3": "sd3", "wan": "wan"}


def check_format(form: str, family: str | None = None) -> None:
    """Raise ParetuneError for an unknown format or family."""
    if form not in FORMATS:
        raise ParetuneError(f"--format {form} is none of {', '.join(FORMATS)}")
    if family is not None and _key(family) not in TABLES:
        raise ParetuneError(f"--family {family} is none of {', '.join(TABLES)}")


def _key(family: str) -> str:
    return family.lower().replace("-", "_")


@contextmanager
def in_format(out: Path, form: str, family: str | None = None) -> Iterator[Path]:
    """Yield a path to which the block writes an adapter's folder, and convert it to `out` afterwards.

    `out` is written completely or not at all. Reward tokens and a momentum in the folder are kept.

    Args:
        out: the new folder.
        form: one of FORMATS.
        family: the family of the base model, if known.

    Raises:
        ParetuneError: the format cannot hold the adapter.
    """
    check_new(out)
    check_format(form, family)
    partial = partial_folder(out)
    try:
        with disk_errors(out):
            partial.mkdir(parents=True)
        yield partial / "whole"
        done = partial / "done"
        with disk_errors(out):
            done.mkdir()
            _fill(done, partial / "whole", out.name, form, family)
            check_new(out)
            os.replace(done, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fill(done: Path, whole: Path, name: str, form: str, family: str | None) -> None:
    adapter = read_adapter(whole)
    if form in FILES:
        second = [file for file in PAIR_FILES.values() if form == "diffusers" and (whole / file).exists()]
        for file in dict.fromkeys([*FILES[form], *second]):
            if not (whole / file).exists():
                raise ParetuneError(
                    f"--format {form} cannot hold this adapter: a language model's, or with whole tensors"
                )
            os.replace(whole / file, done / file)
    else:
        if adapter.whole:
            raise ParetuneError(f"--format {form} cannot hold {next(iter(adapter.whole))}, stored whole")
        parts = divided(adapter)
        kind = _key(family) if family else guess_family(next(iter(parts.values())))
        if kind not in TABLES:
            raise ParetuneError(f"--format {form} is for {', '.join(TABLES)}, not for {kind}; write peft")
        note = whole / PROVENANCE
        metadata = {"paretune": note.read_text().strip()} if note.exists() else {}
        for part, own in parts.items():  # these tools have one file for each transformer, as diffusers has
            ending = part.removeprefix("transformer")
            write_original(done / f"{name}{ending}.safetensors", own, own.layouts, form, kind, metadata)
    if (whole / PROVENANCE).exists():
        note = json.loads((whole / PROVENANCE).read_text(encoding="utf-8"))
        write_json(done / PROVENANCE, {**note, "format": form})
    for folder in ("tokens", MOMENTUM):
        if (whole / folder).exists():
            os.replace(whole / folder, done / folder)


def guess_family(adapter: AdapterFile) -> str:
    """The family of an adapter, from its modules or its base model's name, else a ParetuneError."""
    modules, base = list(adapter), (adapter.base_model or "").lower()
    if "hunyuanvideo-1.5" in base or "hunyuanvideo-1_5" in base:
        raise ParetuneError(
            f"{adapter.base_model} has other names in these tools than HunyuanVideo, which are not known "
            "here: write peft or diffusers"
        )
    if any(name.startswith("blocks.") and ".attn1." in name for name in modules):
        return "wan"
    if any(name.startswith("context_embedder.token_refiner.") for name in modules):
        return "hunyuan_video"
    if any(".attn2." in name or name == "pos_embed.proj" for name in modules):
        return "sd3"
    named = {family for hint, family in _HINTS.items() if hint in base}
    if len(named) == 1:
        return named.pop()
    if not any(name.startswith(("transformer_blocks.", "single_transformer_blocks.")) for name in modules):
        raise ParetuneError(f"modules such as {modules[0]} are of none of {', '.join(TABLES)}: write peft")
    raise ParetuneError(
        f"the modules do not show their family ({modules[0]}): add --family, one of "
        f"{', '.join(TABLES)}"
    )
