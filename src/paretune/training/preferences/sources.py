"""Where the lists of an epoch come from: the expert's file of preferences, an earlier epoch, or a builder.

A set that is used for several epochs is written into the expert's folder, so that training that was stopped
goes on with the same samples.
"""

from __future__ import annotations

import torch

from ..checkpoint import latest_checkpoint
from .builders import Builder, Made, Maker, caption_lists, from_rollouts, policy_paths
from .candidates import step_candidates
from .file_lists import lists_from_file
from .guided import guided_pairs
from .patches import patch_lists
from .sets import PreferenceSet, forget_sets, load_set, save_set
from .users import user_lists

BUILDERS: dict[str, Builder] = {
    "rollouts": from_rollouts,
    "captions": caption_lists,
    "guided": guided_pairs,
    "candidates": step_candidates,
    "paths": policy_paths,
    "patches": patch_lists,
    "users": user_lists,
}
Held = tuple[int, PreferenceSet | None]  # the epoch that a set was made in, and the set


def lists_of(
    maker: Maker, generator: torch.Generator, held: Held | None
) -> tuple[Made, Held | None]:
    """The lists of the epoch at hand, and what the next epoch may need of them. held: of the epoch before."""
    learner, reuse = maker.learner, maker.options.reuse
    if learner.mixture.pairs is not None:
        return lists_from_file(maker, learner.mixture.pairs, generator), None
    epoch = learner.state.epoch
    first = epoch - epoch % reuse
    if epoch > first:
        lists = held[1] if held is not None and held[0] == first else load_set(learner.folder, first)
        return Made(lists), (first, lists)
    made = BUILDERS[maker.preset.builder](maker, generator)
    if reuse == 1:
        return made, None
    if not learner.crew.leader:
        return made, (epoch, made.lists)
    checkpoint = latest_checkpoint(learner.folder)
    done = 0 if checkpoint is None else int(checkpoint.name.removeprefix("epoch-"))
    forget_sets(learner.folder, done - done % reuse)
    save_set(made.lists, learner.folder, epoch)
    return made, (epoch, made.lists)
