"""The record of a family of models: everything that differs from one family to another.

Each family is a folder beside this file whose `family.py` defines its record, FAMILY. Other packages add
families by the entry point group `paretune.models`. Detecting a folder's family, checking its parts,
planning, estimating and opening all read the record, and no other file names a family. The modules of the
records load no model library.
"""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from ..config import ModelConfig
from ..foreign.entry_points import added, load_added
from ..types import ParetuneError
from .options import Options
from .shapes import PartConfig, Shape, backbone
from .text_limits import Limit

GROUP = "paretune.models"


@dataclass(frozen=True)
class Published:
    """The sizes of a model on the hub, so that its recipe can be planned without downloading it.

    billions: the parameters of each part. transformer, vae: their configurations; no vae for a model
    without latents. vae_class: the class of its autoencoder. untuned: whether it was trained on plain text
    alone, so that it is fine-tuned on answers before a run. index: the settings in its model_index.json. A
    model with two transformers has two of them in `billions`, of one configuration.
    """

    billions: Mapping[str, float]
    transformer: PartConfig = field(default_factory=dict[str, Any])
    vae: PartConfig = field(default_factory=dict[str, Any])
    vae_class: str = "AutoencoderKL"
    untuned: bool = False
    index: Mapping[str, Any] = field(default_factory=dict[str, Any])


def _one(model: ModelConfig) -> int:
    return 1


def _zero(model: ModelConfig) -> int:
    return 0


def _none(model: ModelConfig) -> tuple[Any, ...]:
    return ()


def _nothing(model: ModelConfig) -> list[str]:
    return []


def _nowhere(index: Mapping[str, Any]) -> str:
    return ""


def _no_more(index: Mapping[str, Any]) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Family:
    """A family of models, which share an architecture.

    name: unique among all families. medium: the kind of its samples, a key of `media.MEDIA`.
    policy: "package.module:Class", imported when a model is opened. options: the type of `model.options`.
    pipelines: the class names that a model_index.json may have; the first is the class that is loaded.
    architectures: the endings of the class names that a config.json of transformers may have.
    parts: the folders that a pipeline must have. more_parts: those that its model_index.json calls for
    beside them. transformer: the class of the part that is trained.
    libraries: those whose classes a model_index.json may name for the parts.
    shape: the shape of a sample, from the configurations of the transformer and the VAE.
    backbone: the number of the transformer's blocks and its hidden size, from its configuration.
    published: hub id -> its sizes. known: further hub ids of this family, which are planned without sizes.
    text_tokens: the number of text tokens in the transformer's sequence.
    cut_text: the `max_sequence_length` that the recipe sets; None: the family's default; 0: the family has
    no such option.
    limits: how many tokens each text encoder reads of a prompt; empty if a prompt is never cut.
    encoders: the folders of the text encoders that are loaded. passes: forward passes of one guided step.
    smaller: the keys of a recipe that can be lowered so that one sample takes less memory.
    draws_an_epoch_at_once: whether smaller groups take less memory.
    quantizes: whether `quantize` is one of its options. dtypes: those that it runs and trains in.
    sampling: default steps and guidance, which are those of its pipeline.
    picture: whether a prompt has an input picture: never, always, or as it likes.
    picture_tokens: the number of tokens that an input picture adds to the transformer's sequence.
    time_embedding: from its model_index.json, the place in the transformer of the module that embeds the
    time, [B, ..] -> [B, width] for a call with B samples; "" where a model cannot be given weights.
    """

    name: str
    medium: str
    policy: str
    options: type[Options]
    pipelines: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    more_parts: Callable[[Mapping[str, Any]], tuple[str, ...]] = _no_more
    transformer: str = ""
    libraries: tuple[str, ...] = ("diffusers", "transformers")
    shape: Callable[[ModelConfig, PartConfig, PartConfig], Shape] | None = None
    backbone: Callable[[PartConfig], tuple[int, int]] = backbone
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
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16")
    sampling: tuple[int, float] = (28, 7.0)
    picture: Literal["none", "required", "optional"] = "none"
    picture_tokens: Callable[[ModelConfig], int] = _zero
    time_embedding: Callable[[Mapping[str, Any]], str] = _nowhere

    def open(self, model: ModelConfig, device: str) -> Any:
        """Load a model of this family. `loading.open_policy` does the same with a type."""
        module, name = self.policy.split(":")
        return getattr(import_module(module), name)(model, device)


def misfit(family: Family, image: str | None) -> str | None:
    """What is wrong with a prompt that has this input picture, or none, in words; None if nothing is."""
    if family.picture == "required" and image is None:
        return 'works on an input picture: name it in the record, "image": PATH'
    if family.picture == "none" and image is not None:
        return 'takes no input picture: leave "image" out of the record, or take a model that edits pictures'
    return None


@functools.cache
def families() -> dict[str, Family]:
    """Every family by its name: the folders beside this file, then those of other packages.

    Raises ParetuneError for an entry point that cannot be loaded or whose name is used already.
    """
    package = __name__.rpartition(".")[0]
    folders = [m.name for m in pkgutil.iter_modules(import_module(package).__path__) if m.ispkg]
    known: dict[str, Family] = {}
    for folder in folders:
        family = import_module(f"{package}.{folder}.family").FAMILY
        known[family.name] = family
    for entry in added(GROUP).values():
        family = load_added("the model family", entry)
        if not isinstance(family, Family) or family.name in known:
            what = "has a name that is used already" if isinstance(family, Family) else "is not a Family"
            raise ParetuneError(f"the model family {entry.name} ({entry.value}) {what}")
        known[family.name] = family
    return known


def by_pipeline() -> dict[str, Family]:
    """Class name of a pipeline, as in a model_index.json -> its family."""
    return {pipeline: family for family in families().values() for pipeline in family.pipelines}


def by_hub_id() -> dict[str, Family]:
    """Hub id of a model whose family is known without a query -> its family."""
    return {name: family for family in families().values() for name in (*family.published, *family.known)}


def transformers_of(parts: Iterable[str]) -> list[str]:
    """Those parts of a pipeline that are trained: one transformer, or two for different noise."""
    return [part for part in parts if part in ("transformer", "transformer_2")]
