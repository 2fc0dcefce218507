"""`paretune export`: write the aligned model for other tools."""

from __future__ import annotations

from pathlib import Path

from ..adapters.formats import in_format
from ..adapters.original_names import TABLES
from ..adapters.store import cut_to, load_delta, save_delta
from ..config import RunConfig
from ..files import new_folder
from ..models.detect import family_of, resolve_path
from ..models.loading import open_policy
from ..models.weighting import FILE as EMBEDDING
from ..models.whole import add_changes
from ..recipes import load_config
from ..records.manifest import finished, read_manifest
from ..records.seal import check_run
from ..samples.media import medium_of
from ..stages.train_tokens import export_tokens
from ..types import ParetuneError

WITHOUT_T5 = (
    "It has no T5, as in training: load it with text_encoder_3=None, tokenizer_3=None and call it with "
    "max_sequence_length=0."
)


def open_final(run: Path, verify: bool = False) -> tuple[RunConfig, Path]:
    """The recipe and the folder of the final adapter of a finished run.

    The run and its base model are checked against the run's seal. verify: hash every file.
    """
    recipe, final = run / "config.yaml", run / "final"
    if not recipe.exists() or not (final / "manifest.json").exists():
        raise ParetuneError(f"{run} holds no finished run; `paretune run ... --resume` finishes one")
    check_run(run, verify, ("config.yaml", "final"))
    config = load_config(recipe)
    check_run(run, False, (), Path(resolve_path(config.model.path)))
    finished(final, "final", read_manifest(final).get("inputs", ""))
    return config, final


def export_adapter(run: Path, out: Path, rank: int | None, verify: bool = False) -> float:
    """Write the final adapter of a run to a new folder.

    Args:
        run: the folder of the run.
        out: the new folder.
        rank: the rank to compress the adapter to, or None.
        verify: hash every file of the run.

    Returns:
        The relative error of the compression.
    """
    if rank is not None and rank < 1:
        raise ParetuneError(f"--rank {rank} cannot be used; it is at least 1")
    config, final = open_final(run, verify)
    if config.lora is None:
        raise ParetuneError(
            f"{run} trained all weights, so there is no adapter: {final} is the transformer's folder, which "
            "diffusers loads, and --pipeline writes the whole pipeline"
        )
    _refuse_weighted(run, final)
    _new(out)
    deltas = load_delta([final])
    error = 0.0 if rank is None else cut_to(deltas, rank)
    component = medium_of(config.model).component
    with new_folder(out) as made:
        save_delta(made, deltas, config.model.path, {"compression_error": error}, component)
        export_tokens(run, made / "tokens")
    return error


def export_format(run: Path, out: Path, rank: int | None, form: str, verify: bool = False) -> float:
    """Like `export_adapter`, but in a format: peft, diffusers, comfyui or kohya (see `adapters.formats`)."""
    config, _ = open_final(run, verify)
    family = family_of(config.model.path).name
    if medium_of(config.model).component is None and form != "peft":
        raise ParetuneError(f"--format {form} is for diffusion models; a language model's adapter is peft's")
    with in_format(out, form, family if family in TABLES else None) as place:
        return export_adapter(run, place, rank)


def export_pipeline(run: Path, out: Path, verify: bool = False) -> bool:
    """Write the base pipeline or language model, as the run used it, with the adapter folded in.

    Returns whether it has all its text encoders. Without T5 (model.options.load_t5 is false, or the base has
    none) diffusers loads the folder only with the arguments `text_encoder_3=None, tokenizer_3=None`.
    """
    config, final = open_final(run, verify)
    _refuse_weighted(run, final)
    _new(out)
    policy = open_policy(config.model)
    add_changes(policy.transformer, [final])
    with new_folder(out) as made:
        whole = policy.save_pretrained(made)
        export_tokens(run, made / "tokens")
    return whole


def _refuse_weighted(run: Path, final: Path) -> None:
    """Raise ParetuneError for a model that is given weights, which no adapter or pipeline holds."""
    if (final / EMBEDDING).is_file():
        raise ParetuneError(
            f"{run}: the model of its first method is given weights of the rewards, which other tools cannot "
            f"do; draw with `paretune sample {run} --prefer ..`, or put another method first"
        )


def _new(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise ParetuneError(f"{out} exists; give a new folder")
