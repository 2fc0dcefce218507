"""`paretune merge`: merge N adapters of any tool, without a base model, with one module in memory."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..files import check_new, sha256
from ..ops.merging import Merge, plan_merge, read_settings, relative
from ..types import ParetuneError
from .inputs import check_together, open_adapter, open_adapters, refuse_whole
from .keys import Layout, frozen
from .read import AdapterFile, AdapterWriter
from .store import MOMENTUM, user_errors

LARGEST = float(torch.finfo(torch.float32).max)


@dataclass(frozen=True)
class MergeReport:
    """The result of a merge. relative_error: see `ops.merging.MergeResult`. weights: the weights used."""

    folder: Path
    method: str
    weights: list[float]
    relative_error: float
    modules: int
    least_rank: int
    greatest_rank: int
    normalised: bool = True

    def line(self) -> str:
        """The report in one line."""
        ranks = f"{self.least_rank}"
        if self.least_rank != self.greatest_rank:
            ranks += f" to {self.greatest_rank}"
        return (
            f"{self.folder}: {self.modules} modules of rank {ranks} by {self.method}"
            f"{'' if self.normalised else ' with the weights taken as they are'}, "
            f"relative distance to the exact sum {self.relative_error:.2e}"
        )


def merge_adapters(
    inputs: Sequence[str | Path],
    weights: Sequence[float] | None = None,
    method: str = "exact",
    rank: int | None = None,
    energy: float | None = None,
    *,
    out: str | Path,
    base_model: str | None = None,
    state: str | Path | None = None,
    normalise: bool = True,
    renames: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
    **options: Any,
) -> MergeReport:
    """Merge adapters into a new folder that plain peft and plain diffusers load.

    Args:
        inputs: adapter folders, .safetensors files or hub ids.
        weights: see `ops.merging.plan_merge`, as are method, rank, energy, normalise and options.
        out: the new folder.
        base_model: overrides the name that the inputs give.
        state: nesterov's momentum: the output folder of the previous round, with its `momentum/`. With
            nesterov a new one is written into `out`.
        renames: changes of module names, "OLD=NEW".
        provenance: further entries of the provenance.

    Raises:
        ParetuneError: the adapters cannot be merged; nothing is written then.
    """
    if method == "search" and "evaluate" not in options:
        raise ParetuneError(
            "search measures models on prompts: name the recipe that has the model and the rewards, "
            "--by RECIPE"
        )
    if method == "distil":
        raise ParetuneError("distil trains a student on prompts: it is for runs alone, as reduce.method")
    names = [str(name) for name in inputs]
    if not names:
        raise ParetuneError("nothing to merge: give at least one adapter")
    check_new(Path(out))
    adapters = open_adapters(inputs, renames)
    base = check_together(adapters, names, base_model, normalise)
    settings = dict(options)
    if state is not None:
        # Another method's own message says that it has no state.
        settings["state"] = open_adapter(_momentum_of(Path(state))) if method == "nesterov" else state
    with user_errors():
        merge = plan_merge(adapters, weights, method, rank, energy, normalise, **settings)
    if not normalise and merge.weights != [1.0]:
        refuse_whole(adapters)
    component = _component(adapters)
    with AdapterWriter(out, base, component, adapters[0].config) as writer:
        with user_errors():
            report = _stream(merge, adapters, writer, component, base)
        extra = {"renamed": list(renames)} if renames else {}
        writer.finish(_provenance(merge, adapters, names, report) | extra | dict(provenance or {}))
    return report


def _momentum_of(state: Path) -> Path:
    """The momentum in the output of a round before, or given itself. Another adapter would be a wrong one."""
    if state.name == MOMENTUM and state.is_dir():
        return state
    if not (state / MOMENTUM).is_dir():
        raise ParetuneError(
            f"--state {state} holds no {MOMENTUM}/: give the folder that nesterov wrote in the round before"
        )
    return state / MOMENTUM


def read_options(method: str, items: Sequence[str]) -> dict[str, float]:
    """A method's options from command-line arguments such as "density=0.5". Raises ParetuneError."""
    for item in items:
        if not item.partition("=")[0] or "=" not in item:
            raise ParetuneError(f"--option wants NAME=VALUE, such as density=0.5, not {item!r}")
    with user_errors():
        return read_settings(method, dict(item.split("=", 1) for item in items))


def _stream(
    merge: Merge,
    adapters: Sequence[AdapterFile],
    writer: AdapterWriter,
    component: str | None,
    base: str,
) -> MergeReport:
    """Write one module after another, and keep only their errors in memory."""
    layouts: dict[str, Layout] = {}
    for adapter in reversed(adapters):
        layouts.update(adapter.layouts)
    state = merge.options.get("state")
    if isinstance(state, AdapterFile):
        layouts = {**state.layouts, **layouts}
    errors: list[float] = []
    sizes: list[float] = []
    ranks: list[int] = []
    written: set[str] = set()
    with AdapterWriter(writer.partial / MOMENTUM, base, None) if _keeps(merge) else nullcontext() as momentum:
        for module in merge.modules():
            if module.size + module.error > LARGEST:
                raise ParetuneError(f"the merged change of {module.name} leaves the range of float32")
            writer.add(module.name, module.delta, layouts[module.name])
            if momentum is not None and module.momentum is not None:
                momentum.add(module.name, module.momentum, layouts[module.name])
            errors.append(module.error)
            sizes.append(module.size)
            ranks.append(module.delta.rank)
            written.add(module.name)
        if not ranks:
            raise ParetuneError("nothing to write: the adapters with a positive weight change nothing")
        if momentum is not None:
            momentum.finish()
    holders: dict[str, AdapterFile] = {}
    for adapter in adapters:
        holders = {**dict.fromkeys(adapter.whole, adapter), **holders}
    for bare, adapter in holders.items():
        if frozen(bare) is None or frozen(bare) in written:
            writer.add_whole(bare, adapter.file.read(adapter.whole[bare]))
    return MergeReport(
        writer.folder, merge.method, merge.weights, relative(errors, sizes),
        len(ranks), min(ranks), max(ranks), merge.normalise,
    )  # fmt: skip


def _keeps(merge: Merge) -> bool:
    return merge.method == "nesterov"


def _component(adapters: Sequence[AdapterFile]) -> str | None:
    """The part of a diffusers pipeline that the adapters change; None for models of transformers."""
    named = {adapter.component for adapter in adapters if adapter.component}
    if len(named) > 1:
        raise ParetuneError(f"the adapters are for different parts: {' and '.join(sorted(named))}")
    if named:
        return named.pop()
    for adapter in adapters:
        library = str((adapter.config.get("auto_mapping") or {}).get("parent_library", ""))
        if adapter.config.get("task_type") or library.startswith("transformers"):
            return None
        if "unet" in library:
            return "unet"
    return "transformer"


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as plain data: functions by name, adapters by hash."""
    return {
        key: value if isinstance(value, str | int | float | bool | None) else _name(value)
        for key, value in options.items()
    }


def _name(value: Any) -> str:
    if isinstance(value, AdapterFile):
        return sha256(value.path)
    return value.__name__ if inspect.isroutine(value) else type(value).__name__


def _provenance(
    merge: Merge, adapters: Sequence[AdapterFile], names: Sequence[str], report: MergeReport
) -> dict[str, Any]:
    """The inputs of a merge, its method and its error."""
    return {
        "made_by": "paretune merge",
        "inputs": [
            {
                "name": name,
                "file": adapter.path.name,
                "sha256": sha256(adapter.path),
                "base_model": adapter.base_model,
                "weight": weight,
            }
            for name, adapter, weight in zip(names, adapters, merge.weights, strict=True)
        ],
        "normalised": merge.normalise,
        "method": merge.method,
        "rank": merge.rank,
        "energy": merge.energy,
        "options": _plain(merge.options),
        "relative_error": report.relative_error,
        "modules": report.modules,
    }
