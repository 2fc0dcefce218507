"""Watch the metrics of one expert: tell signs of hacking, and stop it where the recipe says so (`stop_when`).

The metrics of an epoch are of the weights with which it began. The best weights are therefore those with
which the last epoch within the limits began. Whether to stop follows from the rows of metrics alone, so that
training that is resumed stops at the same epoch with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..config import StopConfig
from ..ops.signs import judge_fell, share_of_start, signs
from ..planning.plan import ExpertTask
from .checkpoint import TrainState

Rows = Sequence[Mapping[str, Any]]


class Guard:
    """The watch over one expert. `state.best` holds the best weights where the recipe has limits.

    stopped: why training was stopped, or "".
    """

    def __init__(
        self, limits: StopConfig | None, task: ExpertTask, state: TrainState, averaged: bool
    ) -> None:
        """averaged: whether the expert is the moving average of its weights."""
        self.limits, self.task, self.state, self.averaged = limits, task, state, averaged
        self.stopped = ""
        self._start: dict[str, torch.Tensor] = {}
        self._told: set[str] = set()

    def resume(self, rows: Rows) -> None:
        """Take the rows of the epochs that are done."""
        self._told = {sign.kind for sign in signs(rows)}
        self.stopped = self._why(rows)

    def begin(self) -> None:
        """Keep the weights with which an epoch begins."""
        if self.limits is not None:
            values = self.state.ema if self.averaged else self.state.parameters
            self._start = {name: value.detach().clone() for name, value in values.items()}

    def look(
        self, rows: Rows, report: Callable[[dict[str, Any]], None],
        agreed: Callable[[bool], bool] = bool,
    ) -> None:  # fmt: skip
        """Look at the rows after an epoch: tell what is new, and keep the weights or stop.

        agreed: what processes that train together decide, from what each of them says.
        """
        for sign in signs(rows):
            if sign.kind not in self._told:
                self._told.add(sign.kind)
                report({"notice": f"{self.task.folder}: epoch {sign.epoch}: {sign.text}"})
        if self.limits is None:
            return
        if agreed(beyond(rows, len(rows) - 1, self.limits) is None) or not self.state.best:
            self.state.best = self._start
        why = self._why(rows)
        self.stopped = (why or "stopped by stop_when") if agreed(bool(why)) else ""
        if self.stopped:
            report({"notice": f"{self.task.folder}: {self.stopped}"})

    def values(self, usual: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """The expert's weights: the usual ones, or the best ones where training was stopped."""
        return self.state.best if self.stopped else usual

    def _why(self, rows: Rows) -> str:
        if self.limits is None or not rows:
            return ""
        last = range(len(rows) - self.limits.patience, len(rows))
        told = [beyond(rows, i, self.limits) for i in last if i >= 0]
        if len(told) < self.limits.patience or None in told:
            return ""
        return (
            f"stopped after epoch {rows[-1]['update']} of {self.task.epochs} by stop_when: {told[-1]}; the "
            "expert is that of the last epoch within the limits"
        )


def beyond(rows: Rows, index: int, limits: StopConfig) -> str | None:
    """What is beyond the limits in one row, in words; None where nothing is."""
    row = rows[index]
    diversity = share_of_start(rows, row, "diversity")
    if limits.diversity is not None and diversity is not None and diversity < limits.diversity:
        return f"diversity is {diversity:.2f} of that of the first epochs, below {limits.diversity:g}"
    if limits.kl is not None and (row.get("kl") or 0.0) > limits.kl:
        return f"KL is {row['kl']:.3g}, above {limits.kl:g}"
    length = share_of_start(rows, row, "length")
    if limits.length is not None and length is not None and not 1 / limits.length < length < limits.length:
        return f"answers are {length:.2f} times as long as in the first epochs, beyond {limits.length:g}"
    return None if limits.judge is None else judge_fell(rows[: index + 1])
