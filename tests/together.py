"""Several processes that train together, and what they make.

They are forked and have torch already, so a test takes a second each.
"""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from paretune.training.together.crew import ALONE, Crew, Place, joined


def in_crew(size: int, work: Callable[[Crew], Any], folder: Path) -> list[Any]:
    """What `work` returns in each of `size` processes; [its result] of this process for size 1."""
    if size == 1:
        return [work(ALONE)]
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    folder.mkdir(parents=True, exist_ok=True)

    def take_part(rank: int) -> None:
        torch.set_num_threads(1)
        with joined(Place(rank, size, "127.0.0.1", store.port), "cpu") as crew:
            torch.save(work(crew), folder / f"{rank}.pt")

    gc.collect()  # a spawned process has no trainers of earlier tests to collect while it trains
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=take_part, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * size
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


def trained(trainer: Any, stop: bool = False) -> dict[str, torch.Tensor]:
    """Train an expert, to the next checkpoint if `stop`, and return its parameters."""
    trainer.resume("inputs", None)
    trainer.run(lambda event: None, lambda: stop)
    return {name: p.detach().clone() for name, p in trainer.state.parameters.items()}


def assert_only_rounded(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    """Two experts' parameters differ by 1e-5 at most, but for one entry in 500, and by little in the norm.

    Adam divides a gradient by its own size, so an entry whose gradient is as small as its rounding may move
    by the learning rate either way; which entries are so small depends on the processor.
    """
    assert one.keys() == other.keys()
    gaps = torch.cat([(one[name] - other[name]).abs().flatten() for name in one])
    assert float((gaps > 1e-5).float().mean()) <= 0.002, gaps.max()
    for name in (name for name in one if "lora_B" in name):  # it begins at zero, so it is what was learned
        assert float((one[name] - other[name]).norm()) <= 1e-3 * float(one[name].norm()), name


def distance(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """The greatest difference of two experts' parameters."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)
