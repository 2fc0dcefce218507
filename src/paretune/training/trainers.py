"""Which trainer makes the experts and the tokens of a model: by what the model makes, one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ..config import RunConfig
from ..ops.lowrank import LowRank
from ..plan import ExpertTask, TokenTask
from ..policies.media import medium_of
from ..types import ParetuneError, Prompt
from .checkpoint import TrainState
from .mixture import Mixture
from .student import Student

Report = Callable[[dict[str, Any]], None]


class Trainer(Protocol):
    """Trains one expert from its last checkpoint to its last epoch."""

    state: TrainState

    def resume(self, inputs: str, earlier: Path | None) -> None:
        """Go on from this expert's own last checkpoint, else from the expert it continues.

        inputs: digest of all that decides its weights; its checkpoints carry it.
        """
        ...

    def run(self, report: Report, should_stop: Callable[[], bool]) -> dict[str, LowRank]:
        """The expert. Raises checkpoint.Stopped after a checkpoint when asked to stop."""
        ...


@dataclass(frozen=True)
class _Kind:
    """place, student: module:Class below this package. objectives: those that the trainer knows."""

    place: str
    objectives: tuple[str, ...]
    student: str


PAIRS = (
    "dpo", "ipo", "hinge", "robust", "sppo_hard", "apo_zero", "apo_down", "simpo", "cpo", "kto", "orpo",
)  # fmt: skip
_FLOW = _Kind("expert:ExpertTrainer", ("nft", "flow_grpo", "awm", "sft"), "flow_student:FlowStudent")
KINDS = {
    "pictures": _FLOW,
    "clips": _FLOW,
    "texts": _Kind(
        "language.trainer:LanguageTrainer", ("grpo", *PAIRS), "language.student:TextStudent"
    ),
}


UNHEARD = {"train": ("keep",), "objective": ("shared_noise", "advantage_clip", "anchor")}


def check_objective(config: RunConfig) -> None:
    """Raise ParetuneError where the recipe's objective or a method is not for its model."""
    known, name = _kind(config).objectives, config.objective.name
    if name not in known:
        raise ParetuneError(
            f"objective.name: {name} does not train {config.model.path}; choose one of {', '.join(known)}"
        )
    if known is KINDS["texts"].objectives:
        _check_unheard(config)
    if "selma" in config.methods and "sft" not in known:
        raise ParetuneError("methods: selma trains by objective sft, which this model's trainer has not")


def _check_unheard(config: RunConfig) -> None:
    """Keys of flow models' trainer that TRL has nothing for: a value of one's own would change nothing."""
    for section, keys in UNHEARD.items():
        own = getattr(config, section)
        for key in keys:
            if getattr(own, key) != type(own).model_fields[key].default:
                raise ParetuneError(
                    f"{section}.{key} is for flow models; the trainers of language models have nothing for "
                    "it: leave it out"
                )


def objective_check(name: str) -> Callable[[Sequence[Prompt]], object] | None:
    """What raises ParetuneError for a prompt that an objective cannot train on; None where any will do."""
    if name not in PAIRS:
        return None
    from .language.pairs import pair_rows

    return lambda prompts: pair_rows(name, prompts, [p.text for p in prompts], range(len(prompts)))


def open_trainer(
    config: RunConfig, task: ExpertTask, folder: Path, mixture: Mixture,
    parents: dict[str, LowRank] | None, device: str,
) -> Trainer:  # fmt: skip
    """The trainer of an expert, its model loaded."""
    return _load(_kind(config).place)(config, task, folder, mixture, parents, device)


def open_student(
    config: RunConfig, task: TokenTask, expert: Mapping[str, LowRank], device: str
) -> Student:
    """What learns a token from an expert, its model loaded."""
    return _load(_kind(config).student)(config, task, expert, device)


def _load(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(f".{module}", __package__), name)


def _kind(config: RunConfig) -> _Kind:
    return KINDS[medium_of(config.model).name]
