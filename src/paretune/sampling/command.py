"""`paretune sample`: a user's words -> requests -> a folder of samples. Words are checked first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..limits import LARGEST
from ..rewards.trust import left_out
from ..types import ParetuneError
from .request import Request, read_count, read_method, read_preference, read_prompt, read_seed
from .sampler import Sampler
from .source import Source, open_source
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
    trust_rewards: bool = False,
    say: Callable[[str], None] = lambda _: None,
    verify: bool = False,
) -> dict[str, Any]:
    """Draw `count` samples of every prompt into the new folder `out`; returns what sample.json holds.

    trust_rewards: as `open_source` has it. say: is told, in a line, which rewards score nothing without.
    """
    check_place(out)
    read_count(count)
    if method is not None:
        read_method(method)
    source = _adjusted(open_source(target, trust_rewards, verify), steps, guidance)
    medium = source.medium
    texts = [read_prompt(text, medium.longest, medium.lines) for text in prompts]
    chosen = method or ("base" if source.run is None else source.methods[0])
    preference = None if prefer is None else read_preference(prefer, _rewards(source))
    requests = [Request(text, chosen, preference, read_seed(seed), tokens.strip()) for text in texts]
    for request in requests:
        source.mixed(request)
    if source.unscored:
        say(left_out(list(source.unscored.values())))
    return sample_to(Sampler(source), requests, count, out)


def _rewards(source: Source) -> tuple[str, ...]:
    if not source.rewards:
        raise ParetuneError(f"{source.name} is a model, not a run: it has no rewards to prefer")
    return source.rewards


def _adjusted(source: Source, steps: int | None, guidance: float | None) -> Source:
    """The source with other sampling settings where they are given, and where its model has such."""
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
