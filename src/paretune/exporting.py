"""`paretune export`: the aligned model for other tools."""

from __future__ import annotations

from pathlib import Path

import yaml

from .config import RunConfig
from .files import finished, read_json
from .policies.adapters import fold
from .policies.folders import family_of
from .policies.media import medium_of
from .policies.opening import open_policy
from .policies.original_names import TABLES
from .recipes import parse_config
from .stages.adapters import cut_to, load_delta, save_delta
from .stages.formats import in_format
from .stages.tokens import export_tokens
from .types import ParetuneError

WITHOUT_T5 = (
    "It has no T5, as in training: load it with text_encoder_3=None, tokenizer_3=None and call it with "
    "max_sequence_length=0."
)


def open_final(run: Path) -> tuple[RunConfig, Path]:
    """The recipe and the checked final adapter of a finished run."""
    recipe, final = run / "config.yaml", run / "final"
    if not recipe.exists() or not (final / "manifest.json").exists():
        raise ParetuneError(f"{run} holds no finished run; `paretune run ... --resume` finishes one")
    finished(final, "final", read_json(final / "manifest.json")["inputs"])
    return parse_config(yaml.safe_load(recipe.read_text()), str(recipe)), final


def export_adapter(run: Path, out: Path, rank: int | None) -> float:
    """Write the final adapter to a new folder; returns the relative error of the compression."""
    config, final = open_final(run)
    _new(out)
    deltas = load_delta([final])
    error = 0.0 if rank is None else cut_to(deltas, rank)
    component = medium_of(config.model).component
    save_delta(out, deltas, config.model.path, {"compression_error": error}, component)
    export_tokens(run, out / "tokens")
    return error


def export_format(run: Path, out: Path, rank: int | None, form: str) -> float:
    """`export_adapter` in one tool's format: peft, diffusers, comfyui or kohya (see `stages.formats`)."""
    config, _ = open_final(run)
    family = family_of(config.model.path).name
    if medium_of(config.model).component is None and form != "peft":
        raise ParetuneError(f"--format {form} is for diffusion models; a language model's adapter is peft's")
    with in_format(out, form, family if family in TABLES else None) as place:
        return export_adapter(run, place, rank)


def export_pipeline(run: Path, out: Path) -> bool:
    """Write the base pipeline or language model, as the run used it, with the adapter folded in.

    Returns whether it has all its text encoders. Without T5 (model.options.load_t5 is false, or the base has
    none) diffusers loads the folder only when told `text_encoder_3=None, tokenizer_3=None`.
    """
    config, final = open_final(run)
    _new(out)
    policy = open_policy(config.model)
    fold(policy.transformer, load_delta([final]))
    whole = policy.save_pretrained(out)
    export_tokens(run, out / "tokens")
    return whole


def _new(out: Path) -> None:
    if out.exists():
        raise ParetuneError(f"{out} exists; give a new folder")
