"""Load other people's weights without guessing: nothing is drawn at random, left out, or not a number.

The libraries fill tensors that a file lacks with random values and pass over those that they do not know.
Here both are refused by name, and so are tensors of another shape and values that are NaN or infinite.
Looking at the values reads each once: about a second for 5 GB in memory on one core.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..foreign.loading import load
from ..types import ParetuneError
from .memory import out_of_memory

# What a file may hold beside a model: constants that older versions of the libraries wrote, and the other
# towers and heads of the model that a text encoder, or a language model, was taken from.
CONSTANTS = re.compile(r"(^|\.)(position_ids|inv_freq|masked_bias|attn\.bias)$")
OTHERS = re.compile(
    r"^(model\.)?(vision_model|vision_tower|visual|visual_projection|text_projection|multi_modal_projector|"
    r"logit_scale|logit_bias|lm_head|decoder|v_head|mtp)(\.|$)"
)
MOST = 300  # characters of a library's reason
SHOWN = 3  # names of tensors


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Turn whatever a library raises over a damaged model into one line. what: begins it.

    A model's folder is a stranger's: no list of exceptions holds all that a damage may raise. Lack of memory
    is left to whoever knows what would fit.
    """
    try:
        yield
    except ParetuneError:
        raise
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # of a library in Rust, no Exception
        if not panic and (not isinstance(error, Exception) or out_of_memory(error)):
            raise
        raise ParetuneError(f"{what}: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """An error in one line."""
    told = " ".join(str(error).split()) or type(error).__name__
    told = f"{type(error).__name__}: {told}" if isinstance(error, KeyError | IndexError) else told
    return told if len(told) <= MOST else f"{told[: MOST - 3]}..."


def load_checked(kind: Any, place: str, what: str, **options: Any) -> Any:
    """`kind.from_pretrained(place)` of diffusers or transformers, from safetensors, checked.

    what: begins the line of the ParetuneError that tells what is wrong.
    """
    with loading(f"{what} cannot be loaded"):
        model, told = load(
            kind, place, what,
            use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **options,
        )  # fmt: skip
    check_keys(told, what, whole=_is_whole(model))
    check_finite(model, what)
    return model


def _is_whole(model: Any) -> bool:
    """Whether the files can be of nothing but this model: those of diffusers."""
    return not hasattr(model, "get_input_embeddings")


def check_keys(told: dict[str, Any], what: str, whole: bool) -> None:
    """Raise ParetuneError for tensors that are missing, of another shape or unknown.

    told: a library's loading info. whole: the files hold no part of another model.
    """
    if told["mismatched_keys"]:
        name, found, wanted = sorted(told["mismatched_keys"])[0]
        raise ParetuneError(
            f"{what}: its weights do not fit its config.json: {name} is {list(found)}, not {list(wanted)}"
        )
    if told["missing_keys"]:
        raise ParetuneError(f"{what}: its weights lack {_names(told['missing_keys'])}; get its files again")
    unknown = [
        key for key in told["unexpected_keys"]
        if not CONSTANTS.search(key) and (whole or not OTHERS.match(key))
    ]  # fmt: skip
    if unknown:
        raise ParetuneError(
            f"{what}: its weights hold {_names(unknown)}, which the model of its config.json does not have"
        )
    if told.get("error_msgs"):
        raise ParetuneError(f"{what} cannot be loaded: {' '.join(str(told['error_msgs'][0]).split())}")


def _names(keys: Iterable[str]) -> str:
    names = sorted(keys)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def check_finite(model: nn.Module, what: str) -> None:
    """Raise ParetuneError where a weight is NaN or infinite. One pass over memory, without a copy of it."""
    for name, tensor in model.state_dict().items():
        # Eight-bit floats have no minimum in torch, and no model of ours is computed in them.
        if tensor.is_floating_point() and tensor.numel() and tensor.element_size() > 1:
            low, high = torch.aminmax(tensor)
            if not bool(torch.isfinite(low) & torch.isfinite(high)):
                raise ParetuneError(f"{what}: its weights hold NaN or infinite values in {name}")
