"""What a job of a run takes to a machine that does not see the run's folder, and what it brings back.

A job reads folders of the run, such as the adapters of earlier rounds, and files that its recipe names: code
of rewards, prompts, pictures, lists of pairs. It writes one folder. The base model is not carried: every
machine has its own copy, whose fingerprint is compared with that of the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..data.preferences import load_preferences, preference_file
from ..data.prompts import load_prompts, prompt_file
from ..environment import fingerprint, hub_revision
from ..executors.base import Luggage
from ..inputs.pictures import picture_of
from ..models.detect import check_model, resolve_path
from ..rewards.base import reward_file
from ..rewards.importing import files_of
from ..types import ParetuneError, Prompt


class Job:
    """A job that an executor may send away: see `executors.base.Movable`. Its dataclass has the fields."""

    config: RunConfig
    run_folder: Path
    base_fingerprint: str

    @property
    def reads(self) -> tuple[str, ...]:
        """The folders that it reads, below the run's folder. By default none."""
        return ()

    @property
    def writes(self) -> str:
        """The folder that it writes, below the run's folder."""
        raise NotImplementedError

    def luggage(self) -> Luggage:
        """The folders and files of the job, each once."""
        reads, files = dict.fromkeys(self.reads), dict.fromkeys(recipe_files(self.config))
        model = self.config.model.path
        own = (model,) if Path(model).exists() else ()
        return Luggage(self.run_folder, tuple(reads), self.writes, tuple(files), own, hub_revision(model))

    def moved(self, root: Path) -> Any:
        """The job for a copy of the run's folder."""
        return replace(self, run_folder=root)  # type: ignore[type-var]

    def check_here(self, revision: str | None) -> None:
        """Raise ParetuneError if the base model of this machine is missing, or another than the run's."""
        path = self.config.model.path
        try:
            check_model(path)
        except ParetuneError as error:
            raise ParetuneError(f"{error}; every machine needs the base model at that place") from error
        here = hub_revision(path)
        same = here is None or revision is None or here == revision
        if not same or fingerprint(resolve_path(path)) != self.base_fingerprint:
            raise ParetuneError(
                f"model.path: {path} is another model here than the one that the run began with; put the "
                "same files on every machine"
            )


def recipe_files(config: RunConfig) -> Iterator[str]:
    """The files that a recipe names, as it names them, and those that they name in turn."""
    for own in config.rewards.values():
        yield from _code(own.reward)
        yield from _code(own.judge) if own.judge else ()
        for spec in (own.prompts, own.eval_prompts):
            if (file := prompt_file(spec)) is not None:
                yield str(file)
                yield from _beside(file, _pictures(load_prompts(spec)))
        if own.pairs and (file := preference_file(own.pairs)) is not None:
            yield str(file)
            media = (sample for record in load_preferences(own.pairs) for sample in record.samples)
            yield from (str(sample) for sample in media if isinstance(sample, Path))
    for spec in config.evaluate.untargeted:
        yield from _code(spec)


def _code(spec: str) -> Iterator[str]:
    """The file of a reward and the neighbours that it imports."""
    file = reward_file(spec)
    if file is not None and file.is_file():
        yield from _beside(file, map(str, files_of(file)))


def _pictures(prompts: Sequence[Prompt]) -> Iterator[str]:
    return (picture for prompt in prompts if (picture := picture_of(prompt.text)) is not None)


def _beside(file: Path, others: Iterator[str]) -> Iterator[str]:
    """Files that `file` names: relative to the working folder where `file` is, as they are found from it."""
    for other in others:
        yield other if file.is_absolute() else os.path.relpath(other)
