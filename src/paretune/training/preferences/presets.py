"""The preference systems as compositions of a few parts: one literal table.

Sources and formulas are in `ops.preference_losses` and on the page docs/preferences.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Builder = Literal["rollouts", "captions", "guided", "candidates", "paths", "patches", "users", "file"]
Compare = Literal[
    "pair", "smooth", "dcg", "anchored", "plackett", "group", "kto", "hinge", "linear", "fit", "mapo"
]


@dataclass(frozen=True)
class Composition:
    """One system.

    compare: the comparison of a list (`compare.COMPARE`). reads: its own options; `common` adds those of its
    target. builder: where its lists come from (`builders.BUILDERS`). targets: where samples may be looked at;
    the first is the default. cells: the parts of a sample that are lists of their own. scores: "raw", or
    "wins" for the share of rivals beaten. weight: of a list, see
    `weights.WEIGHTS`. half: whether the scale is beta / 2.
    reference: whether the loss reads the anchor. files: whether lists may come from `rewards.NAME.pairs`.
    defaults: of options, where they differ.
    """

    compare: Compare = "pair"
    reads: tuple[str, ...] = ("beta", "pairs", "loser")
    builder: Builder = "rollouts"
    targets: tuple[str, ...] = ("fresh", "kept", "inverted")
    cells: Literal["whole", "frames", "patches"] = "whole"
    scores: Literal["raw", "wins"] = "raw"
    weight: Literal["margin", "semantic"] | None = None
    half: bool = True
    reference: bool = True
    files: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> bool:
        """Whether it trains on the steps of a stochastic sampler, not on noised samples."""
        return self.targets == ("step",)

    @property
    def all_reads(self) -> tuple[str, ...]:
        """The options that it reads."""
        common: tuple[str, ...] = ("reuse", "tie")
        if self.steps:
            return (*self.reads, "clamp", "sampler", "noise_level", "window", *common)
        common += ("times", "levels", "time_shift", "reweight")
        if len(self.targets) > 1:
            common += ("target",)
        if "fresh" in self.targets:
            common += ("noise",)
        if "inverted" in self.targets:
            common += ("grid", "renoise", "inverted_by")
        return (*self.reads, *common)

    @property
    def all_defaults(self) -> dict[str, Any]:
        """The defaults of options that are not the common ones."""
        return {"target": self.targets[0], **self.defaults}


_LISTS = ("beta", "pairs")
_MARGIN = ("least", "most", "slope", "at")
_STEPS = {"beta": 10.0}
_INVERTED = ("inverted", "fresh", "kept")

PRESETS: dict[str, Composition] = {
    "diffusion_dpo": Composition(),
    "rank_dpo": Composition(
        "dcg", _LISTS, scores="wins", half=False, defaults={"pairs": "all", "noise": "own"}
    ),
    "smpo": Composition(
        "smooth", ("beta", "pairs", "gamma", "loser"), targets=_INVERTED, defaults={"renoise": True}
    ),
    "inversion_dpo": Composition(
        targets=("inverted", "inverted_ref"), defaults={"inverted_by": "reference"}
    ),
    "dense_dpo": Composition(
        builder="guided", cells="frames", targets=("fresh",),
        reads=("beta", "loser", "eta", "segment"), defaults={"levels": "logit"},
    ),
    "spo": Composition(
        builder="candidates", targets=("step",), reads=("beta", "candidates", "threshold"), half=False,
        files=False, defaults=_STEPS,
    ),
    "d3po": Composition(
        targets=("step",), reads=("beta", "pairs"), half=False, files=False, defaults=_STEPS
    ),
    "patch_dpo": Composition(
        "fit", (), builder="patches", targets=("fresh",), cells="patches", reference=False
    ),
    "dro": Composition("hinge", ("margin", "recorded"), builder="paths", targets=("recorded",), half=False),
    "dcpo": Composition(builder="captions", targets=("fresh", "inverted")),
    "tpo": Composition(
        builder="captions", reads=("beta", "loser"), targets=("fresh", "inverted"), files=False
    ),
    "tkto": Composition(
        "kto", ("beta", "good_weight"), builder="captions", targets=("fresh",), files=False, half=False,
        defaults={"beta": 1000.0},
    ),
    "ppd": Composition(
        builder="users", reads=("beta", "loser", "drop"), targets=("fresh",), files=False
    ),
    "madpo": Composition(reads=("beta", "pairs", "loser", *_MARGIN), weight="margin"),
    "adpo": Composition(
        "anchored", (*_LISTS, "tau", "target_temperature"), defaults={"pairs": "all"}
    ),
    "sem_dpo": Composition(
        builder="file", reads=("beta", "loser", "alpha"), targets=("fresh", "inverted"), weight="semantic"
    ),
    "pnapo": Composition(
        "smooth", ("beta", "pairs", "gamma", "delta", "fade", "loser"), targets=("kept",), files=False,
        defaults={"gamma": 1.0, "fade": True, "beta": 5000.0},
    ),
    "dgpo": Composition("group", _LISTS, half=False, defaults={"beta": 100.0, "pairs": "all"}),
    "lpo_list": Composition("plackett", _LISTS, defaults={"pairs": "all"}),
    "linear_dpo": Composition("linear", ("beta", "pairs", "floor"), half=False),
    "diffusion_kto": Composition(
        "kto", (*_LISTS, "good_weight"), half=False, defaults={"beta": 1000.0, "pairs": "all"}
    ),
    "mapo": Composition(
        "mapo", ("beta", "pairs", "temperature"), reference=False, half=False, targets=("fresh",),
        defaults={"beta": 0.1},
    ),
}  # fmt: skip
