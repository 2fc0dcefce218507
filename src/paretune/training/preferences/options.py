"""All options of the preference objectives. A preset reads some of them; it refuses the others.

`kind_of` makes the class of a preset's options: the fields that it reads, with its own defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from ...limits import NonNegative, Positive, PositiveReal, Share
from ..objectives.base import Options
from ..objectives.forward import ForwardOptions

Target = Literal["fresh", "kept", "inverted", "inverted_ref", "recorded", "step"]
Unit = Annotated[float, Field(ge=0, le=1)]


class PreferenceOptions(ForwardOptions):
    """Every option that some preset reads, with the default of those that do not say another."""

    beta: PositiveReal = Field(default=500.0, description="scale of the implicit reward, as published")
    pairs: Literal["best_worst", "all"] = Field(
        default="best_worst", description="which of a group are compared; all: or `train.keep`"
    )
    target: Target = Field(
        default="fresh", description="where samples are looked at: at fresh noise, at the noise that they "
        "came from (kept), or on their inverted path"
    )  # fmt: skip
    noise: Literal["shared", "own"] = Field(
        default="shared", description="fresh noise: the same for all samples of a list, or one each"
    )
    levels: Literal["uniform", "logit"] = Field(
        default="uniform", description="how noise levels are distributed; logit: logit-normal"
    )
    reweight: Literal["none", "noise", "sample"] = Field(
        default="none", description="factor on the errors: noise, (1 - sigma)^2; sample, sigma^2"
    )
    reuse: Positive = Field(
        default=1, description="epochs that a set of samples is trained on before new ones are drawn"
    )
    tie: NonNegative = Field(default=0.0, description="scores that differ by no more have no order")
    loser: Unit = Field(
        default=1.0, description="factor on the gradient of samples below their list's mean; 1: as published"
    )
    gamma: PositiveReal = Field(default=10.0, description="factor on the soft label's distance from 1/2")
    delta: PositiveReal = Field(
        default=1.0, description="slope of the soft label by the gap of the scores, in units of the gaps' rms"
    )
    fade: bool = Field(default=False, description="let the factor fall from 1 to 1/2 over the training")
    tau: PositiveReal = Field(default=0.8, description="temperature of the model's distribution over a list")
    target_temperature: PositiveReal = Field(
        default=0.5, description="temperature of the distribution that the scores give"
    )
    margin: NonNegative = Field(default=0.001, description="the gap at which the hinge stops")
    floor: Share = Field(default=0.01, description="least weight of a pair; the greatest is 1 less it")
    temperature: PositiveReal = Field(default=1000.0, description="scale of the errors' ratio")
    good_weight: PositiveReal = Field(default=1.0, description="weight of the desired samples")
    drop: Unit = Field(default=0.1, description="share of the lists that are trained without a user's token")
    alpha: NonNegative = Field(
        default=1.0, description="how fast a pair's weight falls as its caption leaves the prompt"
    )
    least: Share = Field(default=0.5, description="scale of great margins, below 1")
    most: Annotated[PositiveReal, Field(gt=1)] = Field(
        default=2.0, description="scale of small margins, above 1"
    )
    slope: PositiveReal = Field(default=1.0, description="how fast the scale changes with the margin")
    at: PositiveReal = Field(default=2.0, description="the margin at which the scale is 1, in gaps' rms")
    clamp: Share = Field(default=0.1, description="ratios to the reference are held within 1 -+ this")
    sampler: Literal["sde", "cps", "dance"] = Field(default="sde", description="stochastic steps")
    noise_level: PositiveReal = Field(default=0.7, description="eta of the stochastic steps")
    window: tuple[int, int] | None = Field(
        default=None, description="[first, last) stochastic, trained steps; default all but the last, and of "
        "candidates not the first fifth"
    )  # fmt: skip
    candidates: Annotated[Positive, Field(ge=2, le=100)] = Field(
        default=4, description="samples drawn from one state at each step of the window"
    )
    threshold: Unit = Field(
        default=0.3, description="a step is trained on if the softmax of its scores, in units of their "
        "deviation, differs by more between best and worst"
    )  # fmt: skip
    grid: Annotated[Positive, Field(le=1000)] = Field(
        default=9, description="steps of an inversion; only its levels are trained on"
    )
    renoise: bool = Field(default=False, description="average two velocities in each step of an inversion")
    inverted_by: Literal["policy", "reference"] = Field(
        default="policy", description="the model that inverts: the one at the epoch's start, or the anchor"
    )
    eta: tuple[Unit, Unit] = Field(
        default=(0.65, 0.8), description="noise level from which both samples of a pair are drawn again"
    )
    segment: Positive | None = Field(
        default=None, description="frames of a clip that are scored together; default a fifth, at least three"
    )
    recorded: Positive = Field(default=4, description="states that are kept of each path of the policy")

    @classmethod
    def of(cls, given: Options, defaults: Mapping[str, Any]) -> PreferenceOptions:
        """All options: the values of a preset's options, and its defaults for what it does not read."""
        return cls.model_validate({**defaults, **given.model_dump()})


def kind_of(name: str, reads: tuple[str, ...], defaults: Mapping[str, Any]) -> type[Options]:
    """The options of one preset.

    Args:
        name: the preset.
        reads: the names of the fields.
        defaults: those that are not `PreferenceOptions`' own.
    """
    fields: dict[str, Any] = {}
    for key in reads:
        field = copy(PreferenceOptions.model_fields[key])
        if key in defaults:
            field.default = defaults[key]
        fields[key] = (field.annotation, field)
    kind: type[Options] = create_model(f"{name}_options", __base__=Options, **fields)
    kind.__doc__ = f"Options of `{name}`."
    return kind
