"""TRL's trainers as one of several processes, by accelerate: the same samples and updates as one process has.

accelerate deals the rows: an update's micro-batches go to the processes in turn. GRPO deals whole groups;
when all have drawn and scored theirs, every process gets all answers, shuffles them as one process would and
takes its share of each update. Gradients are averaged over the processes, all of which have as many samples.
So the number of processes changes a result by rounding alone.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import os
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import pad
from trl import GRPOTrainer
from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict

from ..together.crew import Crew
from ..together.shard import shard_blocks
from .own_rows import own_rows


def tell_accelerate(crew: Crew, device: str) -> None:
    """Set the environment variables in which accelerate finds this process's place. The group exists."""
    places = {
        "RANK": crew.rank, "LOCAL_RANK": crew.rank, "WORLD_SIZE": crew.size, "LOCAL_WORLD_SIZE": crew.size,
        "ACCELERATE_TORCH_DEVICE": device,  # else one by its rank: cpu:0, to which tensors are copied
        "OMP_NUM_THREADS": torch.get_num_threads(),  # else accelerate would choose another number
    }
    os.environ.update({name: str(value) for name, value in places.items()})


def dealt(trainer: type) -> type:
    """A trainer class of TRL whose instances take `crew` and `divided` too; see `Dealt`."""
    kind = DealtDraws if issubclass(trainer, GRPOTrainer) else Dealt
    return type(trainer.__name__, (kind, trainer), {})


class Dealt:
    """Makes a trainer one of several. crew: the processes. divided: whether they share the base in pieces."""

    accelerator: Any

    def __init__(self, *, crew: Crew, divided: bool, **arguments: Any) -> None:
        self.crew, self.divided = crew, divided
        super().__init__(**arguments)
        # Gradients are averaged below; a wrapper for that would not take a base in pieces, nor two policies.
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        if not self.divided:
            parent: Any = super()
            parent._move_model_to_device(model, device)
        elif not getattr(model, "_is_fsdp_managed_module", False):
            shard_blocks(model, self.crew, device)
            # transformers then calls the blocks in each process until all have drawn their answers.
            base: Any = model
            base.get_base_model()._is_fsdp_managed_module = True

    def training_step(self, model: nn.Module, *arguments: Any, **named: Any) -> Tensor:
        """One micro-batch; after the last of an update the gradients are averaged over the processes."""
        parent: Any = super()
        loss = parent.training_step(model, *arguments, **named)
        if self.accelerator.sync_gradients:
            trained = [p for p in model.parameters() if p.requires_grad]
            self.crew.sum_gradients(trained)
            for parameter in trained:
                if parameter.grad is not None:
                    parameter.grad.div_(self.crew.size)
        return loss


class DealtDraws(Dealt):
    """The same for GRPO, which draws its samples."""

    args: Any
    model: Any
    _step: int
    _buffered_inputs: list[dict[str, Any]] | None
    _tokenizer: Any

    def _generate_single_turn(self, *arguments: Any, **named: Any) -> Any:
        parent: Any = super()
        with own_rows(self.crew):
            return parent._generate_single_turn(*arguments, **named)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """The micro-batch at hand. With the first of an epoch, all answers are drawn and scored."""
        parent: Any = super()
        if not self.model.training:
            return parent._prepare_inputs(generation_batch)
        steps = self.args.steps_per_generation
        if self._step % steps == 0 or self._buffered_inputs is None:
            own = parent._generate_and_score_completions(generation_batch)
            whole: Any = shuffle_sequence_dict(self._of_all(own))
            accumulated = self.args.gradient_accumulation_steps
            self._buffered_inputs = [
                batch
                for update in split_tensor_dict(whole, steps // accumulated)
                for batch in split_tensor_dict(self._own(update), accumulated)
            ]
        return self._buffered_inputs[self._step % steps]

    def _own(self, update: dict[str, Any]) -> dict[str, Any]:
        """This process's share of an update's samples."""
        return split_tensor_dict(update, self.crew.size)[self.crew.rank]

    def _of_all(self, own: dict[str, Any]) -> dict[str, Any]:
        """All processes' samples in order, padded to the longest of them. [B / n, ..] -> [B, ..]."""
        width = {name: value.shape[1] for name, value in own.items() if _is_table(value)}
        told: list[Any] = [None] * self.crew.size
        dist.all_gather_object(told, width)
        found: dict[str, Any] = {}
        for name, value in own.items():
            if not isinstance(value, Tensor) or value.ndim == 0:
                found[name] = value
                continue
            if name in width:
                more = max(widths[name] for widths in told) - width[name]
                fill = self._tokenizer.pad_token_id if name.endswith("_ids") else 0
                value = pad(value, (more, 0) if name.startswith("prompt") else (0, more), value=fill)
            parts = [torch.empty_like(value) for _ in told]
            dist.all_gather(parts, value.contiguous())
            found[name] = torch.cat(parts)
        return found


def _is_table(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2
