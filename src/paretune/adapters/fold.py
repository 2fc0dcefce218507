"""`paretune fold`: fold an adapter into a base model, as a new folder with the same layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..files import check_new, disk_errors, partial_folder, publish, real, sha256, write_json
from ..types import ParetuneError
from .fold_tensors import Change, fold_file, locate
from .fold_tied import Parted, record, stored_names
from .fold_tied import part as part_shared
from .inputs import open_adapters
from .read import AdapterFile
from .renaming import divided
from .tensors import TensorFile, open_tensors
from .transformers_names import names_of

# Models whose attention and feed-forward layers are Conv1D, which stores weights transposed. peft says so in
# an adapter's config, but other tools may not, or say it of others, and a square matrix does not show it.
CONV1D = {"gpt2", "imagegpt", "openai-gpt", "decision_transformer"}
WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf"}
INDEX = ".safetensors.index.json"


@dataclass(frozen=True)
class FoldReport:
    """The result of a fold: the new folder, and the numbers of changed weights and of files with them."""

    folder: Path
    modules: int
    files: int
    untied: bool = False  # whether the base's embedding and head were tied and are now separate

    def line(self) -> str:
        """The report in one line."""
        apart = "; its embedding and its head are no longer shared" if self.untied else ""
        return f"{self.folder}: {self.modules} weights changed in {self.files} safetensors files{apart}"


def fold_adapter(
    base: str | Path,
    adapter: str | Path,
    out: str | Path,
    component: str | None = None,
    renames: Sequence[str] = (),
) -> FoldReport:
    """Write a base model with an adapter folded in to a new folder.

    Sums are computed in float32 and rounded once to the base's dtype.

    Args:
        base: a local folder of safetensors weights (diffusers or transformers, sharded or not), or the folder
            of a diffusers pipeline.
        adapter: an adapter's folder, file or hub id.
        out: the new folder.
        component: the part of a pipeline to fold; by default the one that the adapter names, else transformer
            or unet. The other parts are copied.
        renames: changes of module names, "OLD=NEW".

    Raises:
        ParetuneError: a module is missing or does not fit, the base is quantised or has no safetensors, `out`
            exists, or the disk is full. No files are left then.
    """
    source, target = Path(base), Path(out)
    check_new(target)
    if not source.is_dir():
        raise ParetuneError(
            f"the base {source} is not a folder: fold reads local files alone, so download a hub model "
            "first (hf download OWNER/NAME --local-dir DIR)"
        )
    if real(target).is_relative_to(real(source)):
        raise ParetuneError(f"the output {target} lies in the base {source}, which is copied; choose another")
    lora = open_adapters([adapter], renames)[0]
    pieces = [
        _piece(source, part or _part(source, component or lora.component), own)
        for part, own in divided(lora).items()
    ]
    partial = partial_folder(target)
    try:
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            folded = {source / piece.part: {file.path.name for file in piece.files} for piece in pieces}
            shutil.copytree(source, partial, ignore=_weights_of(folded, whole=bool(pieces[0].part)))
            for piece in pieces:
                changes = (piece.lora, piece.parted.changes, piece.parted.added)
                for file in piece.files:
                    fold_file(file, partial / piece.part / file.path.name, *changes)
                record(partial / piece.part, piece.parted, piece.files)
            write_json(partial / "fold.json", _provenance(lora, adapter, base))
            publish(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    changed = sum(piece.changed for piece in pieces)
    untied = any(piece.parted.untied for piece in pieces)
    return FoldReport(target, sum(len(piece.places) for piece in pieces), changed, untied)


@dataclass(frozen=True)
class _Piece:
    """One part of the base: its folder's name, its adapter, its files, and where the adapter changes them."""

    part: str
    lora: AdapterFile
    files: list[TensorFile]
    places: Mapping[str, Change]
    parted: Parted

    @property
    def changed(self) -> int:
        """The number of files with changed weights."""
        touched = {*self.parted.changes, *(new.source for new in self.parted.added.values())}
        return sum(not touched.isdisjoint(file.entries) for file in self.files)


def _piece(source: Path, part: str, lora: AdapterFile) -> _Piece:
    """Raises ParetuneError when a module is missing in the part or does not fit."""
    if kind := _model_type(source / part):
        lora = replace(lora, config={**lora.config, "fan_in_fan_out": kind in CONV1D})
    files = [open_tensors(path) for path in _weight_files(source / part)]
    names = names_of(source / part)
    tied = stored_names(names.tied, files)
    places = locate(lora, files, tied.shared, names.stored)
    return _Piece(part, lora, files, places, part_shared(lora, places, tied))


def _provenance(lora: AdapterFile, adapter: str | Path, base: str | Path) -> dict[str, object]:
    return {
        "made_by": "paretune fold",
        "base": str(base),
        "adapter": {"name": str(adapter), "sha256": sha256(lora.path)},
        "modules": len(lora),
    }


def _model_type(folder: Path) -> str:
    """The model_type of a transformers configuration; "" if the folder has none."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _part(source: Path, component: str | None) -> str:
    """The folder of a pipeline's part to fold; "" for a folder that holds the weights directly."""
    if not (source / "model_index.json").is_file():
        return ""
    for name in [component] if component else ["transformer", "unet"]:
        if (source / name).is_dir():
            return name
    raise ParetuneError(f"the pipeline {source} has no folder {component or 'transformer or unet'}")


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files that the folder's index names, or all such files if it has no index."""
    named: set[str] = set()
    for index in sorted(folder.glob(f"*{INDEX}")):
        try:
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            named.update(str(Path(name)) for name in shards)  # Path raises TypeError for anything but a text
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ParetuneError(f"{index} is not a readable weight index") from error
    paths = [folder / name for name in sorted(named)] or sorted(folder.glob("*.safetensors"))
    for path in paths:
        if path.parent != folder or not path.is_file():
            raise ParetuneError(f"{folder} lacks {path.name}, which its index names")
    if not paths:
        raise ParetuneError(f"{folder} holds no safetensors weights; save the model as safetensors")
    return paths


def _indexes_others(path: Path, files: set[str]) -> bool:
    """Whether a file is an index of weights, none of which is among these files."""
    try:
        named = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return named.isdisjoint(files)


def _weights_of(folders: Mapping[Path, set[str]], whole: bool) -> Callable[[str, list[str]], list[str]]:
    """An `ignore` function for copytree: skips weights in `folders`, and their sub-folders unless `whole`.

    An index of weights that are not folded is skipped with them: of another format, or of a variant such as
    diffusion_pytorch_model.safetensors.index.fp16.json.

    folders: each folder, and the names of its files that are folded.
    """

    def ignore(where: str, names: list[str]) -> list[str]:
        here = Path(where)
        if here not in folders:
            return []
        return [
            n for n in names
            if Path(n).suffix in WEIGHTS or (not whole and (here / n).is_dir())
            or (".index." in n and _indexes_others(here / n, folders[here]))
        ]  # fmt: skip

    return ignore
