"""The environment of a run: package versions, the machine, the base model and its fingerprint."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .config import RunConfig
from .files import digest, sha256
from .types import ParetuneError

PACKAGES = (
    "paretune", "torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "moocore",
    "rapidocr-onnxruntime", "av", "trl", "torchao",
)  # fmt: skip
HASHED_BELOW = 64 * 2**20  # bytes; a larger weight file is identified by its size and name


def describe(config: RunConfig, model_path: str, device: str) -> dict[str, Any]:
    """The content of environment.json."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "model_path": model_path,
        "model_fingerprint": fingerprint(model_path),
        "seed": config.seed,
        "device": device,
        # An executor may compute on other machines' GPUs.
        "gpu": torch.cuda.get_device_name(0) if device == "cuda" and torch.cuda.is_available() else None,
        "cpus": os.cpu_count(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": versions,
    }


def own_version() -> str:
    """The version of paretune; "unknown" where it is not installed as a package."""
    try:
        return version("paretune")
    except PackageNotFoundError:
        return "unknown"


def fingerprint(model_path: str) -> str:
    """A digest of a local pipeline's files; for a hub id, the id itself."""
    folder = Path(model_path)
    if not folder.is_dir():
        return model_path
    facts = [
        [str(p.relative_to(folder)), p.stat().st_size,
         sha256(p) if p.stat().st_size < HASHED_BELOW else None]
        for p in sorted(folder.rglob("*"))
        if p.suffix in {".safetensors", ".json"}
    ]  # fmt: skip
    return digest(facts)


def hub_revision(model_path: str) -> str | None:
    """The commit of a hub id that this machine's cache holds as its newest; None for any other path."""
    if Path(model_path).exists() or model_path.count("/") != 1:
        return None
    from huggingface_hub.constants import HF_HUB_CACHE

    ref = Path(HF_HUB_CACHE) / f"models--{model_path.replace('/', '--')}" / "refs" / "main"
    return ref.read_text().strip() if ref.is_file() else None


def choose_device(wanted: str) -> str:
    """"cpu" or "cuda". Raises ParetuneError when "cuda" is requested and no GPU is usable."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ParetuneError("executor.device is cuda but no GPU is usable here; set it to cpu or auto")
    return "cuda" if wanted != "cpu" and available else "cpu"
