"""Several processes that train together, and what they make.

They are forks of a process that has loaded the libraries and does nothing else, so a test takes a second.
A fork of the process of the tests itself may wait for ever: for a lock that another thread of it held.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from paretune.training.together.crew import ALONE, Crew, Place, joined

PATIENCE = 300.0  # seconds for what takes one or two on an idle machine


def in_crew(size: int, work: Callable[[Crew], Any], folder: Path) -> list[Any]:
    """What `work` returns in each of `size` processes; [its result] of this process for size 1.

    work: must be picklable: a function of a module, with its arguments by functools.partial.
    """
    if size == 1:
        return [work(ALONE)]
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded"])
    processes = [
        context.Process(target=_take_part, args=(work, Place(rank, size, "127.0.0.1", store.port), folder))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
        process.kill()
        process.join()
    ends = [process.exitcode for process in processes]
    assert ends == [0] * size, (ends, *(path.read_text() for path in sorted(folder.glob("*.stack"))))
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


def _take_part(work: Callable[[Crew], Any], place: Place, folder: Path) -> None:
    torch.set_num_threads(1)
    with (folder / f"{place.rank}.stack").open("w") as stack:
        faulthandler.dump_traceback_later(PATIENCE / 2, file=stack)  # where it hangs, if it does
        with joined(place, "cpu") as crew:
            torch.save(work(crew), folder / f"{place.rank}.pt")
        faulthandler.cancel_dump_traceback_later()


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
