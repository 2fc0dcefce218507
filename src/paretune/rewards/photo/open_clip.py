"""Weights in open_clip's names, read into the CLIP of transformers.

open_clip (github mlfoundations/open_clip) keeps the three projections of an attention in one matrix, and the
projections to features transposed; everything else has another name only. Published files put a prefix
before all names: "model." where imscore saved them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from paretune.foreign.loading import load
from paretune.types import ParetuneError

from ..loaded import check_loaded, refuse_pickles
from ..pinned import pinned

_LAYER = re.compile(r"^(visual\.)?transformer\.resblocks\.(\d+)\.(.+)$")
_INNER = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip
_OUTER = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}
_TURNED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}


def with_names_of_transformers(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """open_clip's tensors as those of CLIPModel; a name that open_clip does not have stays as it is."""
    named: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        layer = _LAYER.match(name)
        if layer:
            tower = "vision_model" if layer[1] else "text_model"
            named |= _in_layer(f"{tower}.encoder.layers.{layer[2]}", layer[3], value)
        elif name in _TURNED:
            named[_TURNED[name]] = value.T.contiguous()
        else:
            named[_OUTER.get(name, name)] = value
    return named


def _in_layer(place: str, name: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
    if name.startswith("attn.in_proj_"):
        kind = name.removeprefix("attn.in_proj_")
        parts = value.chunk(3)
        return {f"{place}.self_attn.{p}_proj.{kind}": t.clone() for p, t in zip("qkv", parts, strict=True)}
    module, _, kind = name.rpartition(".")
    return {f"{place}.{_INNER.get(module, module)}.{kind}": value}


def read_open_clip(
    model: str, base: str, device: str | None = None, revision: str | None = None, prefix: str = "model."
) -> Any:
    """A CLIPModel of transformers, frozen, with the weights of an open_clip model in safetensors.

    model: a hub id or folder with model.safetensors, whose names begin with `prefix`. base: a hub id or
    folder with the CLIP's config.json. Raises ParetuneError for pickles, and for weights that do not fit.
    """
    from transformers import CLIPConfig, CLIPModel

    network: Any = CLIPModel(load(CLIPConfig, base, f"reward model {base}", **pinned(base)))
    found = {
        name.removeprefix(prefix): value.float()
        for name, value in load_file(weights_file(model, revision)).items()
    }
    read_into(network, with_names_of_transformers(found), f"reward model {model}")
    wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return network.eval().requires_grad_(False).to(torch.device(wanted))


def weights_file(model: str, revision: str | None = None, file: str = "model.safetensors") -> Path:
    """The safetensors file of a hub id, a folder, or itself. Raises ParetuneError where there is none."""
    place = Path(model)
    if place.suffix == ".safetensors" and place.is_file():
        return place
    if place.is_dir():
        refuse_pickles(place)
        if (place / file).is_file():
            return place / file
        raise ParetuneError(f"reward model {model} has no {file}")
    from transformers.utils.hub import cached_file

    try:
        found = cached_file(model, file, **pinned(model, revision))
    except OSError as error:
        reason = str(error).strip().split("\n")[0]
        raise ParetuneError(f"reward model {model}: {file} cannot be read: {reason}") from error
    return Path(str(found))


def read_into(network: torch.nn.Module, tensors: dict[str, torch.Tensor], where: str) -> None:
    """Put tensors into a network that they must fit exactly. Raises ParetuneError, naming tensors."""
    own = network.state_dict()
    counters = {name for name in own if name.endswith("position_ids")}  # computed, and not always saved
    mismatched = [name for name, value in tensors.items() if name in own and value.shape != own[name].shape]
    fitting = {n: v for n, v in tensors.items() if n not in mismatched and n not in counters}
    info = network.load_state_dict(fitting, strict=False)
    told = {
        "missing_keys": set(info.missing_keys) - set(mismatched) - counters,
        "unexpected_keys": info.unexpected_keys,
        "mismatched_keys": mismatched,
    }
    check_loaded(told, network, where)
