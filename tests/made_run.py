"""A finished run that nothing trained: random experts in the folders of its plan."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from paretune.adapters.store import save_delta, sum_deltas
from paretune.config import RunConfig
from paretune.files import read_json, write_json, write_rows, write_text
from paretune.ops.lowrank import LowRank
from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.records.manifest import write_manifest
from paretune.reward_tokens.files import EMBEDDING, Token, write_token
from paretune.samples.media import medium_of
from paretune.sampling.command import sample_folder
from paretune.sampling.source import open_source
from tests.conftest import tiny_recipe
from tests.language import language_recipe

Deltas = dict[str, LowRank]
# The rewards of these runs are files of our own, which may be run.
open_trusted = functools.partial(open_source, trust_rewards=True)
sample_trusted = functools.partial(sample_folder, trust_rewards=True)
# Of the tiny models of conftest: all are 16 wide.
MODULES = {
    "flow": tuple(f"transformer_blocks.0.attn.{name}" for name in ("to_q", "to_v", "to_out.0", "add_k_proj")),
    "texts": tuple(f"model.layers.{i}.self_attn.{name}_proj" for i in (0, 1) for name in "qvo"),
}


def make_run(folder: Path, pipeline: Path, **changes: object) -> Path:
    """A run of the recipe of `tiny_recipe`: experts, averages, final/, evaluation and summary."""
    return fill_run(folder, tiny_recipe(folder.parent / f"{folder.name}-recipe", pipeline, **changes))


def make_clips_run(folder: Path, pipeline: Path) -> Path:
    """The same of a tiny HunyuanVideo: clips of 5 frames."""
    model = {"height": 16, "width": 16, "options": {"frames": 5, "max_sequence_length": 16}}
    return make_run(folder, pipeline, model=model)


def make_texts_run(folder: Path, model: Path, **changes: object) -> Path:
    """The same of a tiny language model, by the recipe of `language_recipe`."""
    return fill_run(folder, language_recipe(folder.parent / f"{folder.name}-recipe", model, **changes))


def fill_run(folder: Path, recipe: Path) -> Path:
    """Everything that a run of the recipe would leave, made up."""
    config = load_config(recipe)
    medium = medium_of(config.model)
    modules = MODULES.get(medium.name, MODULES["flow"])
    folder.mkdir(parents=True)
    write_text(folder / "config.yaml", config.to_yaml())
    written: dict[str, Deltas] = {}
    for method in build_plan(config).methods:
        for round_ in method.rounds:
            for task in round_.tasks:
                written[task.folder] = _random(modules, len(written))
                _save(folder / task.folder, written[task.folder], "expert", medium.component)
            experts = [written[task.folder] for task in round_.tasks]
            written[round_.merged] = sum_deltas(experts, round_.weights)
            _save(folder / round_.merged, written[round_.merged], "merged", medium.component)
    final = sum_deltas([written[name] for name in build_plan(config).methods[0].model])
    _save(folder / "final", final, "final", medium.component)
    _tables(folder, config)
    return folder


def make_tokens(run: Path, pipeline: Path) -> None:
    """A random reward token a reward, in final/tokens of a made run."""
    generator = torch.Generator().manual_seed(0)
    for reward in load_config(run / "config.yaml").rewards:
        vectors = {}
        for name in ("text_encoder", "text_encoder_2"):
            width = read_json(pipeline / name / "config.json")["hidden_size"]
            vectors[name] = torch.randn((1, width), generator=generator)
        write_token(run / "final" / "tokens" / reward, Token(reward, vectors))


def make_texts_tokens(run: Path, width: int = 16) -> None:
    """The same for a run of a tiny language model: tokens of one vector."""
    generator = torch.Generator().manual_seed(0)
    for reward in load_config(run / "config.yaml").rewards:
        rows = torch.randn((1, width), generator=generator)
        write_token(run / "final" / "tokens" / reward, Token(reward, {EMBEDDING: rows}))


def _random(modules: tuple[str, ...], seed: int) -> Deltas:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: LowRank(*(torch.randn(shape, generator=generator) * 0.5 for shape in ((16, 2), (2, 16))))
        for name in modules
    }


def _save(folder: Path, deltas: Deltas, stage: str, component: str | None) -> None:
    folder.mkdir(parents=True)
    files = save_delta(folder, deltas, "tiny", {}, component)
    write_manifest(folder, stage, "made", files)


def _tables(folder: Path, config: RunConfig) -> None:
    """What evaluation would have measured: figures made up here, for the tests of those who read them."""
    rewards = list(config.rewards)
    points = {"base": (0.2, 0.3), f"expert:{rewards[0]}": (0.8, 0.2), f"expert:{rewards[1]}": (0.15, 0.85),
              "rewarded_soup": (0.5, 0.6), "mapreduce@1": (0.4, 0.5), "mapreduce": (0.6, 0.7)}  # fmt: skip
    means = {name: dict(zip(rewards, values, strict=True)) for name, values in points.items()}
    write_json(folder / "summary.json", {
        "rewards": rewards, "methods": means, "higher_is_better": dict.fromkeys(rewards, True),
        "stderr": {name: dict.fromkeys(rewards, 0.02) for name in means},
    })  # fmt: skip
    write_rows(folder / "evaluation.jsonl", [
        {"method": f"mapreduce@{config.rounds}", "preference": [share, 1 - share], "lattice": True,
         "prompt": "a red circle", "prompt_set": reward, "reward": reward, "kind": "reward",
         "seed": 0, "value": 0.1 + 0.8 * (share if reward == rewards[0] else 1 - share)}
        for share in (1.0, 0.0) for reward in rewards
    ])  # fmt: skip
