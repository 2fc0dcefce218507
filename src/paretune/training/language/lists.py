"""TRL's DPO trainer with our losses on lists of answers, and with our own tokens.

Its rows come from `tokenised`, which TRL takes as they are. The reference is the model with the adapter
switched off, the round's start; or with `refresh_every` a second adapter "ref", into which the policy is
copied again and again; or with `reference_decay` the start with an average of the policy's changes. That
average is of the products B A, because the product of averaged factors is something else. `held` are the
tensors that a checkpoint must hold besides the policy.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import use_adapter

from ...ops.list_losses import Lists
from ..objectives.lists import ListLoss
from .tokenised import ListCollator

__all__ = ["DPOConfig", "ListTrainer"]
POLICY, REFERENCE = "default", "ref"


class ListTrainer(DPOTrainer):
    """See the module. objective, options: the loss, and the recipe's options of it."""

    def __init__(self, *, objective: type[ListLoss], options: Any, **arguments: Any) -> None:
        self.objective, self.options = objective, options
        pad = arguments["processing_class"].pad_token_id
        super().__init__(data_collator=ListCollator(pad), **arguments)
        self.held: dict[str, Tensor] = {}
        if options.refresh_every:
            self.held = self._add_adapter(REFERENCE)
        if options.reference_decay:
            self.held = {
                name: torch.zeros_like(layer.base_layer.weight, dtype=torch.float32)
                for name, layer in self._layers()
            }

    def _layers(self) -> list[tuple[str, Any]]:
        """The layers that the policy changes, by their names."""
        peft: Any = self.model
        return [(n, m) for n, m in peft.named_modules() if POLICY in getattr(m, "lora_A", {})]

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        """The rows are tokens already."""
        return dataset

    def _add_adapter(self, name: str) -> dict[str, Tensor]:
        """A second adapter, a frozen copy of the policy; returns its values by the parameters' names."""
        peft: Any = self.model
        peft.add_adapter(name, peft.peft_config[POLICY])
        peft.set_adapter(POLICY)
        values: dict[str, Tensor] = {}
        for parameter_name, parameter in peft.named_parameters():
            if f".{name}." in parameter_name:
                parameter.requires_grad_(False)
                parameter.data = peft.get_parameter(
                    parameter_name.replace(f".{name}.", f".{POLICY}.")
                ).data.float().clone()
                values[parameter_name] = parameter.data
        return values

    @torch.no_grad()
    def after_update(self, updates: int) -> None:
        """What follows an optimiser step, `updates` in this expert so far: the reference is refreshed."""
        every = self.options.refresh_every
        if every and updates % every == 0:
            peft: Any = self.model
            for name, value in self.held.items():
                value.copy_(peft.get_parameter(name.replace(f".{REFERENCE}.", f".{POLICY}.")))
        decay = self.options.reference_decay
        for name, layer in self._layers() if decay else ():
            self.held[name].lerp_(layer.get_delta_weight(POLICY).float(), 1 - decay)

    def _forward(self, model: Any, inputs: dict[str, Tensor]) -> Any:
        """TRL's outputs of the fused head for the answers' tokens, [N, T - 1]."""
        labels = inputs["input_ids"].masked_fill(~inputs["answer_mask"], -100)
        return model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels,
            use_cache=False, fused_lm_head=True,
        )  # fmt: skip

    @torch.no_grad()
    def _reference(self, inputs: dict[str, Tensor]) -> Tensor:
        """The reference's log-probabilities, [N, T - 1]."""
        peft = self.accelerator.unwrap_model(self.model)
        with self._averaged(), use_adapter(peft, REFERENCE if REFERENCE in peft.peft_config else None):
            return self._forward(self.model, inputs).log_probs

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The base with the average of the policy's changes, where the reference is that."""
        moved = self._layers() if self.options.reference_decay else []
        kept = {name: layer.base_layer.weight.detach().clone() for name, layer in moved}
        for name, layer in moved:
            layer.base_layer.weight.data.add_(self.held[name].to(kept[name].dtype))
        try:
            yield
        finally:
            for name, layer in moved:
                layer.base_layer.weight.data.copy_(kept[name])

    def _lists(self, log_probs: Tensor, reference: Tensor | None, inputs: dict[str, Tensor]) -> Lists:
        """What the loss sees. The first token of a sequence has no log-probability."""
        rows = inputs["present"].shape

        def own(values: Tensor) -> Tensor:
            return values.unflatten(0, rows)

        return Lists(
            own(log_probs), None if reference is None else own(reference),
            own(inputs["answer_mask"][:, 1:]), inputs["present"], inputs["values"], inputs["margin"],
            inputs["weight"], own(inputs["given"][:, 1:]), own(inputs["step"][:, 1:]),
        )  # fmt: skip

    def _losses(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Lists, Any]:
        """The losses [B], what they were computed from, and the model's outputs."""
        outputs = self._forward(model, inputs)
        reference = self._reference(inputs) if self.objective.looks_at_reference(self.options) else None
        lists = self._lists(outputs.log_probs, reference, inputs)
        return self.objective.loss(lists, self.beta, self.options), lists, outputs

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False) -> Any:
        losses, lists, outputs = self._losses(model, inputs)
        self._note(lists, outputs)
        loss = losses.mean()
        return (loss, outputs) if return_outputs else loss

    @torch.no_grad()
    def _note(self, lists: Lists, outputs: Any) -> None:
        """Log under TRL's names."""
        s = self.beta * self.objective.scores(lists, self.beta, self.options)
        best, worst = self.objective.shown(s, lists)
        log_p = lists.log_probs.sum(-1)
        first, last = self.objective.shown(log_p, lists)
        entropy = outputs.entropy.unflatten(0, lists.present.shape)
        figures = {
            "rewards/chosen": best.mean(), "rewards/rejected": worst.mean(),
            "rewards/margins": (best - worst).mean(), "rewards/accuracies": (best > worst).float().mean(),
            "logps/chosen": first.mean(), "logps/rejected": last.mean(),
            "entropy": entropy[lists.mask].mean(),
        }  # fmt: skip
        model: Any = self.model
        gather: Any = self.accelerator.gather
        mode = "train" if model.training else "eval"
        for name, value in figures.items():
            # Of several processes, each with as many lists, the mean.
            self._metrics[mode][name].append(float(gather(value).mean()))
