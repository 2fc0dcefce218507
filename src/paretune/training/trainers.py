"""Which trainer makes the experts of a model: by what the model makes, one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ..config import RunConfig
from ..ops.lowrank import LowRank
from ..plan import ExpertTask
from ..policies.media import medium_of
from ..types import ParetuneError
from .checkpoint import TrainState
from .mixture import Mixture

Report = Callable[[dict[str, Any]], None]


class Trainer(Protocol):
    """Trains one expert from its last checkpoint to its last epoch."""

    state: TrainState

    def resume(self, earlier: Path | None) -> None:
        """Go on from this expert's own last checkpoint, else from the expert it continues."""
        ...

    def run(self, report: Report, should_stop: Callable[[], bool]) -> dict[str, LowRank]:
        """The expert. Raises checkpoint.Stopped after a checkpoint when asked to stop."""
        ...


@dataclass(frozen=True)
class _Kind:
    """place: module:Class below this package. objectives: those it knows."""

    place: str
    objectives: tuple[str, ...]


PAIRS = (
    "dpo", "ipo", "hinge", "robust", "sppo_hard", "apo_zero", "apo_down", "simpo", "cpo", "kto", "orpo",
)  # fmt: skip
_FLOW = _Kind("expert:ExpertTrainer", ("nft", "flow_grpo", "awm", "sft"))
KINDS = {
    "pictures": _FLOW,
    "clips": _FLOW,
    "texts": _Kind("language.trainer:LanguageTrainer", ("grpo", *PAIRS)),
}


def check_objective(config: RunConfig) -> None:
    """Raise ParetuneError where the recipe's objective, a method, or its tokens are not for its model."""
    known, name = _kind(config).objectives, config.objective.name
    if name not in known:
        raise ParetuneError(
            f"objective.name: {name} does not train {config.model.path}; choose one of {', '.join(known)}"
        )
    if "selma" in config.methods and "sft" not in known:
        raise ParetuneError("methods: selma trains by objective sft, which this model's trainer has not")
    if config.tokens is not None and known != _FLOW.objectives:
        raise ParetuneError("tokens: reward tokens are for models with text encoders; leave the section out")


def open_trainer(
    config: RunConfig, task: ExpertTask, folder: Path, mixture: Mixture,
    parents: dict[str, LowRank] | None, device: str,
) -> Trainer:  # fmt: skip
    """The trainer of an expert, its model loaded."""
    module, name = _kind(config).place.split(":")
    made: Any = getattr(import_module(f".{module}", __package__), name)
    return made(config, task, folder, mixture, parents, device)


def _kind(config: RunConfig) -> _Kind:
    return KINDS[medium_of(config.model).name]
