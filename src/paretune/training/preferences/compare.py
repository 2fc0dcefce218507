"""The comparisons of `ops.preference_losses` under one signature, in one table.

Shapes: N lists of K samples. A cell of a sample is a list of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ...ops import preference_losses as losses
from ...ops.advantages import group_advantages
from .options import PreferenceOptions


@dataclass(frozen=True)
class Lists:
    """What a comparison sees.

    e: errors of the model in training, [N, K]; of single steps, minus the log-probability. reference: those
    of the anchor, 0 where the system has none. score, soft: [N, K]; soft is the score on the scale of the set
    that soft labels need. quality: [N, K], the weights of a fit. scale: of the implicit rewards. clamp:
    whether they are clamped. faded: a factor of the training's course. baseline: of `kto`, see
    `preference_losses.kto_baseline`; None: that of these lists.
    """

    e: torch.Tensor
    reference: torch.Tensor
    score: torch.Tensor
    soft: torch.Tensor
    quality: torch.Tensor
    scale: float
    options: PreferenceOptions
    clamp: bool = False
    faded: float = 1.0
    baseline: torch.Tensor | None = None

    @property
    def r(self) -> torch.Tensor:
        """The implicit rewards."""
        r = self.reference - self.e
        return losses.clamped(r, self.options.clamp) if self.clamp else r

    @property
    def z(self) -> torch.Tensor:
        """The implicit rewards times the scale."""
        return self.scale * self.r

    @property
    def good(self) -> torch.Tensor:
        """Whether a sample is better than the mean of its list."""
        return self.score > self.score.mean(1, keepdim=True)

    def with_baseline(self) -> Lists:
        """With the baseline that these lists give; chunks of them then use it too."""
        return self if self.baseline is not None else \
            replace(self, baseline=losses.kto_baseline(self.r, self.good))  # fmt: skip


def _smooth(of: Lists) -> torch.Tensor:
    label = losses.soft_labels(of.soft)
    return losses.smooth_loss(of.z, of.score, label, of.options.gamma * of.faded, of.options.tie)


def _kto(of: Lists) -> torch.Tensor:
    baseline = of.with_baseline().baseline
    assert baseline is not None
    return losses.kto_loss(of.r, of.good, of.scale, baseline, of.options.good_weight)


def _anchored(of: Lists) -> torch.Tensor:
    target = losses.list_targets(of.score, of.options.target_temperature)
    return losses.anchored_loss(of.z, target, of.options.tau)


def _linear(of: Lists) -> torch.Tensor:
    return losses.linear_loss(of.e, of.r, of.score, of.scale, of.options.floor, of.options.tie)


def _mapo(of: Lists) -> torch.Tensor:
    return losses.mapo_loss(of.e, of.score, of.scale, of.options.temperature, of.options.tie)


COMPARE: dict[str, Callable[[Lists], torch.Tensor]] = {
    "pair": lambda of: losses.pair_loss(of.z, of.score, of.options.tie),
    "smooth": _smooth,
    "dcg": lambda of: losses.dcg_loss(of.z, of.score, of.options.tie),
    "anchored": _anchored,
    "plackett": lambda of: losses.plackett_loss(of.z, of.score),
    "group": lambda of: losses.group_loss(of.z, group_advantages(of.score)),
    "kto": _kto,
    "hinge": lambda of: losses.hinge_loss(of.r, of.score, of.options.margin, of.options.tie),
    "linear": _linear,
    "fit": lambda of: losses.fit_loss(of.e, of.quality),
    "mapo": _mapo,
}


def reduced(loss: torch.Tensor, valid: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """The mean over lists, of each the mean over its cells that have an order. loss, valid: [L, S].

    weight: [L], multiplies the losses of the lists.
    """
    each = (loss * valid).sum(1) / valid.sum(1).clamp(min=1)
    return (each if weight is None else weight * each).mean()


def softened(e: torch.Tensor, score: torch.Tensor, loser: float) -> torch.Tensor:
    """The errors, unchanged, with the gradient of samples below their list's mean score times `loser`."""
    if loser == 1:
        return e
    share = torch.where(score < score.mean(1, keepdim=True), loser, 1.0)
    return e.detach() + share * (e - e.detach())
