"""Put prompts aside of a recipe's training sets, to measure trials on.

A joint policy and an expert that leans train on the prompts of other rewards too, and sets overlap. So a
prompt that is put aside of one set is put aside of all, and of every file of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..config import RunConfig
from ..data.hub import PREFIX
from ..data.preferences import with_whole_paths
from ..data.prompts import load_prompts
from ..files import write_rows
from ..planning.plan import derive_seed
from ..stages.prompt_checks import teaches
from ..types import ParetuneError, Prompt, as_recorded

Key = tuple[str, Any]  # a prompt's text, and its input picture


def hold_out(config: RunConfig, count: int, folder: Path) -> RunConfig:
    """The recipe for trials: its training sets without `count` prompts each or some more, which are measured.

    Judges and untargeted rewards are left out. A set of one or two prompts is trained on and measured.

    Args:
        config: the recipe.
        count: prompts that are measured for each reward, at most a third of its set.
        folder: where the parts are written, as files of prompts.

    Raises:
        ParetuneError: if nothing is left to train on.
    """
    sets = {name: load_prompts(own.prompts) for name, own in config.rewards.items()}
    aside = put_aside(list(sets.values()), count, config.seed)
    rewards = {}
    for name, own in config.rewards.items():
        train = [prompt for prompt in sets[name] if key_of(prompt) not in aside]
        if own.prompts.startswith(PREFIX):  # a run takes these of the hub, but not of a file, which this is
            train = [prompt for prompt in train if teaches(config, name, prompt)]
        held = [prompt for prompt in sets[name] if key_of(prompt) in aside]
        if not train:
            raise ParetuneError(
                f"rewards.{name}.prompts: every prompt of {own.prompts} is put aside to measure on; give "
                "fewer as --prompts"
            )
        # A set that is too small to be divided is measured where it is trained.
        parts = {"train": train, "validation": held or list(train[:count])}
        files = {part: folder / f"{name}-{part}.jsonl" for part in parts}
        for part, prompts in parts.items():
            write_rows(files[part], [dict(_record(prompt)) for prompt in prompts])
        changes: dict[str, str | None] = {
            "prompts": str(files["train"]), "eval_prompts": str(files["validation"]),
        }  # fmt: skip
        if config.stop_when is None or config.stop_when.judge is None:  # nothing asks it
            changes["judge"] = None
        if own.pairs:
            changes["pairs"] = _without(own.pairs, aside, folder / f"{name}-pairs.jsonl")
        rewards[name] = own.model_copy(update=changes)
    settings = {"prompts": count, "judges": False, "untargeted": (), "lattice": 0}
    evaluate = config.evaluate.model_copy(update=settings)
    return config.model_copy(update={"rewards": rewards, "evaluate": evaluate, "tokens": None})


def put_aside(sets: Sequence[Sequence[Prompt]], count: int, seed: int) -> set[Key]:
    """Prompts to measure on: of each set `count`, at most a third of it, and where it can be the same of all.

    The smallest set chooses first. A later one takes what it shares of that, and fills up with prompts that
    no earlier set has, as far as there are some.
    """
    aside, seen = set[Key](), set[Key]()
    for prompts in sorted(sets, key=len):
        order = torch.randperm(
            len(prompts), generator=torch.Generator().manual_seed(derive_seed(seed, "split"))
        ).tolist()
        keys = list(dict.fromkeys(key_of(prompts[i]) for i in order))
        missing = min(count, len(keys) // 3) - sum(key in aside for key in keys)
        free = [key for key in keys if key not in aside]
        free.sort(key=lambda key: key in seen)  # stable: those that are in no earlier set come first
        aside.update(free[: max(0, missing)])
        seen.update(keys)
    return aside


def key_of(prompt: Prompt) -> Key:
    """What makes two prompts the same."""
    return str(prompt.text), prompt.metadata.get("image")


def _without(pairs: str, aside: set[Key], file: Path) -> str:
    """A copy of a file of pairs without those of some prompts. Returns its name."""
    texts = {text for text, _ in aside}
    kept = [record for text, record in with_whole_paths(pairs) if text not in texts]
    if not kept:
        raise ParetuneError(f"{pairs}: every list is of a prompt that is put aside; give fewer as --prompts")
    write_rows(file, kept)
    return str(file)


def _record(prompt: Prompt) -> Mapping[str, Any]:
    """The record that reads as this prompt: a conversation by its turns."""
    kept = dict(prompt.metadata)
    for key in ("messages", "conversations"):  # they would be read in place of a prompt that stands there
        kept.pop(key, None)
    return {**kept, "prompt": as_recorded(prompt.text)}
