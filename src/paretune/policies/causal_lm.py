"""Language models as a policy: any causal LM of transformers, a folder or a hub id.

A prompt becomes text by the model's chat template, or by a pattern of the recipe; answers are drawn by the
model's own `generate`. `model.options` are the fields of `options.TextOptions`.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from ..config import LoraConfig, ModelConfig
from ..ops.lowrank import LowRank
from ..types import ParetuneError
from .folders import check_model, quiet, resolve_path
from .options import TextOptions, read_options

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PEFT_PREFIX = "base_model.model."


class CausalLMPolicy:
    """A frozen language model with its tokenizer. transformer: what adapters attach to."""

    targets: tuple[str, ...] = TARGETS

    def __init__(self, config: ModelConfig, device: str | torch.device = "cpu") -> None:
        self.config, self.settings = config, read_options(TextOptions, config)
        self.device, self.autocast = torch.device(device), False
        self.transformer, self.tokenizer = _load(config)
        self.transformer.requires_grad_(False).eval().to(self.device)
        self.context = int(getattr(self.transformer.config, "max_position_embeddings", 0) or 1 << 20)

    def render(self, prompts: Sequence[str]) -> list[str]:
        """The texts that the model continues, without the tokens that its tokenizer adds by itself.

        Raises ParetuneError where a prompt and an answer do not fit into the model's context.
        """
        texts = [self._render(prompt) for prompt in prompts]
        room = self.context - self.settings.max_tokens
        if room < 1:
            raise ParetuneError(
                f"answers of {self.settings.max_tokens} tokens (model.options.max_tokens) leave no room "
                f"for a prompt in the model's context of {self.context}: ask for fewer"
            )
        for prompt, ids in zip(prompts, self.tokenizer(texts)["input_ids"], strict=True):
            if len(ids) > room:
                told = prompt if len(prompt) <= 60 else prompt[:57] + "..."
                raise ParetuneError(
                    f"the prompt {told!r} has {len(ids)} tokens; with answers of {self.settings.max_tokens} "
                    f"(model.options.max_tokens) the model's context holds {room}: shorten it"
                )
        return texts

    def _render(self, prompt: str) -> str:
        pattern = self.settings.template
        if pattern == "auto":
            pattern = "chat" if self.tokenizer.chat_template else "plain"
        if pattern == "plain":
            return prompt
        if pattern != "chat":
            return pattern.replace("{prompt}", prompt)
        if not self.tokenizer.chat_template:
            raise ParetuneError(
                f"model.options.template: {self.config.path} has no chat template; say plain or a pattern"
            )
        message = [{"role": "user", "content": prompt}]
        text = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        start = self.tokenizer.bos_token
        # Templates spell out the first token, which some tokenizers then add once more.
        if start and text.startswith(start) and self.tokenizer("")["input_ids"][:1] == [
            self.tokenizer.bos_token_id
        ]:
            text = text.removeprefix(start)
        return text

    @torch.no_grad()
    def answer(self, prompts: Sequence[str], seed: int, batch: int) -> list[str]:
        """One answer a prompt, drawn with a seed; the process's own random state is left as it was."""
        texts, answers = self.render(prompts), []
        own = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=own):
            for start in range(0, len(texts), batch):
                torch.manual_seed((seed + start) % (1 << 63))
                answers += self._generate(texts[start : start + batch])
        return answers

    def _generate(self, texts: list[str]) -> list[str]:
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
        inputs = inputs.to(self.device)
        settings = self.settings
        out = self.transformer.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=True,
            temperature=settings.temperature, top_p=settings.top_p, top_k=0,
            max_new_tokens=settings.max_tokens, pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        drawn = out[:, inputs["input_ids"].shape[1] :]
        return self.tokenizer.batch_decode(drawn, skip_special_tokens=True)

    def save_pretrained(self, folder: Path) -> bool:
        """Write model and tokenizer as transformers does. Always True: nothing can be left out."""
        self.transformer.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return True


def _load(config: ModelConfig) -> tuple[Any, Any]:
    """Model and tokenizer, which has a padding token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    check_model(config.path)
    quiet()
    place = resolve_path(config.path)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(place)
        model: Any = AutoModelForCausalLM.from_pretrained(
            place, dtype=getattr(torch, config.dtype), use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ParetuneError(f"model.path: {config.path} cannot be loaded: {reason}") from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ParetuneError(
                f"model.path: the tokenizer of {config.path} has neither a padding nor an end token; "
                "set pad_token in its tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        raise ParetuneError(
            f"model.path: the tokenizer of {config.path} knows {len(tokenizer)} tokens but the model only "
            f"{model.get_input_embeddings().weight.shape[0]}: they do not belong together"
        )
    tokenizer.padding_side = "left"
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def lora_config(config: LoraConfig, targets: Sequence[str]) -> Any:
    """A fresh adapter for TRL to put on the model."""
    from peft import LoraConfig as PeftLoraConfig

    return PeftLoraConfig(
        r=config.rank, lora_alpha=cast(int, config.alpha), lora_dropout=0.0, task_type="CAUSAL_LM",
        init_lora_weights="gaussian" if config.init == "gaussian" else True,
        target_modules=list(config.targets or targets),
    )  # fmt: skip


def adapter_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """The trained parameters of a peft model, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def adapter_deltas(model: Any, values: Mapping[str, torch.Tensor]) -> dict[str, LowRank]:
    """A peft model's adapter as module -> low-rank change, its scale folded into B. values: by name."""
    deltas: dict[str, LowRank] = {}
    for name, a in values.items():
        module, mark, rest = name.partition(".lora_A.")
        if not mark:
            continue
        adapter = rest.removesuffix(".weight")
        scale = model.get_submodule(module).scaling[adapter]
        b = values[f"{module}.lora_B.{rest}"]
        factors = LowRank(b.detach().cpu().float() * scale, a.detach().cpu().float())
        deltas[module.removeprefix(PEFT_PREFIX)] = factors
    return deltas
