"""`paretune doctor`: what this machine has, and whether paretune can work on it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from ..environment import PACKAGES
from ..models.detect import check_model
from ..types import ParetuneError

OPTIONAL = {
    "rapidocr-onnxruntime": "pip install 'paretune[judges]' for the independent OCR judge",
    "trl": "pip install 'paretune[language]' to train language models",
    "av": "pip install 'paretune[video]' to write clips",
    "datasets": "pip install 'paretune[language]' for prompt sets of the hub",
    "torchao": "pip install 'paretune[quantize]' to train on a base in eight bits",
}


@dataclass(frozen=True)
class Finding:
    """One line of the output. needed: whether paretune cannot work without it."""

    what: str
    ok: bool
    detail: str
    needed: bool = True


def examine() -> list[Finding]:
    """Look at versions, processors, disk and the embedded model."""
    findings = [_package(name) for name in PACKAGES]
    findings.append(Finding("cpus", True, f"{os.cpu_count()}, torch uses {torch.get_num_threads()} threads"))
    gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name(0) if gpu else "none: the embedded model runs on the CPU"
    findings.append(Finding("gpu", gpu, name, needed=False))
    free = shutil.disk_usage(".").free / 2**30
    findings.append(Finding("disk", free > 1, f"{free:.1f} GiB free here"))
    try:
        check_model("pictures")
        findings.append(Finding("embedded model", True, "in place"))
    except ParetuneError as error:
        findings.append(Finding("embedded model", False, str(error)))
    return findings


def missing_package(name: str) -> Finding:
    """Whether an optional package is here that something cannot do without."""
    found = _package(name)
    return Finding(f"package {name}", found.ok, found.detail)


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, version(name), name not in OPTIONAL)
    except PackageNotFoundError:
        return Finding(name, False, OPTIONAL.get(name, "not installed"), name not in OPTIONAL)
