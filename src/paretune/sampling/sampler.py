"""One loaded policy that draws and scores samples for any request: pictures, clips or texts.

A sample depends only on its request and its number. Samples are drawn one at a time, so neither the number of
samples nor other requests at the same time change a bit of it. All requests share the weights: each is drawn
under a lock, with its adapters folded in and taken out again, so that no request affects another.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..adapters.store import adapter_hash, load_delta, sum_deltas
from ..environment import choose_device
from ..inputs.pictures import picture_hash, picture_of, with_picture
from ..models.loading import open_policy
from ..models.lora import folded
from ..models.memory import memory_errors, to_draw
from ..models.weighting import add_embedding, embedding_hash
from ..models.whole import changed
from ..ops.lowrank import LowRank
from ..planning.long_prompts import cuts
from ..planning.plan import derive_seed
from ..records.manifest import finished, read_manifest
from ..reward_tokens.pipelines import resolve
from ..reward_tokens.spec import format_tokens
from ..rewards.base import RewardError, applies_to, reward_of, score_samples
from ..rewards.trust import NOT_TRUSTED
from ..samples.stamped import restored
from ..stages.menu import Mixed
from ..types import ParetuneError, Prompt, Reward, Samples
from .decoding import decode, pattern_of
from .records import prompt_of
from .request import Request
from .source import ModelSource

NO_RECORD = "it needs a record: the prompt is in no prompt file of the run, and its words imply none"


@dataclass(frozen=True)
class Drawn:
    """N samples, in the form that files hold.

    scores: one dict for each sample. left_out: reward -> the reason why it gives no score.
    """

    prompt: Prompt
    samples: Samples
    scores: tuple[dict[str, float], ...]
    left_out: Mapping[str, str]


class Sampler:
    """Draws from one source. Several threads may use it; they take turns."""

    def __init__(self, source: ModelSource) -> None:
        self.source, self.medium = source, source.medium
        self.policy = open_policy(source.model, choose_device(source.device))
        self._lock = threading.RLock()
        self._adapters: dict[str, dict[str, LowRank]] = {}
        self._intact: set[str] = set()
        self._rewards: list[Reward] | None = None

    def draw(self, request: Request, count: int = 1) -> Samples:
        """The first `count` samples of a request, in the form that files hold (`Medium.draw_each`)."""
        mixed = self.source.mixed(request)
        tokens = resolve(mixed.tokens, self.source.bank)
        # Sample i has the same seed for every prompt and method, so that models can be compared.
        seeds = [derive_seed("sample", request.seed, i) for i in range(count)]
        text = self.prompt(request).text
        with self._lock, self._threads(), torch.no_grad(), memory_errors(to_draw, self.source.model), \
                self._model(mixed), self._weighted(mixed):
            if request.beams or request.revisions:
                return decode(self.policy, text, request, seeds, pattern_of(self.source.config))
            return self.medium.draw_each(self.policy, text, seeds, self.source.sampling, tokens)

    def cuts(self, texts: Sequence[str]) -> list[str]:
        """A line for every text encoder that cuts some of these texts; see `planning.long_prompts`."""
        return cuts(self.source.model, [self.prompt(Request(text)).text for text in texts])

    def prompt(self, request: Request) -> Prompt:
        """The prompt of the run's files that a user's text stands for, or the text as it is.

        It has the input picture of the request, or else that of the run's file.
        """
        prompt = prompt_of(request.prompt, self.source.known, self.source.world, self.medium.name)
        return with_picture(prompt, request.image) if request.image else prompt

    def score(self, request: Request, drawn: Samples) -> Drawn:
        """Score samples of a request with the run's rewards."""
        prompt = self.prompt(request)
        scores, left_out = self._score(prompt, restored(drawn))
        return Drawn(prompt, drawn, scores, left_out)

    def scored(self, request: Request, samples: Samples) -> tuple[dict[str, float], ...]:
        """The scores of samples that were not drawn here, as rewards take them, for a request's prompt."""
        return self._score(self.prompt(request), samples)[0]

    def _score(
        self, prompt: Prompt, samples: Samples
    ) -> tuple[tuple[dict[str, float], ...], dict[str, str]]:
        scores: list[dict[str, float]] = [{} for _ in samples]
        left_out: dict[str, str] = dict.fromkeys(self.source.unscored, NOT_TRUSTED)
        with self._lock, self._threads():
            for reward in self.rewards():
                values = _values(reward, samples, prompt)
                if isinstance(values, str):
                    left_out[reward.name] = values
                    continue
                for row, value in zip(scores, values, strict=True):
                    row[reward.name] = value
        return tuple(scores), left_out

    def draw_scored(self, request: Request, count: int = 1) -> Drawn:
        """`draw`, then `score`."""
        return self.score(request, self.draw(request, count))

    def rewards(self) -> list[Reward]:
        """The rewards of the run that may be loaded. The first call loads them."""
        with self._lock:
            if self._rewards is None:
                owned = self.source.config.rewards if self.source.config else {}
                held = self.source.unscored
                self._rewards = [
                    reward_of(r, name) for name, r in owned.items() if name not in held
                ]
            return self._rewards

    def settings(self, request: Request) -> dict[str, Any]:
        """Everything that a sample was made from, as plain data that is stored in its file."""
        source = self.source
        mixed = source.mixed(request)
        shares, prompt = request.preference, self.prompt(request).text
        image = picture_of(prompt)
        return {
            "prompt": prompt,
            **({"image_sha256": picture_hash(image)} if image else {}),
            "method": request.method,
            "preference": None if shares is None else dict(zip(source.rewards, shares, strict=True)),
            "tokens": format_tokens(mixed.tokens),
            **({"beams": request.beams} if request.beams else {}),
            **({"revisions": request.revisions} if request.revisions else {}),
            "seed": request.seed,
            "model": source.world or Path(source.model.path).name,
            "run": source.name if source.run_folder else None,
            "adapters": [
                {"folder": folder, "scale": scale, "sha256": adapter_hash(self._checked(folder))}
                for folder, scale in zip(mixed.adapters, mixed.scales, strict=True)
            ],
            **self._told_weights(mixed),
            **self.medium.settings(source.model, source.sampling),
        }

    def _told_weights(self, mixed: Mixed) -> dict[str, Any]:
        """The embedding of weights and what it is given, for `settings`; {} where there is none."""
        if not mixed.weighted:
            return {}
        digest = embedding_hash(self._checked(mixed.weighted))
        given = dict(zip(self.source.rewards, mixed.weights, strict=True))
        return {"weights": {"folder": mixed.weighted, "sha256": digest, "given": given}}

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """Use the recipe's number of CPU threads for the length of a block, because the bits depend on it."""
        config, before = self.source.config, torch.get_num_threads()
        torch.set_num_threads(config.executor.threads if config else before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _model(self, mixed: Mixed) -> AbstractContextManager[None]:
        """A context in which the policy is the model that some folders of the run make of the base."""
        if not mixed.adapters:
            return nullcontext()
        config, transformer = self.source.config, self.policy.transformer
        if config is not None and config.lora is None:
            return changed(transformer, [self._checked(folder) for folder in mixed.adapters], mixed.scales)
        adapters = [self._adapter(folder) for folder in mixed.adapters]
        return folded(transformer, sum_deltas(adapters, mixed.scales))

    @contextmanager
    def _weighted(self, mixed: Mixed) -> Iterator[None]:
        """A block in which the policy is given the weights of a model, where it takes any."""
        if not mixed.weighted:
            yield
            return
        weighting = add_embedding(self.policy, self._checked(mixed.weighted), mixed.weights)
        try:
            yield
        finally:
            weighting.remove()

    def _adapter(self, folder: str) -> dict[str, LowRank]:
        """An adapter of the run. Its files are checked when it is read for the first time."""
        if folder not in self._adapters:
            self._adapters[folder] = load_delta([self._checked(folder)])
        return self._adapters[folder]

    def _checked(self, folder: str) -> Path:
        """The place of a folder of the run. Its files are checked at the first time."""
        assert self.source.run_folder is not None
        place = self.source.run_folder / folder
        if folder not in self._intact:
            manifest = read_manifest(place)
            finished(place, manifest.get("stage", ""), manifest.get("inputs", ""))
            self._intact.add(folder)
        return place


def _values(reward: Reward, samples: Samples, prompt: Prompt) -> Sequence[float] | str:
    """One score for each sample, or the reason why there are none."""
    if not applies_to(reward, prompt):
        return "it does not apply to this prompt" if prompt.metadata else NO_RECORD
    try:
        return score_samples(reward, samples, [prompt] * len(samples)).tolist()
    except RewardError as error:
        if prompt.metadata and not isinstance(error.__cause__, ParetuneError):
            raise
        return str(error)
