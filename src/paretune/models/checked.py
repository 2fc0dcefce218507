"""Strict loading of other people's weights: every tensor comes from a file, is used, and is finite.

The libraries fill tensors that a file lacks with random values and ignore unknown tensors. Here both are
refused by name, and so are tensors of another shape and values that are NaN or infinite. The check of the
values reads each once, which takes about a second for 5 GB in memory on one core.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..foreign.loading import load
from ..foreign.weights import check_keys, not_finite
from ..types import ParetuneError
from .memory import out_of_memory

MOST = 300  # characters that are shown of a library's error


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Turn any error that a library raises for a damaged model into a ParetuneError of one line.

    A damaged folder may raise any exception, so no list of exceptions is complete. Lack of memory is raised
    unchanged: `memory.memory_errors` says what would fit.

    what: the beginning of the line.
    """
    try:
        yield
    except ParetuneError:
        raise
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # raised by a library in Rust; not an Exception
        if not panic and (not isinstance(error, Exception) or out_of_memory(error)):
            raise
        raise ParetuneError(f"{what}: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """The message of an error in one line, shortened to MOST characters."""
    message = " ".join(str(error).split()) or type(error).__name__
    message = f"{type(error).__name__}: {message}" if isinstance(error, KeyError | IndexError) else message
    return message if len(message) <= MOST else f"{message[: MOST - 3]}..."


def load_checked(kind: Any, place: str, what: str, **options: Any) -> Any:
    """`kind.from_pretrained(place)` of diffusers or transformers, from safetensors, with checks.

    Args:
        kind: the class of the model.
        place: a folder or a hub id.
        what: the beginning of the error message.
        **options: further arguments of `from_pretrained`.

    Returns:
        The model.

    Raises:
        ParetuneError: the model cannot be loaded, or its weights are incomplete or not finite.
    """
    with loading(f"{what} cannot be loaded"):
        model, info = load(
            kind, place, what,
            use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **options,
        )  # fmt: skip
    check_keys(info, what, whole=_is_whole(model))
    check_finite(model, what)
    return model


def _is_whole(model: Any) -> bool:
    """Whether its files hold this model only, as those of diffusers do."""
    return not hasattr(model, "get_input_embeddings")


def check_finite(model: nn.Module, what: str) -> None:
    """Raise ParetuneError where a weight is NaN or infinite."""
    for name in not_finite(model):
        raise ParetuneError(f"{what}: its weights hold NaN or infinite values in {name}")
