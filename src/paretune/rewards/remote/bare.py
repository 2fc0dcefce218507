"""What runs in the process of a reward that has a virtual environment of its own.

It is run by its path, with that environment's Python, and needs nothing but Python itself: the environment
holds what the scorer needs and nothing else. Questions come as safetensors bodies (see `env.EnvProcess`),
answers go back as JSON. Pixels are given as tensors where the environment has torch, else as arrays of numpy.
The package paretune can be imported as far as its own needs are there, and none of its neighbours.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import math
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

METHODS = ("applies", "check")


class Prompt:
    """As `paretune.types.Prompt`, for an environment in which that cannot be imported."""

    def __init__(self, text: str, metadata: dict[str, Any]) -> None:
        self.text, self.metadata = text, metadata


class Paretune:
    """Finds the package paretune in its folder, and nothing beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """See importlib.abc.MetaPathFinder."""
        if name != "paretune":
            return None
        return importlib.util.spec_from_file_location(
            name, self.folder / "__init__.py", submodule_search_locations=[str(self.folder)]
        )


class Host:
    """The rewards of this process, by their numbers; the methods are those of `hosting.Host`."""

    def __init__(self) -> None:
        self.rewards: dict[int, Any] = {}

    def answer(self, body: bytes) -> dict[str, Any]:
        """The answer to a question; a failure of any kind is a line of text."""
        question, data = read(body)
        for number in question["dropped"]:
            self.rewards.pop(number, None)
        spec, method = question["spec"], question["method"]
        try:
            os.chdir(spec["folder"])
            set_threads(question["threads"])
            tensors = {name: array(*entry) for name, entry in data.items()}
            return {"value": getattr(self, method)(spec, question, tensors)}
        except BaseException as error:
            verb = "could not be loaded" if method in {"load", "find"} else "failed"
            line = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            told = str(error) if isinstance(error, Mistake) else f"reward {spec['spec']!r} {verb}: {line}"
            return {"error": told, "user": False, "raised": line}

    def load(self, spec: dict[str, Any], question: dict[str, Any], tensors: dict[str, Any]) -> Any:
        """Import and construct a reward; returns what it declares."""
        self.rewards[spec["number"]] = reward = build(spec["spec"], spec["options"])
        low, high = getattr(reward, "range", (-math.inf, math.inf))
        return {
            "name": spec["name"] or getattr(reward, "name", None) or spec["spec"].rpartition(":")[2],
            "range": [float(low), float(high)],
            "higher_is_better": bool(getattr(reward, "higher_is_better", True)),
            "methods": [name for name in METHODS if callable(getattr(reward, name, None))],
        }

    def score(self, spec: dict[str, Any], question: dict[str, Any], tensors: dict[str, Any]) -> Any:
        """One batch. What the values must be is checked where they arrive."""
        prompts = [prompt_of(entry) for entry in question["prompts"]]
        samples = next(iter(tensors.values())) if tensors else question["texts"]
        reward = self.rewards[spec["number"]]
        scored = getattr(reward, "score", reward)(samples, prompts)
        return [float(value) for value in scored]

    def call(self, spec: dict[str, Any], question: dict[str, Any], tensors: dict[str, Any]) -> Any:
        """`applies` of one prompt, or `check` of all."""
        prompts = [prompt_of(entry) for entry in question["prompts"]]
        name = question["name"]
        value = getattr(self.rewards[spec["number"]], name)(prompts[0] if name == "applies" else prompts)
        return None if value is None else bool(value)


class Mistake(Exception):
    """A message that is a whole line already."""


def build(spec: str, options: dict[str, Any]) -> Any:
    """The reward that a spec names: of a file, of a module, or one of paretune's own."""
    place, _, name = spec.rpartition(":")
    if not place:
        try:
            base = importlib.import_module("paretune.rewards.base")
        except ModuleNotFoundError as error:
            raise Mistake(
                f"reward {spec!r} is paretune's own and needs {error.name}, which its environment lacks: "
                "name it in the requirements"
            ) from error
        own = base.is_own(spec)  # of a package that is installed there
        return (base.build_reward if own else base.registered_reward)(spec, None, options)
    module = of_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    target = getattr(module, name)
    if inspect.isclass(target):
        return target(**options)
    return (lambda samples, prompts: target(samples, prompts, **options)) if options else target


def of_file(path: Path) -> ModuleType:
    """The module of a file, which may import those beside it."""
    path = path.resolve()
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise Mistake(f"reward file {path} does not exist, or is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def prompt_of(entry: dict[str, Any]) -> Any:
    """A prompt with its record, of paretune's own class where that can be imported."""
    try:
        kind = importlib.import_module("paretune.types").Prompt
    except ModuleNotFoundError:
        kind = Prompt
    return kind(entry["text"], entry["metadata"])


def read(body: bytes) -> tuple[dict[str, Any], dict[str, tuple[memoryview, list[int]]]]:
    """The question of a safetensors body, and the bytes and the shape of its tensors of float32."""
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    question = json.loads(header.pop("__metadata__")["question"])
    data = memoryview(bytearray(body))[8 + length :]
    return question, {
        name: (data[slice(*entry["data_offsets"])], entry["shape"]) for name, entry in header.items()
    }


def array(data: memoryview, shape: list[int]) -> Any:
    """float32 numbers as a tensor, or as numpy's array."""
    try:
        torch = importlib.import_module("torch")
        return torch.frombuffer(data, dtype=torch.float32).reshape(shape)
    except ModuleNotFoundError:
        pass
    try:
        numpy = importlib.import_module("numpy")
    except ModuleNotFoundError as error:
        raise Mistake("pixels need torch or numpy in the reward's environment: name one of them in the "
                      "requirements") from error  # fmt: skip
    return numpy.frombuffer(data, dtype=numpy.float32).reshape(shape)


def set_threads(threads: int) -> None:
    """As in the process that asks, where a reward has loaded torch."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def main(handle: int, package: str) -> None:
    """Answer on the socket `handle` until the other end is closed. package: the folder of paretune."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    sys.meta_path.append(Paretune(Path(package)))  # type: ignore[arg-type]
    line, host = Connection(handle), Host()
    line.send_bytes(b"ready")
    while True:
        try:
            body = line.recv_bytes()
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)
            return
        line.send_bytes(json.dumps(host.answer(body)).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
