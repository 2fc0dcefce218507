"""Train one expert of a language model with TRL: GRPO on a reward, or DPO and related losses on pairs.

The earlier rounds are folded into the base, and a fresh LoRA is put on it. TRL's reference model is the model
with the adapter switched off, so it is the start of the round. The prompts of an epoch, its seed and its
learning rate depend on the task and the epoch alone, and our checkpoint holds the adapter and AdamW's
moments. Training that continues from a checkpoint therefore gives the same bits as training without the stop.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PrinterCallback

from ...config import RunConfig
from ...data.prompts import load_prompts
from ...models.causal_lm.policy import CausalLMPolicy
from ...models.loading import open_policy
from ...models.lora import check_targets, fold
from ...models.peft_adapters import adapter_deltas, adapter_parameters, lora_config
from ...ops.lowrank import LowRank
from ...planning.plan import ExpertTask, derive_seed
from ...reward_tokens.language import as_written
from ...types import ParetuneError
from ..checkpoint import Checkpoint, Stopped, TrainState, find_checkpoint, load_checkpoint
from ..decay import AdamR, optimiser_of
from ..guard import Guard
from ..learning_rate import rate_share
from ..mixture import Mixture
from ..objectives.curriculum import drawn_from
from ..objectives.lists import ListLoss
from ..objectives.preferences import PairLoss
from ..objectives.settings import read_options
from ..objectives.trl import Batches
from ..together.crew import ALONE, Crew
from .answer_checks import check_lengths
from .chats import as_messages, check_chats, unstarted
from .scoring import Scoring
from .settings import batches_of, trl_arguments, trl_classes, trl_objective
from .tokenised import tokenised
from .watch import Bridge, Watch

Report = Callable[[dict[str, Any]], None]
OF_EXPERT = ".default."  # in the names of the expert's parameters; a second policy has another adapter


class LanguageTrainer:
    """The model and the position of one expert; see `trainers.Trainer`."""

    def __init__(
        self,
        config: RunConfig,
        task: ExpertTask,
        folder: Path,
        mixture: Mixture,
        parents: dict[str, LowRank] | None,
        device: str,
        crew: Crew = ALONE,
    ) -> None:
        self.config, self.task, self.folder, self.mixture = config, task, folder, mixture
        self.objective = trl_objective(config.objective.name)
        self.device, self.crew = device, crew
        self.divided = config.executor.shard == "full" and crew.size > 1
        opened = open_policy(config.model, "cpu" if self.divided else device)
        self.policy = cast(CausalLMPolicy, opened)
        check_targets(self.policy.transformer, config.adapter.targets or self.policy.targets)
        self.texts = self.policy.render([p.text for p in mixture.prompts])
        # A held-out prompt that is too long is reported now, not after the training.
        for reward_config in config.rewards.values():
            held_out = load_prompts(reward_config.eval_prompts)[: config.evaluate.prompts]
            self.policy.render([p.text for p in held_out])
        if parents:
            fold(self.policy.transformer, parents)
        self.state = TrainState({}, cast(torch.optim.Optimizer, None), {}, {})
        self.guard = Guard(config.stop_when, task, self.state, config.train.ema_decay > 0)
        self.earlier: Path | None = None

    def resume(self, inputs: str, earlier: Path | None) -> None:
        """See `trainers.Trainer`. `run` loads the state, after TRL has put the adapter on the model."""
        self.state.inputs, self.earlier = inputs, earlier

    def run(self, report: Report, should_stop: Callable[[], bool]) -> dict[str, LowRank]:
        """See `trainers.Trainer`."""
        start = find_checkpoint(self.folder, self.state.inputs, self.earlier)
        done = start.epoch if start else 0
        drawn = [self._draw(epoch) for epoch in range(done, self.task.epochs)]
        # A finished expert without a manifest has no epoch left to draw; its state is loaded all the same.
        samples = (drawn or [self._draw(0)])[0]
        batches = self._batches(len(samples))
        watch = Watch(self.task, self.config.train, self.folder, batches.updates, self.state, report,
                      should_stop, crew=self.crew)  # fmt: skip
        trainer = self._trainer(watch, batches, drawn or [samples])
        self._take_state(trainer, start, batches.updates)
        watch.after_update = getattr(trainer, "after_update", watch.after_update)
        trainer.remove_callback(PrinterCallback)  # the user reads our progress instead
        bridge = Bridge(watch)
        trainer.add_callback(bridge)
        watch.guard, watch.judging = self.guard, self.mixture.judging
        self.guard.resume(bridge.rows)
        if drawn and not self.guard.stopped:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trainer.train()
        self.crew.wait()  # TRL looks into its folder once more at its end, in every process
        if self.crew.leader:
            shutil.rmtree(self.folder / "trl", ignore_errors=True)
        if watch.stopped:
            raise Stopped
        values = self.state.ema if self.config.train.ema_decay > 0 else self.state.parameters
        own = {name: v for name, v in self.guard.values(values).items() if OF_EXPERT in name}
        return adapter_deltas(trainer.model, own)

    def _draw(self, epoch: int) -> torch.Tensor:
        """The prompts of an epoch, [P]."""
        generator = torch.Generator().manual_seed(derive_seed(self.task.seed, epoch))
        kind = getattr(read_options(self.config.objective), "curriculum", "none")
        sets = [s.prompts for s in self.mixture.prompt_sets]
        allowed = drawn_from(kind, sets, self.task.round, epoch, self.task.epochs)
        return self.mixture.draw(self.config.train.prompts_per_epoch * self.task.width, generator, allowed)

    def _batches(self, prompts: int) -> Batches:
        group = self.config.train.group_size if self.objective.draws else 1
        if self.objective.draws and prompts % self.crew.size:
            raise ParetuneError(
                f"executor.devices_per_expert: {self.crew.size} does not divide the {prompts} prompts that "
                "an epoch can draw from these sets; whole groups are dealt evenly"
            )
        return batches_of(self.config, prompts * group, self.crew.size)

    def _trainer(self, watch: Watch, batches: Batches, drawn: list[torch.Tensor]) -> Any:
        """TRL's trainer with the adapter on the model."""
        from datasets import Dataset, disable_progress_bars

        config, seed = self.config, derive_seed(self.task.seed, "init")
        name = config.objective.name
        made, _ = trl_classes(self.objective)
        disable_progress_bars()
        index = torch.cat(drawn).tolist()
        extra: dict[str, Any] = {}
        scored: dict[str, Any] = {}
        chats = self.policy.chats and not self.objective.draws
        rows = self._rows(index, chats)
        if chats and rows and "prompt" in rows[0]:
            check_chats(self.policy.tokenizer, rows, f"model.path: {config.model.path}")
        if self.objective.draws:
            scoring = Scoring(self.mixture, watch, config.train.group_size, config.executor.reward_timeout)
            scored = {**scoring.arguments(config.objective), **self._drawing()}
            extra["reward_funcs"] = scoring.functions()
        extra |= self.objective.extra(read_options(config.objective))
        batches = replace(batches, micro=self.objective.rows_a_prompt * batches.micro)
        # GRPO's prompts are rendered already; TRL itself renders pairs.
        bare = self.policy.chats and self.objective.draws
        tokenizer = as_written(self.policy.tokenizer) if bare else unstarted(self.policy, self.texts)
        if self.crew.size > 1:
            from .dealt import dealt, tell_accelerate

            tell_accelerate(self.crew, self.device)
            made = dealt(made)
            extra |= {"crew": self.crew, "divided": self.divided}
        arguments = trl_arguments(
            config, name, self.mixture.kl, batches, self.device, seed, self.folder / "trl", scored,
            alone=self.crew.size == 1,
        )  # fmt: skip
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return made(
                    model=self.policy.transformer, args=arguments, train_dataset=Dataset.from_list(rows),
                    processing_class=tokenizer,
                    peft_config=lora_config(config.adapter, self.policy.targets), **extra,
                )  # fmt: skip
        except (ValueError, TypeError, ImportError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ParetuneError(f"objective {name}: TRL refuses: {reason}") from error

    def _rows(self, index: list[int], chats: bool) -> list[dict[str, Any]]:
        """The rows of TRL's data set: texts that TRL tokenises, or of a loss on lists our own tokens."""
        prompts, name = self.mixture.prompts, self.config.objective.name
        if not issubclass(self.objective, ListLoss):
            if issubclass(self.objective, PairLoss):
                check_lengths(self.policy, self.config.objective, prompts, self.texts, index)
            rows = self.objective.rows(name, prompts, self.texts, index, chats)
            return as_messages(self.policy, rows) if chats else rows
        records: dict[int, dict[str, Any]] = {}
        first = 0
        for own in self.mixture.prompt_sets:  # each is read as the reward's own
            here = [i for i in dict.fromkeys(index) if first <= i < first + len(own.prompts)]
            options = read_options(self.config.objective, own.reward.name)
            made = self.objective.records(name, own.prompts, [i - first for i in here], options)
            records |= dict(zip(here, made, strict=True))
            first += len(own.prompts)
        return tokenised(self.policy, [records[i] for i in index])

    def _drawing(self) -> dict[str, Any]:
        """TRL's arguments that make it draw answers in training as the evaluation draws them."""
        drawing = self.policy.settings
        return {
            "temperature": drawing.temperature,
            "top_p": drawing.top_p,
            "max_completion_length": drawing.max_tokens,
        }

    def _take_state(self, trainer: Any, start: Checkpoint | None, updates: int) -> None:
        """Give TRL our optimiser and learning rate, and load the checkpoint, if there is one."""
        train = self.config.train
        parameters = adapter_parameters(trainer.model)
        for parameter in parameters.values():
            parameter.data = parameter.data.float()
        self.state.parameters = parameters
        rate_of = getattr(trainer, "rate_of", lambda name: 1.0)
        shares = {name: rate_of(name) for name in parameters}
        groups = [
            {"params": [p for name, p in parameters.items() if shares[name] == share], "share": share}
            for share in dict.fromkeys(shares.values())
        ]
        self.state.optimiser = optimiser_of(train, groups)
        self.state.ema = {name: p.detach().clone() for name, p in parameters.items()}
        held = dict(getattr(trainer, "held", {}))
        if isinstance(self.state.optimiser, AdamR):
            starts = self.state.optimiser.start
            held |= {f"start/{name}": starts[parameter] for name, parameter in parameters.items()}
        self.state.old = dict(held)
        if start is not None:
            load_checkpoint(start, self.state)
            for name, tensor in held.items():
                tensor.copy_(self.state.old[name])
            self.state.old = dict(held)
        trainer.averages = self.state.ema
        done, task = self.state.epoch, self.task

        def share(update: int) -> float:
            epoch = min(done + update // updates, task.epochs - 1)  # TRL asks for one past the last too
            return rate_share(train.lr_scheduler, epoch, *task.rate_epochs)

        for group in self.state.optimiser.param_groups:  # a checkpoint's is the rate of its last epoch
            group["initial_lr"] = train.learning_rate * group.get("share", 1.0)
        trainer.optimizer = self.state.optimiser
        trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(self.state.optimiser, share)
