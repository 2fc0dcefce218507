"""The only table of objectives. Another package adds one through the entry point group below.

    [project.entry-points."paretune.objectives"]
    my_objective = "my_package.my_objective:MyObjective"
"""

from __future__ import annotations

import difflib
from importlib import import_module

from ...foreign.entry_points import added, load_added
from ...types import ParetuneError
from ..preferences.presets import PRESETS
from .base import Objective

GROUP = "paretune.objectives"
# name -> "module of this package:class"
OBJECTIVES: dict[str, str] = {
    "nft": "nft:NFT",
    "awm": "awm:AWM",
    "sft": "sft:SFT",
    "flow_grpo": "flow_grpo:FlowGRPO",
    "tree_grpo": "tree_grpo:TreeGRPO",
    "grpo": "grpo:GRPO",
    "dpo": "preferences:DPO",
    "ipo": "preferences:IPO",
    "hinge": "preferences:Hinge",
    "robust": "preferences:Robust",
    "sppo_hard": "preferences:SPPOHard",
    "apo_zero": "preferences:APOZero",
    "apo_down": "preferences:APODown",
    "simpo": "preferences:SimPO",
    "cpo": "preferences:CPO",
    "kto": "preferences:KTO",
    "orpo": "preferences:ORPO",
    "list_dpo": "pair_losses:ListDPO",
    "ln_dpo": "pair_losses:LNDPO",
    "ld_dpo": "pair_losses:LDDPO",
    "flex_dpo": "pair_losses:FlexDPO",
    "dpo_gamma": "pair_losses:DPOGamma",
    "list_simpo": "pair_losses:ListSimPO",
    "cdpo": "pair_losses:CriticalDPO",
    "tgdpo": "pair_losses:GuidedDPO",
    "madpo_text": "pair_losses:MarginDPO",
    "sem_dpo_text": "pair_losses:SemDPO",
    "asft": "link_losses:ASFT",
    "adpo_text": "link_losses:AnchoredDPO",
    "tree_tpo": "link_losses:TreeTPO",
    "srpo": "link_losses:SRPO",
    "ofs_dpo": "link_losses:OFSDPO",
    "triple_tpo": "link_losses:TripleTPO",
    "symbolic": "link_losses:Symbolic",
    **{name: f"preference:{name}" for name in PRESETS},
}


def objective_names(medium: str | None = None) -> list[str]:
    """The names of all objectives: first ours, then those of other packages.

    medium: a kind of samples; only the objectives that train models which make such samples are named.
    """
    names = list(dict.fromkeys([*OBJECTIVES, *added(GROUP)]))
    return names if medium is None else [name for name in names if _trains(name, medium)]


def find_objective(name: str) -> type[Objective]:
    """The objective of a name. Raises ParetuneError, which suggests the nearest known name."""
    if name in OBJECTIVES:
        module, kind = OBJECTIVES[name].split(":")
        return getattr(import_module(f".{module}", __package__), kind)
    other = added(GROUP).get(name)
    if other is None:
        known = objective_names()
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise ParetuneError(f"objective.name: there is no objective {name}; {hint}")
    found = load_added("objective", other)
    if not (isinstance(found, type) and issubclass(found, Objective)):
        raise ParetuneError(f"objective {name} ({other.value}) is no class made from paretune's Objective")
    return found


def _trains(name: str, medium: str) -> bool:
    try:
        return medium in find_objective(name).trainers
    except ParetuneError:  # of another package and broken; a recipe that names it gets the error
        return False
