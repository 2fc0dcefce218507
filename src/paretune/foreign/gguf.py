"""GGUF files as models: a file is opened once, dequantised, and kept as a folder of safetensors in the cache.

transformers reads the file with the small package `gguf`. Everything after that (fingerprints, adapters,
export) works on the folder, as for any other model. The weights are kept in float32, which holds every
quantised value exactly: 4 bytes a weight.
"""

from __future__ import annotations

import functools
import hashlib
import io
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..files import disk_errors
from ..types import ParetuneError
from .cache import cache_folder
from .fetched import FETCHED, fetched_file, is_here, to_fetch
from .loading import load
from .weights import check_keys

SUFFIX = ".gguf"
LAYOUT = 2  # changes when the folder that is made of a file changes, or what is accepted of a file


def is_gguf(path: str) -> bool:
    """Whether a path is a GGUF file, or the name of a model that paretune fetches as one."""
    return path in FETCHED or (path.lower().endswith(SUFFIX) and Path(path).is_file())


def opened(path: str) -> Path:
    """The folder of a GGUF file's model, which is written at the first call.

    Raises ParetuneError without the package `gguf`, for a damaged file, for an architecture that transformers
    does not read, and for a model by name that is not on this machine.
    """
    file = fetched_file(path) if path in FETCHED else Path(path)
    stat = file.stat()
    return _opened(path, file, stat.st_size, stat.st_mtime_ns)


def notices(path: str) -> list[str]:
    """A line that says that the weights of a model were quantised, or what fetches it; none for others."""
    if not is_gguf(path):
        return []
    if path in FETCHED and not is_here(path):
        return [f"first: {to_fetch(path)}"]
    kinds = _kinds(path, fetched_file(path) if path in FETCHED else Path(path))
    if not kinds:
        return []
    return [f"model.path: {path} is quantised ({', '.join(kinds)}): it is opened dequantised, in float32"]


@functools.lru_cache(maxsize=8)
def _opened(path: str, file: Path, size: int, time: int) -> Path:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    folder = cache_folder("models") / f"{file.stem}-{digest[:16]}-{LAYOUT}"
    if (folder / "config.json").exists():
        return folder
    _check_metadata(path, file)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{file.stem}-"))
    except OSError as error:
        reason = error.strerror or error
        raise ParetuneError(
            f"model.path: {path} is opened as a folder in the cache, and nothing can be written to "
            f"{folder.parent}: {reason}; set PARETUNE_CACHE"
        ) from error
    try:
        with disk_errors(folder):
            _write(path, file, made)
        try:
            made.rename(folder)
        except OSError:
            if not (folder / "config.json").exists():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def _write(path: str, file: Path, folder: Path) -> None:
    """Load the file with transformers and save it as an unquantised model with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from .silence import quiet

    quiet()
    what = f"model.path: {path}"
    try:
        with redirect_stderr(io.StringIO()):  # the library's progress bar
            loaded, info = load(
                AutoModelForCausalLM, file.parent, what,
                gguf_file=file.name, dtype=torch.float32, output_loading_info=True,
            )  # fmt: skip
            check_keys(info, what, whole=False)  # the library fills what the file lacks with random values
            tokenizer = load(AutoTokenizer, file.parent, what, gguf_file=file.name)
    except ParetuneError:
        raise
    except Exception as error:  # the library raises what its parsing of any bytes comes upon
        raise ParetuneError(f"{what} cannot be opened: {_reason(error)}") from error
    # What was quantised counts as quantised, which cannot be saved; the weights are not any more.
    config = loaded.config.__class__.from_dict(
        {k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"}
    )
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _reader(path: str, file: Path) -> Any:
    if find_spec("gguf") is None:
        raise ParetuneError(
            f"model.path: {path} is a GGUF file, which needs the package gguf: pip install 'paretune[gguf]'"
        )
    from gguf import GGUFReader

    try:
        return GGUFReader(file)
    except Exception as error:  # the library raises what its parsing of any bytes comes upon
        raise ParetuneError(
            f"model.path: {path} is no GGUF file, or is damaged: {_reason(error)}"
        ) from error


NO_MODELS = {"general", "tokenizer"}  # sections of a file, which transformers lists among the architectures


def _check_metadata(path: str, file: Path) -> None:
    """Raise ParetuneError for a part of a model, and for an architecture that transformers does not read."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES as KNOWN

    fields = _fields(_reader(path, file))
    parts = _content(fields, "split.count")
    if isinstance(parts, int) and parts > 1:
        raise ParetuneError(
            f"model.path: {path} is one of the {parts} files of a split model: join them first, for example "
            "by `llama-gguf-split --merge FIRST.gguf WHOLE.gguf` of llama.cpp, and give the whole file"
        )
    kind = _content(fields, "general.architecture")
    if kind not in set(KNOWN) - NO_MODELS:
        known = ", ".join(sorted(set(KNOWN) - NO_MODELS))
        raise ParetuneError(
            f"model.path: {path} holds a model of architecture {kind}, which transformers does not read "
            f"from GGUF (it reads {known}): give the folder or the hub id of the model in safetensors"
        )


def _fields(reader: Any) -> Mapping[str, Any]:
    return reader.fields


def _content(fields: Mapping[str, Any], name: str) -> Any:
    """A value of a file's metadata; None where it has none."""
    return fields[name].contents() if name in fields else None


def _kinds(path: str, file: Path) -> list[str]:
    """The quantised types of a file's weights, the most frequent first."""
    counts = Counter(str(tensor.tensor_type.name) for tensor in _reader(path, file).tensors)
    return [kind for kind, _ in counts.most_common() if kind not in {"F32", "F16", "BF16"}]
