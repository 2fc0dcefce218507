"""The trackers: what each needs, how it is opened, and how it takes pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..types import ParetuneError

PROJECT = "paretune"


@dataclass(frozen=True)
class Kind:
    """A tracker of accelerate.

    module: the package that it needs. options: (name of the run, its id, a folder) -> arguments of
    accelerate's class. stepped: whether a scalar is given its step; wandb has one step for all, which only
    rises. pictures: shows a list of PNG files under a name.
    """

    module: str
    options: Callable[[str, str, Path], dict[str, Any]]
    pictures: Callable[[Any, str, Sequence[Path], int], None]
    stepped: bool = True


def check_trackers(names: Sequence[str]) -> None:
    """Raise ParetuneError, one line, for a tracker that is not installed."""
    if lines := not_installed(names):
        raise ParetuneError(lines[0])


def not_installed(names: Sequence[str]) -> list[str]:
    """A line for every tracker that is not installed."""
    return [
        f"trackers: {name} is not installed: pip install {KINDS[name].module}, or leave {name} out"
        for name in names
        if find_spec(KINDS[name].module) is None
    ]


def open_tracker(name: str, run: str, number: str, folder: Path) -> Any:
    """Start a tracker. Raises ParetuneError, one line, where it does not start (it is not logged in, ..)."""
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState(cpu=True)  # this process only tells what others compute: it takes no device
    try:
        tracker = LOGGER_TYPE_TO_CLASS[name](**KINDS[name].options(run, number, folder))
        tracker.start()
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ParetuneError(f"trackers: {name} does not start: {reason}") from error
    return tracker


def _tensorboard(run: str, number: str, folder: Path) -> dict[str, Any]:
    return {"run_name": run, "logging_dir": str(folder / "tensorboard")}


def _wandb(run: str, number: str, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    return {"run_name": PROJECT, "name": run, "id": number, "resume": "allow", "dir": str(folder)}


def _swanlab(run: str, number: str, folder: Path) -> dict[str, Any]:
    told = {"run_name": PROJECT, "name": run, "log_dir": str(folder / "swanlab")}
    # Only an online run can be gone on with.
    online = os.environ.get("SWANLAB_MODE", "online") in {"online", "cloud"}
    return {**told, "id": number, "resume": "allow"} if online else told


def _trackio(run: str, number: str, folder: Path) -> dict[str, Any]:
    return {"run_name": PROJECT, "name": f"{run}-{number}", "resume": "allow", "embed": False}


def _mlflow(run: str, number: str, folder: Path) -> dict[str, Any]:
    """The run of this id, which MLflow itself numbers: it is found again by its tag."""
    found: Any = import_module("mlflow").search_runs(
        experiment_names=[PROJECT], filter_string=f"tags.paretune = '{number}'", output_format="list"
    )
    known = {"run_id": found[0].info.run_id} if found else {}
    return {"experiment_name": PROJECT, "run_name": run, "tags": {"paretune": number}, **known}


def _read(files: Sequence[Path]) -> list[Any]:
    import numpy as np
    from PIL import Image

    pictures = []
    for file in files:
        with Image.open(file) as picture:
            pictures.append(np.array(picture.convert("RGB")))
    return pictures


def _on_tensorboard(tracker: Any, name: str, files: Sequence[Path], step: int) -> None:
    import numpy as np

    tracker.log_images({name: np.stack(_read(files))}, step=step, dataformats="NHWC")


def _on_wandb(tracker: Any, name: str, files: Sequence[Path], step: int) -> None:
    tracker.log_images({name: _read(files)})


def _on_swanlab(tracker: Any, name: str, files: Sequence[Path], step: int) -> None:
    tracker.log_images({name: _read(files)}, step=step)


def _on_trackio(tracker: Any, name: str, files: Sequence[Path], step: int) -> None:
    picture = import_module("trackio").Image
    tracker.log({f"{name}/{i}": picture(str(file)) for i, file in enumerate(files)}, step=step)


def _on_mlflow(tracker: Any, name: str, files: Sequence[Path], step: int) -> None:
    for file in files:
        tracker.log_artifact(str(file), artifact_path=name)


KINDS: Mapping[str, Kind] = {
    "tensorboard": Kind("tensorboard", _tensorboard, _on_tensorboard),
    "wandb": Kind("wandb", _wandb, _on_wandb, stepped=False),
    "swanlab": Kind("swanlab", _swanlab, _on_swanlab),
    "trackio": Kind("trackio", _trackio, _on_trackio),
    "mlflow": Kind("mlflow", _mlflow, _on_mlflow),
}
