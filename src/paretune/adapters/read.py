"""Reading of LoRA adapters of any tool (peft folders, diffusers files), one module at a time.

An `AdapterFile` is a mapping module name -> `LowRank`. It reads factors at each look-up and does not keep
them, so `ops.lowrank.gram` and `ops.merging` need one module in memory. `write.write_adapter` makes a folder
that plain peft and plain diffusers both load.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..ops.lowrank import LowRank
from ..types import ParetuneError
from .config import check_config, ranks_and_alphas, read_config, scale_of
from .keys import PEFT_PREFIX, Contents, Factors, Layout, parse
from .parts import DIFFUSERS, PAIR_FILES
from .tensors import PICKLES, TensorFile, open_tensors, refuse_pickle
from .write import AdapterWriter, write_adapter

__all__ = ["AdapterFile", "AdapterWriter", "Layout", "read_adapter", "write_adapter"]

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WEIGHT_EMBEDDING = "weight_embedding.safetensors"  # beside the adapter of a policy that is given weights
DIFFUSERS_WEIGHTS, DIFFUSERS_KEY = DIFFUSERS, "lora_adapter_metadata"

@dataclass(frozen=True, eq=False, repr=False)
class AdapterFile(Mapping[str, LowRank]):
    """A LoRA adapter whose factors stay on disk. self[module] reads one module, with its scale folded in.

    file: the weights. config: peft's configuration, or that in a diffusers file's header ({} if there is
    none). contents: the modules and other tensors of the file.
    """

    file: TensorFile
    config: dict[str, Any]
    contents: Contents

    @property
    def path(self) -> Path:
        """The weights file."""
        return self.file.path

    @property
    def base_model(self) -> str | None:
        """The base model that the configuration names, or None."""
        return str(self.config.get("base_model_name_or_path") or "").rstrip("/") or None

    @property
    def component(self) -> str | None:
        """The part of a pipeline that a diffusers file names, "transformer" or "unet", or None."""
        return self.contents.component

    @property
    def whole(self) -> dict[str, str]:
        """Tensors stored whole (modules_to_save): name without prefix -> name in the file."""
        return self.contents.whole

    @property
    def layouts(self) -> dict[str, Layout]:
        """How each module's factors are stored in the file."""
        return {module: factors.layout for module, factors in self.contents.modules.items()}

    def rank(self, module: str) -> int:
        """A module's rank, from the header."""
        return self.contents.modules[module].rank

    def shape(self, module: str) -> tuple[int, int]:
        """A module's (m, n), from the header, with convolutions flattened."""
        return self.contents.modules[module].shape

    def scale(self, module: str) -> float:
        """s = alpha/r, or alpha/√r for rsLoRA."""
        factors = self.contents.modules[module]
        if factors.alpha is not None:
            return float(self.file.read_float(factors.alpha)) / factors.rank
        if factors.configured is None:
            return 1.0  # diffusers uses the product without a scale if there is no metadata
        rank, alpha = factors.configured
        if rank != factors.rank:
            raise ParetuneError(
                f"{self.path}: {module} has rank {factors.rank}, its configuration says {rank}"
            )
        return scale_of(rank, alpha, bool(self.config.get("use_rslora")))

    def __getitem__(self, module: str) -> LowRank:
        factors: Factors = self.contents.modules[module]
        a = self.file.read_float(factors.names["A"]).flatten(start_dim=1)
        b = self.file.read_float(factors.names["B"]).flatten(start_dim=1)
        if factors.rows is not None:
            b = b[slice(*factors.rows)].clone()
        if factors.swap:
            b = b.roll(len(b) // 2, dims=0)
        scale = self.scale(module)
        if scale != 1.0 and not bool(torch.isfinite(b.mul_(scale)).all()):
            raise ParetuneError(f"{self.path}: {module} times its scale {scale:g} is beyond float32")
        return LowRank(b, a)

    def __contains__(self, module: object) -> bool:
        return module in self.contents.modules  # the inherited method would read the module's factors

    def __iter__(self) -> Iterator[str]:
        return iter(self.contents.modules)

    def __len__(self) -> int:
        return len(self.contents.modules)


def _weights_of(folder: Path) -> Path:
    """The safetensors file of a folder."""
    for name in (PEFT_WEIGHTS, DIFFUSERS_WEIGHTS):
        if (folder / name).is_file() and (name != PEFT_WEIGHTS or (folder / PEFT_CONFIG).is_file()):
            if name in PAIR_FILES.values() and all((folder / one).is_file() for one in PAIR_FILES.values()):
                raise ParetuneError(
                    f"{folder} holds {' and '.join(PAIR_FILES.values())}, of one transformer each: name "
                    "one, or give the adapter in peft's format, which holds both"
                )
            return folder / name
    candidates = sorted(folder.glob("*.safetensors"))
    if (folder / PEFT_CONFIG).is_file() or not candidates:
        for path in sorted(folder.iterdir()):
            if path.suffix in PICKLES:
                refuse_pickle(path)
        missing = PEFT_WEIGHTS if (folder / PEFT_CONFIG).is_file() else "safetensors file"
        raise ParetuneError(f"{folder} holds no {missing}; give an adapter folder or file")
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates)
        raise ParetuneError(f"{folder} holds several safetensors files ({names}); name one of them")
    return candidates[0]


def _header_config(file: TensorFile, component: str | None) -> dict[str, Any]:
    """The LoraConfig that diffusers stores in a file's header, without the component's prefix."""
    try:
        stored = json.loads(file.metadata.get(DIFFUSERS_KEY, "{}"))
    except (ValueError, RecursionError) as error:
        raise ParetuneError(f"{file.path}: its {DIFFUSERS_KEY} is not JSON") from error
    if not isinstance(stored, dict):
        raise ParetuneError(f"{file.path}: its {DIFFUSERS_KEY} is not a configuration")
    prefix = f"{component}." if component else ""
    return {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}


def _refuse_scaleless(path: Path, contents: Contents, config: Mapping[str, Any]) -> None:
    """Raise ParetuneError for peft's tensors without a configuration, which alone has their scale."""
    for module, factors in contents.modules.items():
        from_peft = factors.names["A"].startswith(PEFT_PREFIX)
        if from_peft and factors.alpha is None and "r" not in config:
            raise ParetuneError(
                f"{path} holds peft's tensors ({module}) without their scale: put its {PEFT_CONFIG} beside "
                f"it and call it {PEFT_WEIGHTS}"
            )


def read_adapter(folder_or_file: str | Path) -> AdapterFile:
    """Open a peft folder, a diffusers LoRA folder, or a .safetensors file of either.

    Only headers are read. Raises ParetuneError when there is no adapter, when it is pickled, damaged or cut
    short, and when it is not plain LoRA (DoRA, LoHa, LoKr, ..).
    """
    path = Path(folder_or_file)
    if not path.exists():
        raise ParetuneError(f"no adapter at {path}")
    if path.is_dir():
        path = _weights_of(path)
    refuse_pickle(path)
    beside = path.with_name(PEFT_CONFIG)
    config = read_config(beside) if path.name == PEFT_WEIGHTS and beside.is_file() else None
    if config is not None:
        check_config(path, config)
    file = open_tensors(path)
    contents = parse(file, config is not None)
    if config is None:
        config = _header_config(file, contents.component)
        check_config(path, config)
        if not contents.translated:  # diffusers loads fal's files, which have no scale, with scale 1
            _refuse_scaleless(path, contents, config)
        if "r" not in config:
            return AdapterFile(file, config, contents)
    for module, configured in ranks_and_alphas(path, config, list(contents.modules)).items():
        contents.modules[module].configured = configured
    return AdapterFile(file, config, contents)
