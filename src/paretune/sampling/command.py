"""`paretune sample`: turn the options of the command into requests, and write a folder of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..limits import LARGEST
from ..rewards.trust import left_out
from ..types import ParetuneError
from .choices import preferred_from, read_choices, shown_fit
from .decoding import check_decoding, check_room, pattern_of
from .request import (
    Request,
    read_count,
    read_images,
    read_method,
    read_preference,
    read_prompt,
    read_seed,
)
from .sampler import Sampler
from .source import ModelSource, open_source
from .writing import check_place, sample_to


def sample_folder(
    target: str,
    prompts: Sequence[str],
    out: Path,
    prefer: str | None = None,
    method: str | None = None,
    tokens: str = "",
    count: int = 4,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    images: Sequence[str] = (),
    beams: int = 0,
    revisions: int = 0,
    trust_rewards: bool = False,
    say: Callable[[str], None] = lambda _: None,
    verify: bool = False,
    prefer_from: Path | None = None,
) -> dict[str, Any]:
    """Draw samples of every prompt into a new folder. All options are checked first.

    Args:
        target: a run or a model, as `open_source` takes it.
        prompts: the texts.
        out: the new folder.
        prefer: weights of rewards, as "ocr=0.7 beauty=0.3"; None for the recipe's.
        method: None for the run's first method.
        tokens: reward tokens, as "ocr:2 beauty@0.5".
        count: samples of every prompt.
        seed: of the noise.
        steps: sampling steps; None for those of the run's evaluation, or of the model's family.
        guidance: guidance scale; None likewise.
        images: files of input pictures, for a model that edits one: one for all prompts, or one for each.
        beams: answers of a language model by a search with so many beams; 0: drawn.
        revisions: how often each answer is revised.
        trust_rewards: whether the code of rewards that are files or modules may be run.
        say: called with a line that names the rewards which are therefore not run.
        verify: hash every file of a run.
        prefer_from: a file of choices (see `choices`), whose preference is taken in place of `prefer`.

    Returns:
        The content of sample.json; with `prefer_from`, and `preferred`: see `choices.shown_fit`.
    """
    _check(prefer, prefer_from, out, count)
    source = _adjusted(open_source(target, trust_rewards, verify), steps, guidance)
    own = read_method(method or ("base" if source.run_folder is None else source.methods[0]))
    weights = None if prefer is None else read_preference(prefer, _rewards(source))
    requests = _requests(source, prompts, own, weights, seed, tokens, images, beams, revisions)
    records = None
    if prefer_from is not None:
        records = read_choices(prefer_from, source)
        source.mixed(replace(requests[0], preference=source.default_preference))  # whether it takes one
    _notes(source, requests, count, say)
    sampler = _sampler(source, requests)
    if records is None:
        return sample_to(sampler, requests, count, out)
    fit, choices = preferred_from(records, sampler)
    say(_sentence(preferred := shown_fit(fit, choices, source.rewards)))
    requests = [replace(request, preference=fit.preference) for request in requests]
    return sample_to(sampler, requests, count, out, {"preferred": preferred})


def _check(prefer: str | None, prefer_from: Path | None, out: Path, count: int) -> None:
    """Raise ParetuneError for options that no model takes."""
    if prefer is not None and prefer_from is not None:
        raise ParetuneError("--prefer and --prefer-from both say a preference: give one of them")
    check_place(out)
    read_count(count)


def _notes(source: ModelSource, requests: Sequence[Request], count: int, say: Callable[[str], None]) -> None:
    """Say what is worth knowing before samples are drawn."""
    for line in check_decoding(source, requests, count):
        say(f"note: {line}")
    if source.unscored:
        say(left_out(list(source.unscored.values())))


def _sampler(source: ModelSource, requests: Sequence[Request]) -> Sampler:
    """A sampler for requests. Raises ParetuneError where answers could not be revised as often as asked."""
    sampler = Sampler(source)
    texts = [sampler.prompt(request).text for request in requests]
    check_room(sampler.policy, texts, requests[0], pattern_of(source.config))
    return sampler


def _requests(
    source: ModelSource, prompts: Sequence[str], method: str, preference: tuple[float, ...] | None, seed: int,
    tokens: str, images: Sequence[str], beams: int, revisions: int,
) -> list[Request]:  # fmt: skip
    """A request for every prompt. Raises ParetuneError for one that the source cannot draw."""
    medium = source.medium
    texts = [read_prompt(text, medium.longest, medium.lines) for text in prompts]
    requests = [
        Request(text, method, preference, read_seed(seed), tokens.strip(), image, beams, revisions)
        for text, image in zip(texts, read_images(images, len(texts)), strict=True)
    ]
    for request in requests:
        source.mixed(request)
        source.check_picture(request)
    return requests


def _sentence(fit: dict[str, Any]) -> str:
    """A line that tells what choices show."""
    shares = ", ".join(f"{name} {share:.2f} ± {fit['error'][name]:.2f}"
                        for name, share in fit["preference"].items())  # fmt: skip
    return f"{fit['choices']} choices prefer {shares}; this explains {fit['explained']:g} of them"


def _rewards(source: ModelSource) -> tuple[str, ...]:
    if not source.rewards:
        raise ParetuneError(f"{source.name} is a model, not a run: it has no rewards to prefer")
    return source.rewards


def _adjusted(source: ModelSource, steps: int | None, guidance: float | None) -> ModelSource:
    """The source with the sampling settings that are given. Its model must have such settings."""
    known = source.medium.settings(source.model, source.sampling)
    for option, name, value in (("--steps", "steps", steps), ("--guidance", "guidance_scale", guidance)):
        if value is not None and name not in known:
            raise ParetuneError(f"{option} is for flow models; {source.name} makes {source.medium.name}")
    if steps is not None:
        if not 2 <= steps <= 1000:
            raise ParetuneError(f"--steps must be from 2 to 1000, not {steps}")
        source = replace(source, steps=steps)
    if guidance is not None:
        if not 0 <= guidance <= LARGEST:  # no comparison holds for NaN
            raise ParetuneError(f"--guidance must be a number from 0 to {LARGEST:g}, not {guidance:g}")
        source = replace(source, guidance=guidance)
    return source
