"""Writing of an adapter so that plain peft and plain diffusers load it with the same effect.

    adapter_config.json, adapter_model.safetensors    peft: PeftModel.from_pretrained(model, folder)
    pytorch_lora_weights.safetensors                  diffusers: pipe.load_lora_weights(folder); `parts`
    provenance.json                                   how it was made

The factors include the scale, so alpha = rank in every module. If ranks differ, both libraries read
rank_pattern and alpha_pattern as regular expressions for a name's end; a leading ^ makes them exact.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ..files import check_new, disk_errors, partial_folder, publish
from ..ops.lowrank import LowRank
from ..types import ParetuneError, Unfit
from .keys import PEFT_PREFIX, Layout
from .parts import files_of
from .tensors import TensorSpool

PROVENANCE = "provenance.json"
# Keys of an input's configuration that describe the base model, and not the training.
INHERITED = ("auto_mapping", "task_type", "fan_in_fan_out", "modules_to_save", "revision")


class AdapterWriter:
    """Writes an adapter folder with one module in memory: add() each module, then finish().

    Use it as a context manager.

    Args:
        folder: must not exist; finish() creates it completely or not at all.
        base_model: the name to record.
        component: the part of a diffusers pipeline ("transformer", "unet"); None leaves out diffusers' file.
        config: the configuration of an input, from which the keys INHERITED are copied.
    """

    def __init__(
        self,
        folder: str | Path,
        base_model: str,
        component: str | None = "transformer",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(folder)
        check_new(self.folder)
        self._base_model, self._component = base_model, component
        self._inherited = {key: config[key] for key in INHERITED if config and config.get(key)}
        self._ranks: dict[str, int] = {}
        self._whole = 0
        self.partial = partial_folder(self.folder)
        with disk_errors(self.folder):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.partial.mkdir()
            try:
                self._spool = TensorSpool(self.partial)
            except OSError:
                shutil.rmtree(self.partial, ignore_errors=True)
                raise

    def __enter__(self) -> AdapterWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._spool.close()
        finally:
            shutil.rmtree(self.partial, ignore_errors=True)

    def add(self, module: str, delta: LowRank, layout: Layout | None = None) -> None:
        """Append one module's ΔW in float32. layout: by default that of a linear module."""
        layout = layout or Layout()
        if delta.rank < 1:
            raise ValueError(f"{module} has rank 0; leave modules out that do not change")
        a, b = delta.A.float(), delta.B.float()
        if not (bool(torch.isfinite(a).all()) and bool(torch.isfinite(b).all())):
            raise Unfit(f"{self.folder}: the change of {module} holds NaN or infinite values")
        names = (f"{module}.lora_A.weight", f"{module}.lora_B.weight")
        if layout.kind == "embedding":
            names = (f"{module}.lora_embedding_A", f"{module}.lora_embedding_B")
        elif layout.kind == "conv":
            a = a.reshape(delta.rank, -1, *layout.kernel)
            b = b.reshape(*b.shape, *(1 for _ in layout.kernel))
        with disk_errors(self.folder):
            self._spool.add(names[0], a)
            self._spool.add(names[1], b)
        self._ranks[module] = delta.rank

    def add_whole(self, name: str, tensor: Tensor) -> None:
        """Append a tensor that is stored whole (modules_to_save), which only peft can load."""
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise Unfit(f"{self.folder}: the tensor {name} holds NaN or infinite values")
        with disk_errors(self.folder):
            self._spool.add(name, tensor)
        self._whole += 1

    def finish(self, extra: Mapping[str, Any] | None = None) -> Path:
        """Write the folder and return it. extra: the provenance, as plain data."""
        if not self._ranks:
            raise ParetuneError(f"nothing to write to {self.folder}: the adapter changes no module")
        config = self._config()
        provenance = json.dumps(dict(extra), indent=1) if extra else None
        note = {"paretune": provenance} if provenance else {}
        with disk_errors(self.folder):
            self._spool.write(
                self.partial / "adapter_model.safetensors", note, lambda n: PEFT_PREFIX + n
            )
            if self._component is not None and not self._whole:
                for file, start, prefix in files_of(self._ranks, self._component):
                    self._write_diffusers(file, start, prefix, note)
            (self.partial / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
            if provenance:
                (self.partial / PROVENANCE).write_text(provenance + "\n")
            publish(self.partial, self.folder)
        return self.folder

    def _write_diffusers(self, file: str, start: str, prefix: str, note: Mapping[str, str]) -> None:
        """Write the modules whose names begin with `start`, which `prefix` replaces."""
        config = self._config(start)
        keys = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules")
        stored = json.dumps({prefix + key: config[key] for key in keys}, sort_keys=True)
        self._spool.write(
            self.partial / file,
            {**note, "lora_adapter_metadata": stored},
            lambda n: prefix + n.removeprefix(start) if n.startswith(start) else None,
        )

    def _config(self, start: str = "") -> dict[str, Any]:
        """The LoraConfig of the added modules: the most common rank, and patterns for the other ranks.

        start: leave out the other modules, and this beginning of names.
        """
        ranks = {n.removeprefix(start): r for n, r in self._ranks.items() if n.startswith(start)}
        common = Counter(ranks.values()).most_common(1)[0][0]
        other = {f"^{_escaped(name)}": rank for name, rank in ranks.items() if rank != common}
        return {
            "peft_type": "LORA",
            "base_model_name_or_path": self._base_model,
            "r": common,
            "lora_alpha": common,
            "rank_pattern": other,
            "alpha_pattern": dict(other),
            "target_modules": sorted(ranks),
            "lora_dropout": 0.0,
            "bias": "none",
            "inference_mode": True,
            "init_lora_weights": True,
            "use_rslora": False,
            "use_dora": False,
            **self._inherited,
        }


def _escaped(name: str) -> str:
    """A module's name as a regular expression; the dots of ordinary names are not escaped."""
    return name if re.fullmatch(r"[\w.-]+", name) else re.escape(name)


def write_adapter(
    folder: str | Path,
    deltas: Mapping[str, LowRank],
    base_model: str,
    extra: Mapping[str, Any] | None = None,
    component: str | None = "transformer",
    layouts: Mapping[str, Layout] | None = None,
) -> Path:
    """Write an adapter at once (see `AdapterWriter`). Returns the folder.

    Args:
        folder: must not exist.
        deltas: module name -> ΔW.
        base_model: the name to record.
        extra: the provenance, as plain data.
        component: the part of a diffusers pipeline; None for other models.
        layouts: of the modules that are not linear.

    Raises:
        ParetuneError: the folder exists or the disk is full.
    """
    with AdapterWriter(folder, base_model, component) as writer:
        for module, delta in deltas.items():
            writer.add(module, delta, (layouts or {}).get(module))
        return writer.finish(extra)
