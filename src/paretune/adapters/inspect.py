"""`paretune inspect`: the ranks, norms and agreement of adapters, computed from their factors."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table

from ..files import write_bytes
from ..ops.lowrank import cosines, gram, rank_for_energy, singular_values
from ..types import ParetuneError
from .inputs import open_adapters, refuse_aliases
from .read import AdapterFile

ENERGY = 0.99


@dataclass(frozen=True)
class ModuleSummary:
    """One module: shape (m, n), stored rank, the rank that keeps 99 % of its energy, scale and ‖ΔW‖_F."""

    name: str
    shape: tuple[int, int]
    rank: int
    effective_rank: int
    scale: float
    norm: float


@dataclass(frozen=True)
class AdapterSummary:
    """One adapter. energy_by_rank[R]: the share of ‖ΔW‖²_F that is kept if all modules are cut to rank R."""

    name: str
    base_model: str | None
    norm: float
    parameters: int
    energy_by_rank: dict[int, float]
    modules: tuple[ModuleSummary, ...]

    @property
    def ranks(self) -> str:
        """The ranks of its modules: "32", or "8 to 32"."""
        least, most = min(m.rank for m in self.modules), max(m.rank for m in self.modules)
        return str(least) if least == most else f"{least} to {most}"


@dataclass(frozen=True)
class Inspection:
    """Adapters and their Gram and cosine matrices, N x N lists, over the union of modules."""

    adapters: tuple[AdapterSummary, ...]
    gram: list[list[float]]
    cosines: list[list[float]]

    def to_dict(self) -> dict[str, Any]:
        """The inspection as plain data for JSON."""
        return asdict(self)


def inspect_adapters(inputs: Sequence[str | Path], renames: Sequence[str] = ()) -> Inspection:
    """Inspect adapters (folders, files or hub ids), with one module in memory at a time.

    renames: changes of module names, "OLD=NEW". Raises ParetuneError when an adapter cannot be read, when
    modules with the same name differ in shape, or when adapters have different names for the same modules.
    """
    if not inputs:
        raise ParetuneError("nothing to inspect: give at least one adapter")
    adapters = open_adapters(inputs, renames, partly=True)
    refuse_aliases(adapters, [str(name) for name in inputs])
    summaries = tuple(_summary(str(n), a) for n, a in zip(inputs, adapters, strict=True))
    try:
        products = gram(adapters)
    except ValueError as error:
        raise ParetuneError(f"the adapters are for different models: {error}") from error
    return Inspection(summaries, products.tolist(), cosines(products).tolist())


def _summary(name: str, adapter: AdapterFile) -> AdapterSummary:
    modules: list[ModuleSummary] = []
    most = max(adapter.rank(module) for module in adapter)
    kept = torch.zeros(most, dtype=torch.float64)  # kept[i]: Σ over modules of the i-th s²
    for module in adapter:
        values = singular_values(adapter[module])
        kept[: len(values)] += values.square()
        modules.append(
            ModuleSummary(
                module,
                adapter.shape(module),
                adapter.rank(module),
                rank_for_energy(values, ENERGY),
                adapter.scale(module),
                float(values.square().sum().sqrt()),
            )
        )
    total = float(kept.sum())
    share = kept.cumsum(0) / total if total > 0 else torch.ones(most, dtype=torch.float64)
    steps = sorted({min(2**i, most) for i in range(most.bit_length() + 1)})
    return AdapterSummary(
        name,
        adapter.base_model,
        total**0.5,
        sum(m.rank * sum(m.shape) for m in modules),
        {rank: float(share[rank - 1]) for rank in steps},
        tuple(modules),
    )


def render(inspection: Inspection, largest: int = 5) -> RenderableType:
    """Tables for a terminal: one row per adapter, its `largest` modules, and the cosine matrix."""
    overview = Table(title="Adapters", title_justify="left")
    for heading in ("", "adapter", "base model", "modules", "rank", "parameters", "norm"):
        overview.add_column(heading)
    overview.add_column("energy kept by rank")
    details = Table(title=f"The {largest} largest changes of each", title_justify="left")
    for heading in ("", "module", "shape", "rank", f"rank at {ENERGY:.0%}", "scale", "norm"):
        details.add_column(heading)
    for number, adapter in enumerate(inspection.adapters, 1):
        overview.add_row(
            str(number), adapter.name, adapter.base_model or "not named",
            str(len(adapter.modules)), adapter.ranks, f"{adapter.parameters:,}",
            f"{adapter.norm:.4g}",
            "  ".join(f"{rank}: {share:.3f}" for rank, share in adapter.energy_by_rank.items()),
        )  # fmt: skip
        for module in sorted(adapter.modules, key=lambda m: -m.norm)[:largest]:
            details.add_row(
                str(number), module.name, "{} x {}".format(*module.shape), str(module.rank),
                str(module.effective_rank), f"{module.scale:.3g}", f"{module.norm:.4g}",
            )  # fmt: skip
    parts: list[RenderableType] = [overview, details]
    if len(inspection.adapters) > 1:
        parts.append(_cosine_table(inspection))
    return Group(*parts)


def _cosine_table(inspection: Inspection) -> Table:
    table = Table(title="Cosines (below zero: the adapters conflict)", title_justify="left")
    table.add_column("")
    for number in range(1, len(inspection.cosines) + 1):
        table.add_column(str(number), justify="right")
    for number, row in enumerate(inspection.cosines, 1):
        cells = [f"[red]{c:+.3f}[/red]" if c < 0 else f"{c:+.3f}" for c in row]
        table.add_row(str(number), *cells)
    return table


def heatmap(inspection: Inspection, path: str | Path) -> Path:
    """Draw the cosine matrix as a PNG. Raises ParetuneError when the file cannot be written."""
    from matplotlib.figure import Figure

    count = len(inspection.cosines)
    labels = [Path(adapter.name).name for adapter in inspection.adapters]
    side = 2.2 + 0.8 * count
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(inspection.cosines, cmap="RdBu", vmin=-1, vmax=1)
    axes.set_xticks(range(count), labels, rotation=30, ha="right")
    axes.set_yticks(range(count), labels)
    for i, row in enumerate(inspection.cosines):
        for j, value in enumerate(row):
            shade = "white" if abs(value) > 0.6 else "black"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=shade)
    axes.set_title("Cosine between adapters")
    figure.colorbar(image, ax=axes, shrink=0.8)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=150, format="png")
    write_bytes(Path(path), picture.getvalue())
    return Path(path)
