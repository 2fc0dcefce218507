"""OFS-DPO: two adapters on one base that chase each other, one with a slower learning rate.

The fast policy is the adapter "default", which is the expert. Every `options.every` updates the policy with
the lower mean DPO loss since the last time becomes the fast one: where it is the slow one, the two exchange
their values, their moving averages and the optimiser's moments. So names, rates and checkpoints never depend
on who is who.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl import DPOConfig
from trl.trainer.utils import use_adapter

from ...ops.list_losses import Lists, chase_link, pair_link
from .lists import POLICY, ListTrainer

__all__ = ["DPOConfig", "TwoPolicyTrainer"]
SLOW = "slow"


class TwoPolicyTrainer(ListTrainer):
    """See the module."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._add_adapter(SLOW)
        self._train_both()
        # Sums of the two policies' DPO losses, and the number of batches, since the last comparison.
        self.sums = torch.zeros(3, dtype=torch.float64)
        self.held = {"loss_sums": self.sums}
        self.averages: dict[str, Tensor] = {}  # of all parameters, by name; the language trainer gives them

    def _train_both(self) -> None:
        """A frozen parameter collects no gradient, and peft freezes all adapters but the active one."""
        model: Any = self.model
        for name, parameter in model.named_parameters():
            if f".{POLICY}." in name or f".{SLOW}." in name:
                parameter.requires_grad_(True)

    def rate_of(self, name: str) -> float:
        """The learning rate of a parameter, as a share of the recipe's."""
        return self.options.slow_rate if f".{SLOW}." in name else 1.0

    def _losses(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Lists, Any]:
        self._train_both()
        outputs = self._forward(model, inputs)
        peft: Any = self.accelerator.unwrap_model(self.model)
        with use_adapter(peft, SLOW):
            self._train_both()
            slow_outputs = self._forward(model, inputs)
        reference = self._reference(inputs)
        self._train_both()
        lists = self._lists(outputs.log_probs, reference, inputs)
        scores = [
            self.objective.scores(one, self.beta, self.options)
            for one in (lists, self._lists(slow_outputs.log_probs, reference, inputs))
        ]
        fast, slow = (s[:, 0] - s[:, 1] for s in scores)
        sums = torch.stack([
            pair_link(scores[0].detach(), self.beta).mean(), pair_link(scores[1].detach(), self.beta).mean(),
            torch.ones((), device=fast.device),
        ]).double()  # fmt: skip
        reduce: Any = self.accelerator.reduce
        self.sums += reduce(sums).cpu()
        share = self.options.alpha
        losses = chase_link(fast, slow, self.beta, share) + chase_link(slow, fast, self.beta, -share)
        return losses, lists, outputs

    @torch.no_grad()
    def after_update(self, updates: int) -> None:
        """Compare the two every so many updates; see the module."""
        if updates % self.options.every:
            return
        if float(self.sums[1]) < float(self.sums[0]):
            self._exchange()
        self.sums.zero_()

    def _exchange(self) -> None:
        peft: Any = self.model
        optimiser: Any = self.optimizer
        state = optimiser.state
        for name, fast in peft.named_parameters():
            if f".{POLICY}." not in name:
                continue
            other = name.replace(f".{POLICY}.", f".{SLOW}.")
            slow = peft.get_parameter(other)
            _swap(fast.data, slow.data)
            state[fast], state[slow] = state[slow], state[fast]
            if name in self.averages:
                _swap(self.averages[name], self.averages[other])


def _swap(one: Tensor, other: Tensor) -> None:
    """Exchange the values of two tensors."""
    kept = one.clone()
    one.copy_(other)
    other.copy_(kept)
