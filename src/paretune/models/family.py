"""One record a family of models: everything that differs from one family to another, said once.

Each family is a folder beside this file whose `family.py` holds its record, FAMILY. Other packages add theirs
by the entry point group `paretune.models`. Detecting a folder's family, checking its parts, planning,
estimating and opening all read the record, and no other file names a family. The records are light: they load
no library of models.
"""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from ..config import ModelConfig
from ..types import ParetuneError
from .options import Options
from .shapes import Facts, Shape
from .text_limits import Limit

GROUP = "paretune.models"


@dataclass(frozen=True)
class Published:
    """A model on the hub, so that its recipe is planned without a copy of it.

    transformer, vae: what their classes are built with; no vae where nothing is drawn in latents.
    billions: the parameters of each part. vae_class: the class of its autoencoder. untuned: whether it was
    trained on plain text alone, so that it is fine-tuned on answers before a run.
    """

    billions: Mapping[str, float]
    transformer: Facts = field(default_factory=dict[str, Any])
    vae: Facts = field(default_factory=dict[str, Any])
    vae_class: str = "AutoencoderKL"
    untuned: bool = False


def _one(model: ModelConfig) -> int:
    return 1


def _none(model: ModelConfig) -> tuple[Any, ...]:
    return ()


def _nothing(model: ModelConfig) -> list[str]:
    return []


@dataclass(frozen=True)
class Family:
    """A family of models.

    name: as messages and tests call it. medium: what its samples are, a key of `media.MEDIA`.
    policy: "package.module:Class", imported when a model is opened. options: what `model.options` may hold.
    pipelines: the classes that a model_index.json may name; the first is the one that is loaded.
    architectures: how the classes end that a config.json may name, for models of transformers.
    parts: the folders that a pipeline cannot do without. transformer: the class of the part that is trained.
    shape: the size of a sample by the configurations of the transformer and the VAE.
    published: hub id -> its sizes. known: other hub ids of this family, which are planned without sizes.
    text_tokens: how many tokens of text the transformer's sequence holds.
    cut_text: the `max_sequence_length` that the recipe sets; None: the family's own; 0: there is none.
    limits: what each text encoder reads of a prompt; none where a prompt is never cut.
    encoders: the folders of the text encoders that are loaded. passes: forward passes of one guided step.
    smaller: the keys of a recipe that make one sample take less memory, those that can be lowered.
    draws_an_epoch_at_once: whether smaller groups take less memory.
    quantizes: whether `quantize` is one of its options.
    sampling: steps and guidance where no recipe says them: the defaults of its pipeline.
    """

    name: str
    medium: str
    policy: str
    options: type[Options]
    pipelines: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    transformer: str = ""
    shape: Callable[[ModelConfig, Facts, Facts], Shape] | None = None
    published: Mapping[str, Published] = field(default_factory=dict[str, Published])
    known: tuple[str, ...] = ()
    text_tokens: Callable[[ModelConfig], int] = _one
    cut_text: Callable[[ModelConfig], int | None] = _one
    limits: Callable[[ModelConfig], tuple[Limit, ...]] = _none
    encoders: Callable[[ModelConfig], tuple[str, ...]] = _none
    passes: Callable[[ModelConfig], int] = _one
    smaller: Callable[[ModelConfig], list[str]] = _nothing
    draws_an_epoch_at_once: bool = False
    quantizes: bool = True
    sampling: tuple[int, float] = (28, 7.0)

    def open(self, model: ModelConfig, device: str) -> Any:
        """The policy of a model of this family, loaded. See `opening.open_policy`, which is typed."""
        module, name = self.policy.split(":")
        return getattr(import_module(module), name)(model, device)


@functools.cache
def families() -> dict[str, Family]:
    """Every family by its name: the folders beside this file, then those of other packages.

    Raises ParetuneError, one line, for an entry point that cannot be loaded or takes a name twice.
    """
    package = __name__.rpartition(".")[0]
    folders = [m.name for m in pkgutil.iter_modules(import_module(package).__path__) if m.ispkg]
    found: dict[str, Family] = {}
    for folder in folders:
        own = import_module(f"{package}.{folder}.family").FAMILY
        found[own.name] = own
    for entry in entry_points(group=GROUP):
        try:
            own = entry.load()
        except Exception as error:  # another package's code raises what it likes
            raise ParetuneError(
                f"the model family {entry.name} ({entry.value}) cannot be loaded: {error}"
            ) from error
        if not isinstance(own, Family) or own.name in found:
            what = "takes a name that is taken" if isinstance(own, Family) else "is no Family"
            raise ParetuneError(f"the model family {entry.name} ({entry.value}) {what}")
        found[own.name] = own
    return found


def by_pipeline() -> dict[str, Family]:
    """The class that a model_index.json names -> its family."""
    return {pipeline: own for own in families().values() for pipeline in own.pipelines}


def by_hub_id() -> dict[str, Family]:
    """The hub id of a model that is known without asking -> its family."""
    return {name: own for own in families().values() for name in (*own.published, *own.known)}
