"""Rewards of text: reward models of transformers with one label, length and repetition as costs.

A reward model is a sequence classifier as TRL trains them and as the hub holds them: a folder or hub id, with
its own tokenizer and its own way of writing a prompt and an answer as one text. Shapes: B answers, B scores.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from paretune.foreign import loading as foreign
from paretune.foreign.chat import render_chats
from paretune.types import ParetuneError, Prompt, turns_of

from ..hub import frozen
from ..pinned import pinned
from .length import longest

_PLACES = re.compile(r"\{prompt\}|\{answer\}")
CACHE = 4096  # texts whose tokens are kept: groups, judges and the rounds' base ask for the same ones again


class TextModelReward:
    """The score that a sequence classifier gives a prompt and its answer.

    model: a folder, a hub id, or WORLD/NAME of an embedded world. template: how the two become one text;
    "chat" for the tokenizer's own. squash: the sigmoid of the score, in 0..1, instead of the score.
    length_penalty: taken off for each word beyond length_limit. repetition_penalty: times the share of
    repeated word triples. dtype: of the network; bfloat16 takes half the memory. revision: the commit of
    `model`.
    """

    name = "text_model"
    higher_is_better = True

    def __init__(
        self,
        model: str,
        template: str = "{prompt}{answer}",
        squash: bool = False,
        max_length: int | None = None,
        batch_size: int = 32,
        length_penalty: float = 0.0,
        length_limit: int = 0,
        repetition_penalty: float = 0.0,
        dtype: str = "float32",
        device: str | None = None,
        revision: str | None = None,
    ) -> None:
        if template != "chat" and not ("{prompt}" in template and "{answer}" in template):
            raise ParetuneError("option template: chat, or a text that holds {prompt} and {answer}")
        self.template, self.squash, self.batch_size = template, squash, batch_size
        self.length_penalty, self.length_limit = length_penalty, length_limit
        self.repetition_penalty = repetition_penalty
        penalised = length_penalty > 0 or repetition_penalty > 0
        self.range = (-math.inf if penalised or not squash else 0.0, 1.0 if squash else math.inf)
        self._place = model
        self._model, self._tokenizer = _load(model, device, dtype, pinned(model, revision))
        if template == "chat" and not self._tokenizer.chat_template:
            raise ParetuneError(f"reward model {model}: its tokenizer has no chat template; give a template")
        self._tokenizer.truncation_side = "left"  # the answer is at the end
        self._max_length = longest(self._model, self._tokenizer, max_length)
        self._tokens: OrderedDict[str, list[int]] = OrderedDict()

    @torch.no_grad()
    def score(self, samples: Sequence[str], prompts: Sequence[Prompt]) -> torch.Tensor:
        """[B]. Texts are scored in the order of their lengths, so that little is padding."""
        texts = self._texts([p.text for p in prompts], samples)
        rows = [self._encode(text) for text in texts]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        scores = torch.empty(len(rows))
        for start in range(0, len(order), self.batch_size):
            index = order[start : start + self.batch_size]
            scores[index] = self._forward([rows[i] for i in index])
        if self.squash:
            scores = scores.sigmoid()
        return scores - self._penalties(samples)

    def _penalties(self, samples: Sequence[str]) -> torch.Tensor:
        long = torch.tensor([float(max(0, len(a.split()) - self.length_limit)) for a in samples])
        same = torch.tensor([repetition(a) for a in samples])
        return self.length_penalty * long + self.repetition_penalty * same

    def _encode(self, text: str) -> list[int]:
        if text in self._tokens:
            self._tokens.move_to_end(text)
        else:
            self._tokens[text] = self._tokenizer(
                text, truncation=True, max_length=self._max_length,
                add_special_tokens=self.template != "chat",  # a chat template spells them out
            )["input_ids"]  # fmt: skip
            if len(self._tokens) > CACHE:
                self._tokens.popitem(last=False)
        return self._tokens[text]

    def _texts(self, prompts: Sequence[str], answers: Sequence[str]) -> list[str]:
        pairs = list(zip(prompts, answers, strict=True))
        if self.template != "chat":
            # In one pass: what stands in a prompt or an answer is words, never a place to fill.
            parts = [{"{prompt}": p, "{answer}": a} for p, a in pairs]
            return [_PLACES.sub(lambda place, own=own: own[place[0]], self.template) for own in parts]
        turns = [[*turns_of(p), {"role": "assistant", "content": a}] for p, a in pairs]
        return render_chats(self._tokenizer, turns, f"reward model {self._place}")

    def _forward(self, rows: Sequence[list[int]]) -> torch.Tensor:
        """Right-padded: these models read the score at the last token that is no padding."""
        pad, longest = self._model.config.pad_token_id, max(1, *map(len, rows))
        ids = torch.full((len(rows), longest), pad)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        device = self._model.device
        row = self._model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, 0]
        return row.float().cpu()


def _load(model: str, device: str | None, dtype: str, commit: dict[str, str]) -> tuple[Any, Any]:
    """Network and tokenizer, checked for what a reward needs."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    place = _resolve(model)
    try:
        config: Any = foreign.load(AutoConfig, place, f"reward model {model}", **commit)
        tokenizer: Any = foreign.load(AutoTokenizer, place, f"reward model {model}", **commit)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ParetuneError(f"reward model {model} cannot be loaded: {reason}") from error
    if config.num_labels != 1:
        raise ParetuneError(
            f"reward model {model} has {config.num_labels} labels: a classifier, not a reward model; "
            "one with a single score is needed (num_labels 1)"
        )
    if len(tokenizer) > config.vocab_size:
        raise ParetuneError(
            f"reward model {model}: its tokenizer knows {len(tokenizer)} tokens but the model only "
            f"{config.vocab_size}: they do not belong together"
        )
    if config.pad_token_id is None:
        pad = tokenizer.pad_token_id
        config.pad_token_id = tokenizer.eos_token_id if pad is None else pad
    if config.pad_token_id is None:
        raise ParetuneError(f"reward model {model} has no padding token and no end token; set pad_token_id")
    try:
        network = frozen(AutoModelForSequenceClassification, place, device, dtype, config=config, **commit)
        return network, tokenizer
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ParetuneError(f"reward model {model} cannot be loaded: {reason}") from error


def _resolve(model: str) -> str:
    """The folder of WORLD/NAME where an embedded world has one; anything else as it is."""
    from paretune import worlds

    place = Path(str(worlds.__file__)).parent / model
    return str(place) if (place / "config.json").is_file() else model


def repetition(text: str, words: int = 3) -> float:
    """The share of a text's word triples (or n-tuples) that came before in it; 0 for a short one."""
    tokens = text.split()
    seen = [tuple(tokens[i : i + words]) for i in range(len(tokens) - words + 1)]
    return 1 - len(set(seen)) / len(seen) if seen else 0.0


class LengthPenalty:
    """A cost: how many of at most `most` words an answer has beyond `limit`, as a share. 0..1."""

    name, range, higher_is_better = "length", (0.0, 1.0), False

    def __init__(self, limit: int = 0, most: int = 256) -> None:
        if most <= limit:
            raise ParetuneError("length: most must be above limit")
        self.limit, self.most = limit, most

    def score(self, samples: Sequence[str], prompts: Sequence[Prompt]) -> torch.Tensor:
        """[B]."""
        over = [(len(a.split()) - self.limit) / (self.most - self.limit) for a in samples]
        return torch.tensor(over).clamp(0, 1)


class RepetitionPenalty:
    """A cost: the share of repeated n-tuples of words. 0..1."""

    name, range, higher_is_better = "repetition", (0.0, 1.0), False

    def __init__(self, words: int = 3) -> None:
        self.words = words

    def score(self, samples: Sequence[str], prompts: Sequence[Prompt]) -> torch.Tensor:
        """[B]."""
        return torch.tensor([repetition(a, self.words) for a in samples])
