"""Language models as a policy: any causal language model of transformers, a folder or a hub id.

The model's chat template, or a pattern of the recipe, turns a prompt into text, and the model's `generate`
draws answers. `model.options` are the fields of `family.TextOptions`.
"""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...config import ModelConfig
from ...foreign.chat import render_chats
from ...reward_tokens.files import EMBEDDING, Token
from ...reward_tokens.language import MARK, Branch, SoftPrompts, is_bare, length_of, vectors_of
from ...reward_tokens.pipelines import Scaled, blends
from ...reward_tokens.start import first_rows, row_scale
from ...types import Dialogue, ParetuneError, turns_of
from ..checked import loading
from ..options import read_options
from .family import TextOptions
from .loading import load_text_model

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
GENERATED_FROM = ("input_ids", "attention_mask", "inputs_embeds", "logits_processor")


def context_of(transformer: Any) -> int:
    """How many tokens a model reads at most; 2^20 where its configuration does not say."""
    return int(getattr(transformer.config, "max_position_embeddings", 0) or 1 << 20)


class CausalLMPolicy:
    """A frozen language model with its tokenizer. transformer: what adapters attach to."""

    targets: tuple[str, ...] = TARGETS

    def __init__(self, config: ModelConfig, device: str | torch.device = "cpu") -> None:
        self.config, self.settings = config, read_options(TextOptions, config)
        self.device, self.autocast = torch.device(device), False
        self.transformer, self.tokenizer = load_text_model(config)
        self.transformer.requires_grad_(False).eval().to(self.device)
        self.context = context_of(self.transformer)
        with loading(f"model.path: {config.path} does not work as its files say"):
            self._try()

    @torch.no_grad()
    def _try(self) -> None:
        """Generate one token, so that a wrong configuration shows at once."""
        self.tokenizer("a")
        ids = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        self.transformer.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=1, do_sample=False
        )
        logits = self.transformer(input_ids=ids, use_cache=False).logits
        if not bool(torch.isfinite(logits).all()):
            raise ParetuneError(f"model.path: {self.config.path} gives NaN or infinite values")

    def render(self, prompts: Sequence[str]) -> list[str]:
        """The texts that the model continues; `text_ids` tokenises them.

        Raises ParetuneError where a prompt and an answer do not fit into the model's context.
        """
        texts = self._render(prompts)
        self._check_room(prompts, self.text_ids(texts))
        return texts

    def text_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of rendered texts. Special tokens are added unless a chat template has written them."""
        return self.tokenizer(list(texts), add_special_tokens=not self.chats)["input_ids"]

    @cached_property
    def chats(self) -> bool:
        """Whether prompts are rendered by the tokenizer's chat template."""
        pattern = self.settings.template
        return pattern == "chat" or (pattern == "auto" and bool(self.tokenizer.chat_template))

    def prompt_ids(self, prompts: Sequence[str], present: Sequence[Scaled]) -> list[list[int]]:
        """The ids of rendered prompts with reward tokens after them, whose vectors are -1, -2, .. in order.

        Raises ParetuneError as `render` does: neither a prompt nor a token is ever cut.
        """
        if present and any(MARK in prompt for prompt in prompts):
            raise ParetuneError(f"a prompt holds {MARK}, which stands for reward tokens; leave it out")
        ids = self.soft.ids([text + MARK * length_of(present) for text in self._render(prompts)])
        self._check_room(prompts, ids, length_of(present))
        return ids

    @cached_property
    def soft(self) -> SoftPrompts:
        """Prompts with reward tokens, for this model."""
        return SoftPrompts(self.transformer, self.tokenizer, special=not self.chats)

    def _check_room(self, prompts: Sequence[str], rows: Sequence[Sequence[int]], vectors: int = 0) -> None:
        room = self.context - self.settings.max_tokens
        if room < 1:
            raise ParetuneError(
                f"answers of {self.settings.max_tokens} tokens (model.options.max_tokens) leave no room "
                f"for a prompt in the model's context of {self.context}: ask for fewer"
            )
        for prompt, ids in zip(prompts, rows, strict=True):
            if len(ids) > room:
                shown = prompt if len(prompt) <= 60 else prompt[:57] + "..."
                raise ParetuneError(
                    f"the prompt {shown!r} has {len(ids)} tokens"
                    f"{f', {vectors} of them reward tokens' if vectors else ''}; "
                    f"with answers of {self.settings.max_tokens} "
                    f"(model.options.max_tokens) the model's context holds {room}: shorten it"
                )

    def _render(self, prompts: Sequence[str]) -> list[str]:
        pattern = self.settings.template
        if not self.chats:
            for prompt in prompts:
                if isinstance(prompt, Dialogue) and len(prompt.turns) > 1:
                    raise ParetuneError(
                        f"the prompt {prompt[:60]!r} has {len(prompt.turns)} turns, which takes a chat "
                        f"template to read; with the template {pattern} give prompts of one"
                    )
            return [p if pattern in {"auto", "plain"} else pattern.replace("{prompt}", p) for p in prompts]
        if not self.tokenizer.chat_template:
            raise ParetuneError(
                f"model.options.template: {self.config.path} has no chat template; say plain or a pattern"
            )
        chats = [turns_of(prompt) for prompt in prompts]
        return render_chats(self.tokenizer, chats, f"model.path: {self.config.path}", prompt=True)

    @torch.no_grad()
    def answer(
        self, prompts: Sequence[str], seed: int, batch: int, tokens: Sequence[Scaled] = ()
    ) -> list[str]:
        """Draw one answer per prompt, without changing the random state of the process.

        Args:
            prompts: the prompts.
            seed: of the answers.
            batch: the number of prompts that are answered at a time.
            tokens: reward tokens that follow every prompt. Without tokens, or with all at scale 0, the
                answers are those of the plain model.
        """
        drawn = self._draw(prompts, seed, batch, tokens)
        return [text for ids in drawn for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    @torch.no_grad()
    def answer_ids(
        self, prompts: Sequence[str], seed: int, batch: int, tokens: Sequence[Scaled] = ()
    ) -> list[list[int]]:
        """The tokens of `answer`'s answers. Each ends with the end token, unless it is cut off before."""
        drawn = self._draw(prompts, seed, batch, tokens)
        return [self._ended(row) for ids in drawn for row in ids.tolist()]

    @torch.no_grad()
    def continued(self, before: Sequence[int], seed: int, count: int, room: int = 0) -> list[list[int]]:
        """The tokens of `count` answers drawn after given tokens, at most `room` each (0: `max_tokens`)."""
        most = min(room or self.settings.max_tokens, self.context - len(before))
        if most < 1:
            raise ParetuneError(
                f"{len(before)} tokens leave no room in the model's context of {self.context} to go on"
            )
        ids = torch.tensor([list(before)] * count)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed % (1 << 63))
            start = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            return [self._ended(row) for row in self._generate(start, max_new_tokens=most).tolist()]

    @torch.no_grad()
    def likeliest(self, prompt: str, beams: int, count: int) -> list[str]:
        """The `count` likeliest answers that a search with `beams` beams finds, the likeliest first.

        On a policy that learned preferences this is a search by value: beta log pi is Q* - V* ("From r to
        Q*", 2404.12358). Temperature and seed do not matter.
        """
        ids = torch.tensor([self.text_ids(self.render([prompt]))[0]])
        start = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        drawn = self._generate(start, do_sample=False, num_beams=beams, num_return_sequences=count,
                               length_penalty=0.0, temperature=None, top_p=None, top_k=None)  # fmt: skip
        return self.tokenizer.batch_decode(drawn, skip_special_tokens=True)

    def ends(self, ids: Sequence[int]) -> bool:
        """Whether drawn tokens end, and were not cut off."""
        return bool(ids) and ids[-1] in self._last

    @property
    def _last(self) -> set[int]:
        """The tokens after which nothing is drawn."""
        ends = self.transformer.generation_config.eos_token_id
        return {ends} if isinstance(ends, int) else set(ends or ())

    def _ended(self, row: list[int]) -> list[int]:
        """Drawn tokens up to their end token."""
        last = self._last
        return row[: next((i + 1 for i, one in enumerate(row) if one in last), len(row))]

    def _draw(
        self, prompts: Sequence[str], seed: int, batch: int, tokens: Sequence[Scaled]
    ) -> list[Tensor]:
        """The tokens of answers, a batch of prompts each, [b, up to max_tokens], padded after their end."""
        start, drawn = self._starts(prompts, tokens), []
        forked = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=forked):
            for first in range(0, len(prompts), batch):
                torch.manual_seed((seed + first) % (1 << 63))
                drawn.append(self._generate(start(slice(first, first + batch))))
        return drawn

    def _starts(
        self, prompts: Sequence[str], tokens: Sequence[Scaled]
    ) -> Callable[[slice], Mapping[str, Any]]:
        """A function that gives the inputs of `generate` for a slice of the prompts. Checks all prompts."""
        terms = blends(tokens)
        if is_bare(terms):
            texts = self.render(prompts)
            return lambda part: self.tokenizer(
                texts[part], return_tensors="pt", padding=True, padding_side="left",
                add_special_tokens=not self.chats,
            )  # fmt: skip
        branches = [
            Branch(t.weight, self.prompt_ids(prompts, t.present), vectors_of(self.transformer, t.present))
            for t in terms
        ]
        return lambda part: self.soft.start([b._replace(ids=b.ids[part]) for b in branches])

    def _generate(self, start: Mapping[str, Any], **other: Any) -> Tensor:
        """Draw as the settings say, or as `other`, arguments of `generate`, say in their place."""
        settings = self.settings
        inputs = {
            name: value.to(self.device) if isinstance(value, Tensor) else value
            for name, value in start.items() if name in GENERATED_FROM
        }  # fmt: skip
        how = {
            "do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0,
            "max_new_tokens": settings.max_tokens, "pad_token_id": self.tokenizer.pad_token_id,
        }  # fmt: skip
        out = self.transformer.generate(**inputs, **how | other)
        return out[:, inputs["input_ids"].shape[1] :]

    def logits(self, sequences: Sequence[Sequence[int]], vectors: Tensor | None) -> Tensor:
        """The logits, float32 [B, T, V], of sequences as `prompt_ids` gives them, padded on the right."""
        ids, mask = self.soft.padded(sequences, left=False)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            embeds = self.soft.embed(ids, vectors)
            return self.transformer(inputs_embeds=embeds, attention_mask=mask, use_cache=False).logits.float()

    def new_token(self, name: str, vectors: int, init: str, generator: torch.Generator) -> Token:
        """A new token to train, as a float32 parameter; see `reward_tokens.pipelines.new_token`."""
        rows = first_rows(self.transformer, self.tokenizer, vectors, init, generator)
        return Token(name, {EMBEDDING: rows})

    def row_scales(self) -> dict[str, float]:
        """The root mean square of the embedding table."""
        return {EMBEDDING: row_scale(self.transformer)}

    def save_pretrained(self, folder: Path) -> bool:
        """Write model and tokenizer as transformers does. Always True, because nothing is left out."""
        self.transformer.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return True
