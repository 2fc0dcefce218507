"""Notices about prompts that a text encoder cuts: two that differ only after the cut draw the same samples.

The prompts are measured with the model's tokenizers, if they are on this machine; otherwise there is no
notice. A language model never cuts a prompt; one that is too long is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ..config import ModelConfig, RunConfig
from ..data.preferences import Preference, load_preferences
from ..data.prompts import load_prompts
from ..data.remote import is_remote
from ..models.detect import family_of, resolve_path
from ..models.text_limits import Limit
from ..models.tokenizers import open_tokenizer
from ..types import ParetuneError


def cut_notices(config: RunConfig, hub: bool = True) -> list[str]:
    """A line for every prompt file of a run and every text encoder that cuts some of its prompts.

    hub: whether datasets of the hub are loaded, which may download them; otherwise they are left out.
    """
    if not family_of(config.model.path).limits(config.model):
        return []  # a model that never cuts a prompt: its files need not be read
    files = dict.fromkeys(file for r in config.rewards.values() for file in (r.prompts, r.eval_prompts))
    lines: list[str] = []
    for file in files:
        if is_remote(file) and not hub:
            continue
        try:
            prompts = [prompt.text for prompt in load_prompts(file)]
        except ParetuneError:  # whoever needs the file reports it
            continue
        lines += [f"{file}: {line}" for line in cuts(config.model, prompts)]
    for spec, records in pair_files(config, hub).items():
        texts = dict.fromkeys(text for r in records for text in (r.prompt, *(r.captions or ())))
        lines += [f"{spec}: {line}" for line in cuts(config.model, list(texts))]
    return lines


def pair_files(config: RunConfig, hub: bool) -> dict[str, tuple[Preference, ...]]:
    """The records of every file of pairs of a recipe that can be read; whoever needs another reports it."""
    found: dict[str, tuple[Preference, ...]] = {}
    for own in config.rewards.values():
        if own.pairs and (hub or not is_remote(own.pairs)):
            with suppress(ParetuneError):
                found[own.pairs] = load_preferences(own.pairs)
    return found


def cuts(model: ModelConfig, prompts: Sequence[str]) -> list[str]:
    """A line for every text encoder that cuts some of the prompts."""
    lines = []
    for limit in family_of(model.path).limits(model):
        tokenizer = open_tokenizer(resolve_path(model.path), limit.tokenizer)
        if tokenizer is None:
            continue
        longest = _longest(tokenizer, limit)
        texts = [limit.written.replace("{}", prompt) for prompt in prompts]
        rows = tokenizer(texts, truncation=False, verbose=False)["input_ids"] if texts else []
        count = sum(len(row) > longest for row in rows)
        if count:
            shown = longest - limit.before
            lines.append(
                f"{count} of {len(prompts)} prompts {'is' if count == 1 else 'are'} longer than the {shown} "
                f"tokens that {limit.encoder} reads: what follows them is cut"
            )
    return lines


def _longest(tokenizer: Any, limit: Limit) -> int:
    """How many tokens of a text an encoder reads, including those before the prompt."""
    return limit.tokens + limit.before if limit.tokens else int(tokenizer.model_max_length)
