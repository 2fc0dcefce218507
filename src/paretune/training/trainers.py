"""Choose the trainer of an expert by the kind of samples and the objective, and the student of a token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ..config import RunConfig
from ..ops.lowrank import Changes, LowRank
from ..planning.plan import JOINT_METHODS, METHOD_OBJECTIVES, ExpertTask, TokenTask
from ..samples.media import medium_of
from ..types import ParetuneError
from .checkpoint import TrainState
from .mixture import Mixture
from .objectives.base import Objective
from .objectives.settings import check_with_recipe, read_options, settings_for
from .objectives.table import find_objective, objective_names
from .together.crew import ALONE, Crew
from .token_distillation.student import Student

Report = Callable[[dict[str, Any]], None]


class Trainer(Protocol):
    """Trains one expert, from its last checkpoint to its last epoch."""

    state: TrainState

    def resume(self, inputs: str, earlier: Path | None) -> None:
        """Load the last checkpoint of this expert, or of the expert that it continues.

        inputs: a digest of everything that determines its weights; checkpoints carry it. earlier: the folder
        of the expert that this one continues.
        """
        ...

    def run(self, report: Report, should_stop: Callable[[], bool]) -> Changes:
        """Train and return what has changed: an adapter, or with `lora: null` the differences of all weights.

        Raises Stopped, after a checkpoint, when `should_stop` says so.
        """
        ...


# Kind of samples -> "module:Class" below this package, the student that learns the reward tokens.
STUDENTS = {
    "pictures": "token_distillation.flow_student:FlowStudent",
    "clips": "token_distillation.flow_student:FlowStudent",
    "texts": "token_distillation.text_student:TextStudent",
}


def check_objective(config: RunConfig) -> None:
    """Raise ParetuneError if the recipe's objective, or a method, cannot train its model."""
    medium, name = medium_of(config.model).name, config.objective.name
    objective = find_objective(name)
    if medium not in objective.trainers:
        known = ", ".join(objective_names(medium))
        raise ParetuneError(
            f"objective.name: {name} does not train {config.model.path}; choose one of {known}"
        )
    _refuse_not_read(config, objective)
    if config.executor.overlap and not objective.overlaps:
        raise ParetuneError(
            f"executor.overlap: objective {name} draws all samples of an epoch at once, so that none is left "
            "to draw while they are scored: leave it out"
        )
    _check_leaning(config)
    check_with_recipe(config)
    for reward in config.rewards:
        _check_own(config, reward, medium)
    for method in config.methods:
        chosen = METHOD_OBJECTIVES.get(method)
        if chosen is not None and medium not in find_objective(chosen).trainers:
            raise ParetuneError(
                f"methods: {method} trains by objective {chosen}, which cannot train this model"
            )
        if chosen is not None:
            read_options(settings_for(config.objective, chosen))
        if method in JOINT_METHODS and objective.one_reward and len(config.rewards) > 1:
            raise ParetuneError(
                f"methods: {method} trains on several rewards at once, which objective {name} cannot"
            )


def _check_leaning(config: RunConfig) -> None:
    """Raise ParetuneError if an expert leans on other rewards that nothing will ask about its samples."""
    for reward, own in config.rewards.items():
        if "mapreduce" not in config.methods or not config.lean(reward):
            continue
        if own.weight == 0:
            raise ParetuneError(
                f"rewards.{reward}.weight: an expert that leans is scored by its own reward times its "
                f"weight, which is 0: set rewards.{reward}.lean to 0, or give it a weight"
            )
        why = why_not_lean(config, reward)
        if not why:
            continue
        if own.lean is None and not own.objective and not own.pairs:
            raise ParetuneError(f"map.lean: {why}, so no expert can lean on others: set it to 0")
        raise ParetuneError(
            f"rewards.{reward}.lean: {why}, so this expert cannot lean on others: set it to 0"
        )


def why_not_lean(config: RunConfig, reward: str) -> str:
    """Why the expert of a reward cannot lean on others, in words; "" if it can."""
    own = config.rewards[reward]
    name = own.objective or config.objective.name
    objective = find_objective(name)
    if objective.one_reward or not objective.draws:
        return f"objective {name} trains on one reward"
    return "its samples come from a file, which no other reward scores" if own.pairs else ""


def _check_own(config: RunConfig, reward: str, medium: str) -> None:
    """Raise ParetuneError if a reward's own objective or pairs cannot be used."""
    name, pairs = config.rewards[reward].objective, config.rewards[reward].pairs
    joint = [method for method in config.methods if method in JOINT_METHODS]
    if (name or pairs) and joint:
        key = "objective" if name else "pairs"
        raise ParetuneError(
            f"rewards.{reward}.{key}: {joint[0]} trains one model on all rewards; leave the key out, or the "
            "method"
        )
    if name is None:
        return
    kind = find_objective(name)
    if medium == "texts":
        raise ParetuneError(
            f"rewards.{reward}.objective: only experts of flow models have objectives of their own"
        )
    if medium not in kind.trainers:
        known = ", ".join(objective_names(medium))
        raise ParetuneError(
            f"rewards.{reward}.objective: {name} does not train this model; choose one of {known}"
        )
    kind.check(config, read_options(settings_for(config.objective, name)))


def check_experts(config: RunConfig) -> None:
    """Raise ParetuneError if the expert of a reward cannot be trained, such as from its file of pairs."""
    for reward, own in config.rewards.items():
        settings = settings_for(config.objective, own.objective)
        find_objective(settings.name).check_expert(settings.name, config, reward, read_options(settings))


def _refuse_not_read(config: RunConfig, objective: type[Objective]) -> None:
    """Raise ParetuneError for a key that the objective's trainer does not use and that the recipe sets."""
    for section, keys in objective.not_read.items():
        values = getattr(config, section)
        for key in keys:
            if getattr(values, key) != type(values).model_fields[key].default:
                raise ParetuneError(
                    f"{section}.{key} is for flow models; the trainers of language models have nothing for "
                    "it: leave it out"
                )


def open_trainer(
    config: RunConfig, task: ExpertTask, folder: Path, mixture: Mixture,
    parents: dict[str, LowRank] | list[Path] | None, device: str, crew: Crew = ALONE,
) -> Trainer:  # fmt: skip
    """The trainer of an expert, with its model loaded.

    Args:
        config: the recipe.
        task: the expert to train.
        folder: where its metrics and checkpoints are written.
        mixture: its prompts and rewards.
        parents: the sum of the earlier rounds' adapters, or None in the first round; with `lora: null` the
            folders of their changes.
        device: a device by torch's name.
        crew: the processes that train it together; `check_devices` says which objectives can.
    """
    name = settings_for(config.objective, task.objective).name
    place = find_objective(name).trainers[medium_of(config.model).name]
    together = () if crew.size == 1 else (crew,)
    return _load(place)(config, task, folder, mixture, parents, device, *together)


def open_student(
    config: RunConfig, task: TokenTask, expert: Mapping[str, LowRank], device: str
) -> Student:
    """The student that learns a token from an expert, with its model loaded."""
    place = STUDENTS[medium_of(config.model).name]
    return _load(f"{__package__}.{place}")(config, task, expert, device)


def _load(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(module), name)
