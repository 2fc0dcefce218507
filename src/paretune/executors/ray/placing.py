"""What a task takes of the cluster, and the placement group that holds it together.

A task of one device is one actor, whose resources Ray takes of one machine, all or nothing. A task of several
devices waits for a placement group: of one bundle where a machine has them all, else of a bundle for each
device, which Ray packs onto as few machines as it can. The group is given back when the task has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from ...config import ExecutorConfig
from ...types import ParetuneError
from .cluster import machines

NAMED = 8  # machines that a message names


@dataclass(frozen=True)
class Request:
    """What a worker takes of its machine.

    devices: of the task. dealt: the task has a worker for each device, which may be on several machines;
    otherwise one worker has them all.
    """

    cpus: int
    gpus: int
    devices: int = 1
    dealt: bool = False

    @property
    def workers(self) -> int:
        """How many workers carry out one task together."""
        return self.devices if self.dealt else 1

    def __str__(self) -> str:
        """In words, for messages."""
        return f"{count(self.gpus, 'GPU')} and {count(self.cpus, 'CPU')}" if self.gpus else \
            count(self.cpus, "CPU")  # fmt: skip


def count(number: int, what: str) -> str:
    """A number and a noun: "1 GPU", "2 GPUs"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def one_device(settings: ExecutorConfig, device: str) -> Request:
    """What a task of one device takes. Raises ParetuneError where no machine of the cluster has as much."""
    devices = settings.devices_per_expert
    request = Request(ceil(settings.cpus_per_expert / devices) or settings.threads, int(device == "cuda"))
    for kind, wanted in (("GPU", request.gpus), ("CPU", request.cpus)):
        most, name = max((n["Resources"].get(kind, 0), n["NodeManagerHostname"]) for n in machines())
        if wanted > most:
            key = "cpus_per_expert" if settings.cpus_per_expert else "threads"
            raise ParetuneError(
                f"executor.{key}: one task takes {count(wanted, kind)} of one machine, and the largest "
                f"machine of the cluster, {name}, has {most:g}"
            )
    if not any(_places(node, request) for node in machines()):
        raise ParetuneError(f"executor: a task takes {request}, and no machine of the cluster has both")
    return request


def several_devices(settings: ExecutorConfig, device: str) -> Request:
    """What an expert takes: all of one machine if one has as much, else of several.

    Raises ParetuneError where the cluster has not as much.
    """
    devices, one = settings.devices_per_expert, one_device(settings, device)
    if devices == 1:
        return one
    cpus = settings.cpus_per_expert or settings.threads * (1 if device == "cuda" else devices)
    whole = Request(cpus, devices * one.gpus, devices)
    if any(_places(node, whole) for node in machines()):
        return whole
    places = {node["NodeManagerHostname"]: 0 for node in machines()}
    for node in machines():
        places[node["NodeManagerHostname"]] += _places(node, one)
    if sum(places.values()) < devices:
        named = [f"{name} {number}" for name, number in places.items()]
        more = f", and {count(len(named) - NAMED, 'machine')} more" if len(named) > NAMED else ""
        raise ParetuneError(
            f"executor.devices_per_expert: an expert takes {devices} times {one}, and the cluster has that "
            f"{sum(places.values())} times: {', '.join(named[:NAMED])}{more}"
        )
    return Request(one.cpus, one.gpus, devices, dealt=True)


def _places(node: Mapping[str, Any], request: Request) -> int:
    """How many such workers a machine has room for when it is empty."""
    has = node["Resources"]
    rooms = [has.get(kind, 0) // wanted for kind, wanted in (("CPU", request.cpus), ("GPU", request.gpus))
             if wanted]  # fmt: skip
    return int(min(rooms))


def group_of(request: Request) -> Any:
    """Ask Ray for the placement group of a task of several devices; None for a task of one."""
    if request.devices == 1:
        return None
    from ray.util.placement_group import placement_group

    bundle: dict[str, float] = {"CPU": request.cpus, **({"GPU": request.gpus} if request.gpus else {})}
    return placement_group([bundle] * request.workers, "PACK" if request.dealt else "STRICT_PACK")


def options_of(request: Request, group: Any, number: int) -> dict[str, Any]:
    """Options of the actor of a worker. number: of its bundle in the group."""
    options: dict[str, Any] = {"num_cpus": request.cpus, "num_gpus": request.gpus}
    if group is not None:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, number)
    return options


def give_back(group: Any) -> None:
    """Free the devices of a placement group, once its workers have ended."""
    if group is not None:
        from ray.util.placement_group import remove_placement_group

        remove_placement_group(group)
