"""LoRA adapters on disk: read anyone's (peft folders, diffusers files), a module at a time.

An `AdapterFile` is a mapping module name -> `LowRank`, whose factors are read when asked for and
not kept, so `ops.lowrank.gram` or `ops.merging` walk it with one module in memory. `write_adapter`
(in `adapter_writer`) makes a folder that plain peft and plain diffusers both load.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..ops.lowrank import LowRank
from ..types import ParetuneError
from .adapter_keys import PEFT_PREFIX, Contents, Factors, Layout, parse
from .adapter_writer import AdapterWriter, write_adapter
from .tensor_files import PICKLES, TensorFile, open_tensors, refuse_pickle

__all__ = ["AdapterFile", "AdapterWriter", "Layout", "read_adapter", "write_adapter"]

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DIFFUSERS_WEIGHTS, DIFFUSERS_KEY = "pytorch_lora_weights.safetensors", "lora_adapter_metadata"

# Settings of peft's LoraConfig with which ΔW is no longer s B A, and what would work instead.
_UNMERGEABLE = {
    "use_dora": "DoRA's scale depends on the base weights; fold it into the base with peft",
    "lora_bias": "it trains biases beside the factors; train it with lora_bias off",
    "use_qalora": "QALoRA pools its inputs; fold it into the base with peft",
    "use_bdlora": "BD-LoRA's factors are block-diagonal; fold it into the base with peft",
    "alora_invocation_tokens": "aLoRA acts after certain tokens only; use it as it is",
    "layer_replication": "it replicates layers; fold it into the base with peft",
    "target_parameters": "it targets bare parameters; fold it into the base with peft",
    "trainable_token_indices": "it trains token rows beside the factors; train without them",
    "arrow_config": "Arrow routes between adapters; use it as it is",
    "kasa_config": "KaSA changes the base weights; fold it into the base with peft",
    "monteclora_config": "MonteCLoRA samples its factors; fold it into the base with peft",
}
_MUTATED = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, eq=False, repr=False)
class AdapterFile(Mapping[str, LowRank]):
    """A LoRA adapter whose factors stay on disk. self[module] reads one module, scale folded in.

    config: peft's configuration, or what a diffusers file says of itself ({} when nothing).
    base_model: the model it names, None when it names none. component: "transformer" or "unet" when
    the file says so. whole: tensors stored whole (modules_to_save): module's tensor -> file's name.
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
        """The base model that the adapter names, or None."""
        return str(self.config.get("base_model_name_or_path") or "").rstrip("/") or None

    @property
    def component(self) -> str | None:
        """The pipeline part that a diffusers file names, or None."""
        return self.contents.component

    @property
    def whole(self) -> dict[str, str]:
        """Tensors stored whole: bare name -> name in the file."""
        return self.contents.whole

    @property
    def layouts(self) -> dict[str, Layout]:
        """How each module's factors lie in the file."""
        return {module: factors.layout for module, factors in self.contents.modules.items()}

    def rank(self, module: str) -> int:
        """A module's rank, from the header alone."""
        return self.contents.modules[module].rank

    def shape(self, module: str) -> tuple[int, int]:
        """A module's (m, n), convolutions flattened, from the header alone."""
        return self.contents.modules[module].shape

    def scale(self, module: str) -> float:
        """s = alpha/r, or alpha/√r for rsLoRA; patterns matched as peft does."""
        factors = self.contents.modules[module]
        if factors.alpha is not None:
            return float(self.file.read_float(factors.alpha)) / factors.rank
        if "r" not in self.config:
            return 1.0  # diffusers without metadata: the product is taken as it is
        rank = _pattern(self.config.get("rank_pattern"), module, self.config["r"])
        if rank != factors.rank:
            raise ParetuneError(
                f"{self.path}: {module} has rank {factors.rank}, its configuration says {rank}"
            )
        alpha = _pattern(self.config.get("alpha_pattern"), module, self.config.get("lora_alpha", 8))
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def __getitem__(self, module: str) -> LowRank:
        factors: Factors = self.contents.modules[module]
        a = self.file.read_float(factors.names["A"]).flatten(start_dim=1)
        b = self.file.read_float(factors.names["B"]).flatten(start_dim=1)
        scale = self.scale(module)
        return LowRank(b if scale == 1.0 else b.mul_(scale), a)

    def __iter__(self) -> Iterator[str]:
        return iter(self.contents.modules)

    def __len__(self) -> int:
        return len(self.contents.modules)


def _pattern(patterns: Mapping[str, float] | None, module: str, default: float) -> float:
    """peft's rule: the first key that matches the module's name or its end, as a regex."""
    for key, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def _check_numbers(path: Path, config: Mapping[str, Any]) -> None:
    """The settings that the scale comes from, before it is computed from them."""
    values = [config.get("r", 8), config.get("lora_alpha", 8)]
    for name in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(name) or {}
        if not isinstance(patterns, dict):
            raise ParetuneError(f"{path}: its {name} is no mapping")
        for key in patterns:
            try:
                _pattern({key: 0}, "", 0)
            except re.error as error:
                raise ParetuneError(f"{path}: {key} in its {name} is no pattern: {error}") from error
        values += patterns.values()
    if not all(isinstance(v, int | float) and 0 <= v <= sys.float_info.max for v in values):
        raise ParetuneError(f"{path}: its ranks and alphas are not all numbers of zero or more")


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    _check_numbers(path, config)
    kind = str(config.get("peft_type", "LORA")).upper()
    if kind != "LORA":
        raise ParetuneError(
            f"{path} is a {kind} adapter, not LoRA; convert it to LoRA, or fold it with peft"
        )
    if not isinstance(config.get("auto_mapping") or {}, dict):
        raise ParetuneError(f"{path}: its auto_mapping is no mapping")
    for key, reason in _UNMERGEABLE.items():
        if config.get(key):
            raise ParetuneError(f"{path} cannot be merged ({key}): {reason}")
    if config.get("bias", "none") != "none":
        raise ParetuneError(f"{path} cannot be merged: it trains biases (bias={config['bias']})")
    init = str(config.get("init_lora_weights", "")).lower()
    if init.startswith(_MUTATED):
        raise ParetuneError(
            f"{path} cannot be merged: its {init} start changed the base weights; save it with "
            "peft's path_initial_model_for_weight_conversion"
        )


def _weights_of(folder: Path) -> Path:
    """The safetensors file of a folder."""
    for name in (PEFT_WEIGHTS, DIFFUSERS_WEIGHTS):
        if (folder / name).is_file() and (name != PEFT_WEIGHTS or (folder / PEFT_CONFIG).is_file()):
            return folder / name
    found = sorted(folder.glob("*.safetensors"))
    if (folder / PEFT_CONFIG).is_file() or not found:
        for path in sorted(folder.iterdir()):
            if path.suffix in PICKLES:
                refuse_pickle(path)
        missing = PEFT_WEIGHTS if (folder / PEFT_CONFIG).is_file() else "safetensors file"
        raise ParetuneError(f"{folder} holds no {missing}; give an adapter folder or file")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ParetuneError(f"{folder} holds several safetensors files ({names}); name one of them")
    return found[0]


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ParetuneError(f"{path} is no readable JSON: {error}") from error
    if not isinstance(config, dict):
        raise ParetuneError(f"{path} is no adapter configuration")
    return config


def _own_metadata(file: TensorFile, component: str | None) -> dict[str, Any]:
    """The LoraConfig that diffusers stores in a file's header, its component's prefix taken off."""
    try:
        stored = json.loads(file.metadata.get(DIFFUSERS_KEY, "{}"))
    except ValueError as error:
        raise ParetuneError(f"{file.path}: its {DIFFUSERS_KEY} is no JSON") from error
    if not isinstance(stored, dict):
        raise ParetuneError(f"{file.path}: its {DIFFUSERS_KEY} is no configuration")
    prefix = f"{component}." if component else ""
    return {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}


def _refuse_scaleless(path: Path, contents: Contents, config: Mapping[str, Any]) -> None:
    """peft's tensors have a scale, which only its configuration tells; taken as 1 it would be wrong."""
    for module, factors in contents.modules.items():
        ours = factors.names["A"].startswith(PEFT_PREFIX)
        if ours and factors.alpha is None and "r" not in config:
            raise ParetuneError(
                f"{path} holds peft's tensors ({module}) without their scale: put its {PEFT_CONFIG} beside "
                f"it and call it {PEFT_WEIGHTS}"
            )


def read_adapter(folder_or_file: str | Path) -> AdapterFile:
    """Open a peft folder, a diffusers LoRA folder, or a .safetensors file of either.

    Only headers are read. Raises ParetuneError, in one line, when there is none, when it is
    pickled, damaged or cut short, or when it is no plain LoRA (DoRA, LoHa, LoKr, ..).
    """
    path = Path(folder_or_file)
    if not path.exists():
        raise ParetuneError(f"no adapter at {path}")
    if path.is_dir():
        path = _weights_of(path)
    refuse_pickle(path)
    beside = path.with_name(PEFT_CONFIG)
    config = _read_config(beside) if path.name == PEFT_WEIGHTS and beside.is_file() else None
    if config is not None:
        _check_config(path, config)
    file = open_tensors(path)
    contents = parse(file)
    if config is None:
        config = _own_metadata(file, contents.component)
        _check_config(path, config)
        _refuse_scaleless(path, contents, config)
    return AdapterFile(file, config, contents)
