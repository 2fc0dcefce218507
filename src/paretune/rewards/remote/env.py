"""A reward in a virtual environment of its own: scorers need versions of libraries that clash.

The environment is made by Python's own `venv` from a file of requirements, once: it is kept in the cache
under the hash of the file. It sees no package but those that the file names.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

import paretune
from paretune.files import new_folder, sha256
from paretune.foreign.cache import cache_folder
from paretune.types import ParetuneError, Prompt, Samples

from ..process import RewardProcess, Spec
from .digest import text_digest

_BARE = Path(__file__).with_name("bare.py")


class EnvProcess(RewardProcess):
    """The process of a reward that runs with another environment's Python. python: its path."""

    def __init__(self, python: Path, environment: dict[str, str] | None = None) -> None:
        super().__init__({**(environment or {}), "PYTHONPATH": "", "PYTHONNOUSERSITE": "1"})
        self._python = python

    def _command(self, handle: int, parent: int) -> list[str]:
        assert paretune.__file__ is not None
        # -P: the folder of bare.py, with its neighbours, is no place to import from.
        return [str(self._python), "-P", str(_BARE), str(handle), str(Path(paretune.__file__).parent)]

    def _encoded(self, question: tuple[Any, ...]) -> bytes:
        method, spec, arguments, threads, dropped = question
        assert isinstance(spec, Spec)
        told: dict[str, Any] = {
            "method": method, "spec": asdict(spec), "threads": threads, "dropped": list(dropped)
        }  # fmt: skip
        tensors: dict[str, torch.Tensor] = {}
        if method == "score":
            samples, prompts = arguments
            told |= _samples(samples, tensors) | {"prompts": _plain(prompts)}
        elif method == "call":
            name, what = arguments
            told |= {"name": name, "prompts": _plain([what] if isinstance(what, Prompt) else what)}
        return save(tensors, {"question": json.dumps(told, default=str)})


def _samples(samples: Samples, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    if not isinstance(samples, torch.Tensor):
        return {"texts": list(samples)}
    tensors["pixels"] = samples.float().cpu().contiguous()
    return {}


def _plain(prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    return [{"text": str(prompt.text), "metadata": dict(prompt.metadata)} for prompt in prompts]


def environment_key(requirements: Path) -> str:
    """What an environment is known by: its requirements, the files that they name, and Python's version."""
    try:
        text = requirements.read_bytes()
    except OSError as error:
        raise ParetuneError(f"--env: {requirements} cannot be read: {error.strerror}") from error
    near = [requirements.parent / line for line in _lines(text)]
    files = [sha256(path) for path in near if path.is_file()]
    return text_digest(json.dumps([text.decode(errors="replace"), files, sys.version]).encode())[:16]


def environment(requirements: Path, say: Callable[[str], None] = lambda _: None) -> Path:
    """The Python of the environment of a file of requirements, which is made where it is not there yet.

    say: receives a line about what is installed, and where. Raises ParetuneError, one line, where pip fails.
    """
    folder = cache_folder("environments") / environment_key(requirements)
    python = folder / "bin" / "python"
    if python.exists():
        return python
    wanted = _lines(requirements.read_bytes())
    say(f"--env: making {folder}; pip installs {', '.join(wanted) or 'nothing'}")
    try:
        with new_folder(folder) as partial:
            venv.create(partial, symlinks=True, with_pip=bool(wanted))
            if wanted:
                _install(partial / "bin" / "python", requirements)
    except ParetuneError:
        if not python.exists():  # else another process has made it meanwhile
            raise
    except (subprocess.CalledProcessError, OSError) as error:
        raise ParetuneError(f"--env: Python's venv cannot make {folder}: {error}") from error
    return python


def _install(python: Path, requirements: Path) -> None:
    """Let pip install the requirements. Paths in them are relative to their file."""
    command = [
        str(python), "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet",
        "--requirement", str(requirements.resolve()),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=requirements.resolve().parent, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        told = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "it failed")
        raise ParetuneError(f"--env: pip cannot install {requirements}: {told.removeprefix('ERROR: ')}")


def _lines(text: bytes) -> list[str]:
    """The requirements in a file, without comments."""
    lines = (line.partition(" #")[0].strip() for line in text.decode(errors="replace").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
