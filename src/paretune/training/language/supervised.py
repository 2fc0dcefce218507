"""Supervised fine-tuning before a run, as in the paper for Llama-2: TRL's SFTTrainer on preferred answers.

    paretune sft llama2-7b --out models/llama2-7b-sft
    paretune run llama2-7b --set model.path=models/llama2-7b-sft

The prompts and answers are the records of the recipe's training sets that have a `chosen` answer, or a list
of answers, whose first is taken. A LoRA of the recipe's rank is trained and folded into the model, and the
model is written with its tokenizer as a folder that transformers loads. The LoRA alone can be written too,
and it can learn the `rejected` answers: cDPO compares two such adapters (`paretune pairs --contrast`).
"""

from __future__ import annotations

import math
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import torch

from ...config import RunConfig
from ...data.answer_lists import read_answers
from ...data.prompts import load_prompts
from ...files import disk_errors, partial_folder, publish
from ...models.causal_lm.answer_ids import as_drawn, check_fits, ending_ids
from ...models.causal_lm.policy import CausalLMPolicy
from ...models.loading import open_policy
from ...models.lora import check_targets
from ...models.memory import memory_errors, to_train
from ...models.peft_adapters import lora_config
from ...samples.media import medium_of
from ...types import ParetuneError, Prompt, turns_of
from .chats import as_messages, check_chats
from .settings import on_device

SIDES = ("chosen", "rejected")


def supervise(
    config: RunConfig, out: Path, epochs: float = 1.0, rate: float = 2e-4, batch: int = 16, limit: int = 0,
    side: str = "chosen", adapter_alone: bool = False, quiet: bool = False,
) -> int:  # fmt: skip
    """Train on the recipe's preferred answers and write the model to a new folder.

    Args:
        config: the recipe.
        out: the new folder.
        epochs: passes over the answers.
        rate: the learning rate.
        batch: answers in one optimiser step.
        limit: how many answers of each reward's training set are used; 0 for all.
        side: the answers to learn: chosen or rejected.
        adapter_alone: write the adapter, not the model that it makes.
        quiet: show no progress bar.

    Returns:
        The number of answers.
    """
    try:
        from datasets import Dataset, disable_progress_bars
        from transformers import PrinterCallback
        from trl.trainer.sft_trainer import SFTTrainer
    except ImportError as error:
        raise ParetuneError(f"TRL is not there ({error}); pip install 'paretune[language]'") from error

    _check(config, out, epochs, limit, side)
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    policy = cast(CausalLMPolicy, open_policy(config.model, device))
    check_targets(policy.transformer, config.adapter.targets or policy.targets)
    rows = _rows(config, policy, limit, side)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    disable_progress_bars()
    partial = partial_folder(out)
    arguments = _arguments(config, partial, device, epochs=epochs, rate=rate, batch=batch, quiet=quiet)
    try:
        with warnings.catch_warnings(), memory_errors(to_train, config, begun=False):
            warnings.simplefilter("ignore")
            trainer: Any = SFTTrainer(
                model=policy.transformer, args=arguments, train_dataset=Dataset.from_list(rows),
                processing_class=policy.tokenizer, peft_config=lora_config(config.adapter, policy.targets),
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)  # it prints the losses on standard output
            trainer.train()
        with disk_errors(out):
            if adapter_alone:
                trainer.model.save_pretrained(partial)
            else:
                trainer.model.merge_and_unload().save_pretrained(partial)
                policy.tokenizer.save_pretrained(partial)
            shutil.rmtree(partial / "unused", ignore_errors=True)
            publish(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return len(rows)


def _arguments(
    config: RunConfig, partial: Path, device: str, *, epochs: float, rate: float, batch: int, quiet: bool
) -> Any:
    """TRL's arguments; see `supervise`."""
    from trl.trainer.sft_config import SFTConfig

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return on_device(device, lambda: SFTConfig(
            output_dir=str(partial / "unused"), num_train_epochs=epochs, learning_rate=rate,
            per_device_train_batch_size=min(batch, config.train.micro_batch), report_to=[],
            gradient_accumulation_steps=max(1, batch // config.train.micro_batch), save_strategy="no",
            seed=config.seed % 2**32, use_cpu=device == "cpu", bf16=config.train.autocast, max_length=None,
            gradient_checkpointing=config.model.gradient_checkpointing, completion_only_loss=True,
            disable_tqdm=quiet,
        ))  # fmt: skip


def _check(config: RunConfig, out: Path, epochs: float, limit: int, side: str) -> None:
    """Raise ParetuneError for words that do not fit."""
    if out.exists():
        raise ParetuneError(f"{out} exists; give a new folder")
    if medium_of(config.model).name != "texts":
        raise ParetuneError(f"model.path: {config.model.path} is no language model")
    if not math.isfinite(epochs) or epochs <= 0 or limit < 0:
        raise ParetuneError("--epochs must be above 0, and --limit from 0 up")
    if side not in SIDES:
        raise ParetuneError(f"--answers: {side} is none of {', '.join(SIDES)}")


def _answer(prompt: Prompt, side: str) -> str:
    """The answer of a record on one side, "" if it has none."""
    record = prompt.metadata
    if record.get("prefix"):
        raise ParetuneError(
            f'the prompt {prompt.text[:60]!r} has a "prefix", after which its answers are single steps: sft '
            "learns whole answers; list_dpo takes such records"
        )
    answer = record.get(side)
    if answer is None and record.get("answers"):
        return read_answers(prompt).answers[0 if side == "chosen" else -1].text
    if answer is not None and not isinstance(answer, str):
        raise ParetuneError(
            f'the prompt {prompt.text[:60]!r}: "{side}" is the text of an answer, not {answer!r:.40}'
        )
    return answer if answer and answer.strip() else ""


def _rows(config: RunConfig, policy: CausalLMPolicy, limit: int, side: str) -> list[dict[str, Any]]:
    """Prompts with their answers on one side. Prompts that do not fit into the context are left out."""
    room = policy.context - policy.settings.max_tokens
    rows: list[dict[str, Any]] = []
    for reward_config in config.rewards.values():
        prompts = load_prompts(reward_config.prompts)
        prompts = [p for p in prompts if _answer(p, side)]
        for prompt in prompts[: limit or None]:
            if len(policy.tokenizer(prompt.text)["input_ids"]) < room:
                answer = _answer(prompt, side)
                _check_fits(policy, prompt, answer)
                if policy.chats:  # ended as the chat template ends a turn
                    said = [{"role": "assistant", "content": answer}]
                    rows.append({"prompt": turns_of(prompt.text), "completion": said})
                else:
                    rows.append({"prompt": policy.render([prompt.text])[0], "completion": answer})
    if not rows:
        raise ParetuneError(f'no training prompt of the recipe has a "{side}" answer to learn from')
    if policy.chats:
        rows = as_messages(policy, rows)
        check_chats(policy.tokenizer, rows, f"model.path: {config.model.path}")
    return rows


def _check_fits(policy: CausalLMPolicy, prompt: Prompt, answer: str) -> None:
    """Raise ParetuneError, which names the prompt, where its answer leads beyond the model's context."""
    whole = policy.render([prompt.text])[0] + as_drawn(policy, [answer])[0]
    check_fits(policy, prompt.text, len(policy.text_ids([whole])[0]) + len(ending_ids(policy)))


def main() -> None:
    """The entry that this module had before the command: it says the new one, as a mistake."""
    sys.stderr.write("error: this is now `paretune sft RECIPE --out FOLDER`, with the same options\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
