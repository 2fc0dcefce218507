"""Tables of module names: in the models' original code, which other tools' adapters use, and in diffusers.

There is one table per family, used in both directions: to read adapters of kohya, ComfyUI, XLabs,
musubi-tuner, OneTrainer or the original authors, and to write adapters for these tools. The original code
joins some weights that diffusers splits (queries, keys and values; FLUX's first linear layer), and has the
halves of the last modulation in the other order.

The tables belong to these tools' files, not to the records of `models`: one table serves several records, a
file is read without knowing its family, and `models` imports this room, so it cannot read their records.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

QKV = (1, 1, 1)


@dataclass(frozen=True)
class Original:
    """One module of the original model.

    name: with {i} for the block's number. targets: diffusers' modules, in the order of the original's rows.
    shares: the proportions in which the rows are split.
    swap: whether diffusers has the halves of the rows in the other order: "never", "always", or "halves" for
    a module with two halves (SD3's last block; the other blocks have six parts in the same order).
    """

    name: str
    targets: tuple[str, ...]
    shares: tuple[int, ...] = (1,)
    swap: str = "never"


def _one(pairs: Mapping[str, str]) -> list[Original]:
    return [Original(name, (target,)) for name, target in pairs.items()]


def _qkv(name: str, stem: str, parts: tuple[str, ...] = ("to_q", "to_k", "to_v")) -> Original:
    return Original(name, tuple(f"{stem}.{part}" for part in parts), QKV)


_ADDED = ("add_q_proj", "add_k_proj", "add_v_proj")
_DOUBLE, _SINGLE = "transformer_blocks.{i}", "single_transformer_blocks.{i}"
_FINAL = Original("final_layer.adaLN_modulation.1", ("norm_out.linear",), swap="always")
_LINEAR1 = Original(
    "single_blocks.{i}.linear1",
    (*(f"{_SINGLE}.attn.{part}" for part in ("to_q", "to_k", "to_v")), f"{_SINGLE}.proj_mlp"),
    (1, 1, 1, 4),
)
_TIME = "time_text_embed.timestep_embedder.linear"
_TEXT = "time_text_embed.text_embedder.linear"
_GUIDE = "time_text_embed.guidance_embedder.linear"

TABLES: dict[str, list[Original]] = {
    "flux": [
        _qkv("double_blocks.{i}.img_attn.qkv", f"{_DOUBLE}.attn"),
        _qkv("double_blocks.{i}.txt_attn.qkv", f"{_DOUBLE}.attn", _ADDED),
        _LINEAR1,
        _FINAL,
        *_one({
            "double_blocks.{i}.img_attn.proj": f"{_DOUBLE}.attn.to_out.0",
            "double_blocks.{i}.txt_attn.proj": f"{_DOUBLE}.attn.to_add_out",
            "double_blocks.{i}.img_mlp.0": f"{_DOUBLE}.ff.net.0.proj",
            "double_blocks.{i}.img_mlp.2": f"{_DOUBLE}.ff.net.2",
            "double_blocks.{i}.txt_mlp.0": f"{_DOUBLE}.ff_context.net.0.proj",
            "double_blocks.{i}.txt_mlp.2": f"{_DOUBLE}.ff_context.net.2",
            "double_blocks.{i}.img_mod.lin": f"{_DOUBLE}.norm1.linear",
            "double_blocks.{i}.txt_mod.lin": f"{_DOUBLE}.norm1_context.linear",
            "single_blocks.{i}.linear2": f"{_SINGLE}.proj_out",
            "single_blocks.{i}.modulation.lin": f"{_SINGLE}.norm.linear",
            "img_in": "x_embedder",
            "txt_in": "context_embedder",
            "time_in.in_layer": f"{_TIME}_1",
            "time_in.out_layer": f"{_TIME}_2",
            "vector_in.in_layer": f"{_TEXT}_1",
            "vector_in.out_layer": f"{_TEXT}_2",
            "guidance_in.in_layer": f"{_GUIDE}_1",
            "guidance_in.out_layer": f"{_GUIDE}_2",
            "final_layer.linear": "proj_out",
        }),
    ],
    "hunyuan_video": [
        _qkv("double_blocks.{i}.img_attn_qkv", f"{_DOUBLE}.attn"),
        _qkv("double_blocks.{i}.txt_attn_qkv", f"{_DOUBLE}.attn", _ADDED),
        _LINEAR1,
        _FINAL,
        _qkv(
            "txt_in.individual_token_refiner.blocks.{i}.self_attn_qkv",
            "context_embedder.token_refiner.refiner_blocks.{i}.attn",
        ),
        *_one({
            "double_blocks.{i}.img_attn_proj": f"{_DOUBLE}.attn.to_out.0",
            "double_blocks.{i}.txt_attn_proj": f"{_DOUBLE}.attn.to_add_out",
            "double_blocks.{i}.img_mlp.fc1": f"{_DOUBLE}.ff.net.0.proj",
            "double_blocks.{i}.img_mlp.fc2": f"{_DOUBLE}.ff.net.2",
            "double_blocks.{i}.txt_mlp.fc1": f"{_DOUBLE}.ff_context.net.0.proj",
            "double_blocks.{i}.txt_mlp.fc2": f"{_DOUBLE}.ff_context.net.2",
            "double_blocks.{i}.img_mod.linear": f"{_DOUBLE}.norm1.linear",
            "double_blocks.{i}.txt_mod.linear": f"{_DOUBLE}.norm1_context.linear",
            "single_blocks.{i}.linear2": f"{_SINGLE}.proj_out",
            "single_blocks.{i}.modulation.linear": f"{_SINGLE}.norm.linear",
            "img_in.proj": "x_embedder.proj",
            "time_in.mlp.0": f"{_TIME}_1",
            "time_in.mlp.2": f"{_TIME}_2",
            "vector_in.in_layer": f"{_TEXT}_1",
            "vector_in.out_layer": f"{_TEXT}_2",
            "guidance_in.mlp.0": f"{_GUIDE}_1",
            "guidance_in.mlp.2": f"{_GUIDE}_2",
            "final_layer.linear": "proj_out",
            "txt_in.input_embedder": "context_embedder.proj_in",
            "txt_in.t_embedder.mlp.0": f"context_embedder.{_TIME}_1",
            "txt_in.t_embedder.mlp.2": f"context_embedder.{_TIME}_2",
            "txt_in.c_embedder.linear_1": f"context_embedder.{_TEXT}_1",
            "txt_in.c_embedder.linear_2": f"context_embedder.{_TEXT}_2",
            **{
                f"txt_in.individual_token_refiner.blocks.{{i}}.{ours}":
                    f"context_embedder.token_refiner.refiner_blocks.{{i}}.{theirs}"
                for ours, theirs in (
                    ("self_attn_proj", "attn.to_out.0"), ("mlp.fc1", "ff.net.0.proj"),
                    ("mlp.fc2", "ff.net.2"), ("adaLN_modulation.1", "norm_out.linear"),
                )
            },
        }),
    ],
    "sd3": [
        _qkv("joint_blocks.{i}.x_block.attn.qkv", f"{_DOUBLE}.attn"),
        _qkv("joint_blocks.{i}.x_block.attn2.qkv", f"{_DOUBLE}.attn2"),
        _qkv("joint_blocks.{i}.context_block.attn.qkv", f"{_DOUBLE}.attn", _ADDED),
        Original(
            "joint_blocks.{i}.context_block.adaLN_modulation.1", (f"{_DOUBLE}.norm1_context.linear",),
            swap="halves",
        ),
        _FINAL,
        *_one({
            "joint_blocks.{i}.x_block.attn.proj": f"{_DOUBLE}.attn.to_out.0",
            "joint_blocks.{i}.x_block.attn2.proj": f"{_DOUBLE}.attn2.to_out.0",
            "joint_blocks.{i}.context_block.attn.proj": f"{_DOUBLE}.attn.to_add_out",
            "joint_blocks.{i}.x_block.mlp.fc1": f"{_DOUBLE}.ff.net.0.proj",
            "joint_blocks.{i}.x_block.mlp.fc2": f"{_DOUBLE}.ff.net.2",
            "joint_blocks.{i}.context_block.mlp.fc1": f"{_DOUBLE}.ff_context.net.0.proj",
            "joint_blocks.{i}.context_block.mlp.fc2": f"{_DOUBLE}.ff_context.net.2",
            "joint_blocks.{i}.x_block.adaLN_modulation.1": f"{_DOUBLE}.norm1.linear",
            "x_embedder.proj": "pos_embed.proj",
            "context_embedder": "context_embedder",
            "t_embedder.mlp.0": f"{_TIME}_1",
            "t_embedder.mlp.2": f"{_TIME}_2",
            "y_embedder.mlp.0": f"{_TEXT}_1",
            "y_embedder.mlp.2": f"{_TEXT}_2",
            "final_layer.linear": "proj_out",
        }),
    ],
    "wan": _one({
        **{
            f"blocks.{{i}}.{ours}.{x}": f"blocks.{{i}}.{theirs}.{y}"
            for ours, theirs in (("self_attn", "attn1"), ("cross_attn", "attn2"))
            for x, y in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
        },
        "blocks.{i}.cross_attn.k_img": "blocks.{i}.attn2.add_k_proj",
        "blocks.{i}.cross_attn.v_img": "blocks.{i}.attn2.add_v_proj",
        "blocks.{i}.ffn.0": "blocks.{i}.ffn.net.0.proj",
        "blocks.{i}.ffn.2": "blocks.{i}.ffn.net.2",
        "time_projection.1": "condition_embedder.time_proj",
        "text_embedding.0": "condition_embedder.text_embedder.linear_1",
        "text_embedding.2": "condition_embedder.text_embedder.linear_2",
        "time_embedding.0": "condition_embedder.time_embedder.linear_1",
        "time_embedding.2": "condition_embedder.time_embedder.linear_2",
        "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
        "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
        "patch_embedding": "patch_embedding",
        "head.head": "proj_out",
    }),
}  # fmt: skip
# XLabs trains FLUX's attention processors: their names, and diffusers' modules that they change.
XLABS: list[Original] = [
    _qkv("double_blocks.{i}.processor.qkv_lora1", f"{_DOUBLE}.attn"),
    _qkv("double_blocks.{i}.processor.qkv_lora2", f"{_DOUBLE}.attn", _ADDED),
    _qkv("single_blocks.{i}.processor.qkv_lora", f"{_SINGLE}.attn"),
    *_one({
        "double_blocks.{i}.processor.proj_lora1": f"{_DOUBLE}.attn.to_out.0",
        "double_blocks.{i}.processor.proj_lora2": f"{_DOUBLE}.attn.to_add_out",
        "single_blocks.{i}.processor.proj_lora": f"{_SINGLE}.proj_out",
    }),
]  # fmt: skip


def spelled(pattern: str, number: str, flat: bool = False) -> str:
    """A name of a table with the block's number. flat: with underscores for dots, as kohya writes it."""
    name = pattern.replace("{i}", number)
    return name.replace(".", "_") if flat else name


def matcher(pattern: str, flat: bool = False) -> re.Pattern[str]:
    """A regular expression that matches a name of a table and captures the block's number."""
    text = re.escape(pattern.replace(".", "_") if flat else pattern)
    return re.compile(text.replace(re.escape("{i}"), r"(?P<i>\d+)") + "$")


@dataclass(frozen=True)
class NameMatch:
    """A matched name: its entry in a table, and the number of its block ("" outside the blocks)."""

    original: Original
    number: str

    @property
    def targets(self) -> list[str]:
        """The names in diffusers of the modules that it holds."""
        return [spelled(target, self.number) for target in self.original.targets]


@cache
def _readers(flat: bool) -> list[tuple[re.Pattern[str], Original]]:
    every = [original for table in [*TABLES.values(), XLABS] for original in table]
    return [(matcher(original.name, flat), original) for original in every]


@cache
def _diffusers_readers(flat: bool) -> list[tuple[re.Pattern[str], Original]]:
    targets = dict.fromkeys(t for table in TABLES.values() for o in table for t in o.targets)
    return [(matcher(target, flat), Original(target, (target,))) for target in targets]


def original_of(name: str, flat: bool = False) -> NameMatch | None:
    """The module with that original name, in any family, because the tables do not contradict each other."""
    return _find(_readers(flat), name)


def diffusers_of(name: str, flat: bool = False) -> NameMatch | None:
    """The module with that name in diffusers. flat: with underscores for dots, as OneTrainer writes it."""
    return _find(_diffusers_readers(flat), name)


def _find(table: list[tuple[re.Pattern[str], Original]], name: str) -> NameMatch | None:
    for pattern, original in table:
        match = pattern.match(name)
        if match:
            return NameMatch(original, match.groupdict().get("i") or "")
    return None
