"""Merging three LoRA adapters: paretune, peft's add_weighted_adapter, and averaging weights.

    python benchmarks/merging.py                       SD3.5-Medium's shapes, r 32, 191 modules
    python benchmarks/merging.py --model flux1-dev     FLUX.1-dev's shapes, r 64, 228 modules

Random weights of the true shapes. Each contender runs in a process of its own, so that its time and
its peak memory (above what importing its libraries takes) are its own. paretune is timed on all
modules from files to files: reading, hashing, merging, writing for peft and for diffusers. peft is
timed in memory, without loading or saving, on --sample modules of every shape, and averaging, file
to file, on the same; both are scaled to all modules by the number of modules of each shape. Peak
memory is that of the measured modules alone. Errors are against the exact sum in float64 on the
sampled modules. On a busy machine CPU seconds say more than wall seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from adapter_shapes import MODELS, Shapes
from torch import Tensor, nn

WEIGHTS = [0.5, 0.3, 0.2]
EXACT, COMPRESSED = "paretune exact", "paretune compressed"
PEFT_SVD = "peft svd"
CONTENDERS = [EXACT, COMPRESSED, PEFT_SVD, "peft cat", "peft linear", "average weights"]


@dataclass
class Measured:
    """One process's work: how many modules, how long, and its peak memory above the imports'."""

    modules: int
    wall: float
    cpu: float
    peak_mb: float
    out: str = ""


def measure(work: Callable[[], Any], modules: int, out: Path | None = None) -> Measured:
    """Run work in this process and measure it."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    work()
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    unit = 1024 if sys.platform == "linux" else 1024**2  # ru_maxrss is in KiB on Linux
    return Measured(modules, wall, cpu, (after.ru_maxrss - before.ru_maxrss) / unit, str(out or ""))


def make_adapters(folder: Path, shapes: Shapes) -> list[Path]:
    """Three random peft adapters in float32."""
    from paretune.adapters.read import AdapterWriter
    from paretune.ops.lowrank import LowRank

    paths = []
    for number in range(len(WEIGHTS)):
        generator = torch.Generator().manual_seed(number)
        with AdapterWriter(folder / f"adapter-{number}", "benchmark", None) as writer:
            for name, (m, n) in shapes.modules.items():
                b = torch.randn(m, shapes.rank, generator=generator) * 0.02
                a = torch.randn(shapes.rank, n, generator=generator) * 0.02
                writer.add(name, LowRank(b, a))
            path = writer.finish()
        config = json.loads((path / "adapter_config.json").read_text())
        config["lora_alpha"] = shapes.alpha
        (path / "adapter_config.json").write_text(json.dumps(config))
        paths.append(path)
    return paths


def run_paretune(folder: Path, shapes: Shapes, method: str) -> Measured:
    """Files to files, all modules."""
    from paretune.adapters.merge import merge_adapters

    inputs = sorted(folder.glob("adapter-*"))
    out = folder / f"out-{method}"
    rank = shapes.rank if method == "compressed" else None
    return measure(
        lambda: merge_adapters(inputs, WEIGHTS, method, rank=rank, out=out),
        len(shapes.modules),
        out,
    )


def tree(names: list[str], shapes: Shapes) -> nn.Module:
    """A model that has Linear layers of these names and shapes, and nothing else."""
    root = nn.Module()
    for name in names:
        parent = root
        *path, last = name.split(".")
        for step in path:
            if not hasattr(parent, step):
                parent.add_module(step, nn.Module())
            parent = parent.get_submodule(step)
        m, n = shapes.modules[name]
        parent.add_module(last, nn.Linear(n, m, bias=False))
    return root


def run_peft(folder: Path, shapes: Shapes, names: list[str], kind: str) -> Measured:
    """add_weighted_adapter alone, in memory, on some modules; its result is saved afterwards."""
    import warnings

    from peft import LoraConfig, get_peft_model

    from paretune.adapters.read import read_adapter

    warnings.simplefilter("ignore")
    config = LoraConfig(r=shapes.rank, lora_alpha=shapes.alpha, target_modules=names)
    model = get_peft_model(tree(names, shapes), config, adapter_name="expert0")
    for number in range(1, len(WEIGHTS)):
        model.add_adapter(f"expert{number}", config)
    adapters = [read_adapter(path) for path in sorted(folder.glob("adapter-*"))]
    with torch.no_grad():
        for number, adapter in enumerate(adapters):
            for name in names:
                layer = model.base_model.model.get_submodule(name)
                delta = adapter[name]  # has alpha/r folded into B: take it out again
                layer.lora_A[f"expert{number}"].weight.copy_(delta.A)
                layer.lora_B[f"expert{number}"].weight.copy_(delta.B * shapes.rank / shapes.alpha)
    labels = [f"expert{number}" for number in range(len(WEIGHTS))]
    options = {"svd_rank": shapes.rank} if kind == "svd" else {}
    out = folder / f"out-peft-{kind}"
    result = measure(
        lambda: model.add_weighted_adapter(
            labels, WEIGHTS, "merged", combination_type=kind, **options
        ),
        len(names),
        out,
    )
    model.save_pretrained(out, selected_adapters=["merged"])
    result.out = str(out / "merged")
    return result


def run_average(folder: Path, shapes: Shapes, names: list[str]) -> Measured:
    """Load the base, fold every adapter into a copy, average the copies, save: file to file."""
    from safetensors.torch import load_file, save_file

    from paretune.adapters.read import read_adapter

    generator = torch.Generator().manual_seed(9)
    base = {n: torch.randn(shapes.modules[n], generator=generator) * 0.02 for n in names}
    save_file(base, folder / "base.safetensors")
    del base
    adapters = [read_adapter(path) for path in sorted(folder.glob("adapter-*"))]

    def work() -> None:
        loaded = load_file(folder / "base.safetensors")
        mean = {name: torch.zeros_like(weight) for name, weight in loaded.items()}
        for share, adapter in zip(WEIGHTS, adapters, strict=True):
            copy = {name: weight + adapter[name].dense() for name, weight in loaded.items()}
            for name, weight in copy.items():
                mean[name] += share * weight
        save_file(mean, folder / "average.safetensors")

    return measure(work, len(names), folder / "average.safetensors")


def merged_delta(result: Measured, folder: Path, name: str) -> Tensor:
    """What a contender made of a module: ΔW in float64."""
    from safetensors import safe_open

    from paretune.adapters.read import read_adapter

    if result.out.endswith("average.safetensors"):
        with (
            safe_open(result.out, "pt") as mean,
            safe_open(folder / "base.safetensors", "pt") as base,
        ):
            return mean.get_tensor(name).double() - base.get_tensor(name).double()
    delta = read_adapter(result.out)[name]
    return delta.B.double() @ delta.A.double()


def errors(result: Measured, folder: Path, names: list[str]) -> dict[str, float]:
    """‖merged - Σ w_i ΔW_i‖² and ‖Σ w_i ΔW_i‖² over the sampled modules, in float64."""
    from paretune.adapters.read import read_adapter

    adapters = [read_adapter(path) for path in sorted(folder.glob("adapter-*"))]
    lost = size = 0.0
    for name in names:
        exact = torch.zeros(adapters[0].shape(name), dtype=torch.float64)
        for share, adapter in zip(WEIGHTS, adapters, strict=True):
            delta = adapter[name]
            exact.addmm_(delta.B.double(), delta.A.double(), alpha=share)
        lost += float((merged_delta(result, folder, name) - exact).square_().sum())
        size += float(exact.square_().sum())
    return {"lost": lost, "size": size}


def worker(arguments: argparse.Namespace) -> None:
    """One contender, in this process; prints its Measured as JSON."""
    shapes = MODELS[arguments.model]()
    folder, tool = Path(arguments.folder), arguments.worker
    torch.set_num_threads(arguments.threads)
    torch.linalg.qr(torch.randn(4, 4))  # LAPACK's own loading belongs to nobody
    names = [n for n in shapes.sample(arguments.sample) if shapes.modules[n] == arguments.shape]
    if tool.startswith("paretune"):
        result = run_paretune(folder, shapes, tool.split()[1])
    elif tool.startswith("peft"):
        result = run_peft(folder, shapes, names, tool.split()[1])
    else:
        result = run_average(folder, shapes, names)
    modules = names or shapes.sample(arguments.sample)
    print(json.dumps({**asdict(result), **errors(result, folder, modules)}))


def spawn(arguments: argparse.Namespace, folder: Path, tool: str, shape: str) -> dict[str, Any]:
    """Run a worker process and read its answer."""
    command = [
        sys.executable, __file__, "--worker", tool, "--folder", str(folder), "--shape", shape,
        "--model", arguments.model, "--sample", str(arguments.sample),
        "--threads", str(arguments.threads),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{tool} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def contend(
    arguments: argparse.Namespace, folder: Path, shapes: Shapes, tool: str
) -> dict[str, Any]:
    """A contender on the whole model, scaled from its samples where it is not paretune."""
    if tool.startswith("paretune"):
        whole = spawn(arguments, folder, tool, "")
        error = (whole["lost"] / whole["size"]) ** 0.5
        return {**whole, "error": error, "measured": len(shapes.modules)}
    wall = cpu = peak = lost = size = 0.0
    measured = 0
    for shape in dict.fromkeys(shapes.modules.values()):
        part = spawn(arguments, folder, tool, "x".join(map(str, shape)))
        scale = shapes.count(shape) / part["modules"]
        wall, cpu = wall + part["wall"] * scale, cpu + part["cpu"] * scale
        peak = max(peak, part["peak_mb"])
        lost, size = lost + part["lost"], size + part["size"]
        measured += part["modules"]
    return {
        "wall": wall,
        "cpu": cpu,
        "peak_mb": peak,
        "error": (lost / size) ** 0.5,
        "measured": measured,
    }


def report(rows: dict[str, dict[str, Any]], shapes: Shapes, arguments: argparse.Namespace) -> str:
    """The table in Markdown, and what was to be reached."""
    total = len(shapes.modules)
    lines = [
        f"{arguments.model}: {total} modules, r {shapes.rank}, {len(WEIGHTS)} adapters, "
        f"{arguments.threads} thread(s)",
        "",
        "| | modules measured | wall s, all | CPU s, all | peak MB | relative error |",
        "|---|---|---|---|---|---|",
    ]
    for tool, row in rows.items():
        lines.append(
            f"| {tool} | {row['measured']} of {total} | {row['wall']:.1f} | {row['cpu']:.1f} "
            f"| {row['peak_mb']:.0f} | {row['error']:.2e} |"
        )
    one = max(sum(s) for s in shapes.modules.values()) * shapes.rank * 4 * len(WEIGHTS) / 2**20
    lines += ["", f"Exact error {rows[EXACT]['error']:.1e} (to reach: at most 1e-6)."]
    peak = max(rows[tool]["peak_mb"] for tool in (EXACT, COMPRESSED) if tool in rows)
    lines.append(
        f"Peak memory {peak:.0f} MB (to reach: inputs of one module, {one:.0f} MB, + 300)."
    )
    if PEFT_SVD in rows and COMPRESSED in rows:
        ours, theirs = rows[COMPRESSED], rows[PEFT_SVD]
        lines.append(
            f"Compressed is {theirs['wall'] / ours['wall']:.0f} times as fast as peft's svd by wall"
            f" time, {theirs['cpu'] / ours['cpu']:.0f} by CPU time (to reach: 20), its error "
            f"{ours['error']:.6f} against {theirs['error']:.6f}."
        )
    return "\n".join(lines)


def main() -> None:
    """Make the adapters, run every contender, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=MODELS, default="sd35-medium")
    parser.add_argument("--sample", type=int, default=2, help="modules of a shape for the others")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument(
        "--shape", default=(), help=argparse.SUPPRESS,
        type=lambda text: tuple(int(side) for side in text.split("x") if side),
    )  # fmt: skip
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments)
        return
    shapes = MODELS[arguments.model]()
    with tempfile.TemporaryDirectory(prefix="paretune-merging-") as name:
        folder = Path(name)
        make_adapters(folder, shapes)
        rows = {
            tool: contend(arguments, folder, shapes, tool)
            for tool in [EXACT, *(t for t in arguments.only if t != EXACT)]
        }
    print(report(rows, shapes, arguments))
    if arguments.json:
        arguments.json.write_text(json.dumps({"model": arguments.model, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
