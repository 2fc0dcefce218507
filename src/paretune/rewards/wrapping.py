"""Make a `Reward` of what a user wrote: a class, an instance, a function, a callable object, a partial.

What is declared is checked here, once, so that no other file meets a range that is no range.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from paretune.types import ParetuneError, Prompt, Reward, Samples

from .errors import one_line
from .trust import check_options

NEEDED = ("name", "range", "higher_is_better", "score")
OPTIONAL = ("applies", "check")
LONGEST = 100  # of a name, as recipes have it: it heads columns


class FunctionReward:
    """A plain function `f(images, prompts) -> B floats` as a reward; no range, higher is better.

    images: float32 [B, 3, H, W], or the B texts of a language model; prompts: the B `Prompt`s.
    Options are passed on by keyword.
    """

    def __init__(self, function: Callable[..., Any], name: str, **options: Any) -> None:
        self.name = name
        self.range = (-math.inf, math.inf)
        self.higher_is_better = True
        if (heads := getattr(function, "heads", None)) is not None:
            self.heads = heads
        self._function = functools.partial(function, **options)

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Whatever the function returns; `score_samples` checks it and makes it a tensor."""
        return self._function(samples, prompts)


class NamedReward:
    """A reward under the name that the run gives it. The reward itself is not changed: it may be frozen.

    All else (`applies`, `check` and what only this reward has) is the reward's own.
    """

    def __init__(
        self, reward: Any, name: str, bounds: tuple[float, float], higher_is_better: bool
    ) -> None:
        self._reward = reward
        self.name, self.range, self.higher_is_better = name, bounds, higher_is_better

    def score(self, samples: Any, prompts: Sequence[Prompt]) -> torch.Tensor:
        """See `Reward`."""
        return self._reward.score(samples, prompts)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_reward":  # asked for while a copy is being made
            raise AttributeError(name)
        return getattr(self._reward, name)


def build(target: Any, spec: str, options: dict[str, Any], name: str | None = None) -> Reward:
    """The reward that `target` is or makes. Raises ParetuneError, in one line, for what is no reward."""
    if inspect.isclass(target) or (isinstance(target, functools.partial) and inspect.isclass(target.func)):
        check_options(target, spec, options)
        return named(_made(target, spec, options), spec, name, ours=True)
    if _has(target, "score", spec):
        if options:
            raise ParetuneError(f"reward {spec!r} is an object, made already: it takes no options")
        return named(target, spec, name)
    if not callable(target):
        raise ParetuneError(f"reward {spec!r} is a {type(target).__name__}, not a class or function")
    _check_call(target, spec, options)
    label = str(getattr(target, "__name__", ""))
    own = label if label.isidentifier() else spec.rpartition(":")[2]  # a lambda has no name of its own
    return FunctionReward(target, name or own, **options)


def named(reward: Any, spec: str, name: str | None, ours: bool = False) -> Reward:
    """The reward, what it declares checked, under `name` or its own name.

    ours: made for this run, so that a name may be written into it where it lets us.
    """
    missing = [a for a in NEEDED if not _has(reward, a, spec)]
    if missing:
        raise ParetuneError(f"reward {spec!r} is a class without {', '.join(missing)}")
    own = name if name is not None else _read(reward, "name", spec)
    if not isinstance(own, str) or not own.strip() or not own.isprintable() or len(own) > LONGEST:
        raise ParetuneError(
            f"reward {spec!r}: its name must be one line of at most {LONGEST} characters, not {_shown(own)}"
        )
    for method in ("score", *OPTIONAL):
        value = _read(reward, method, spec)
        if value is not None and not callable(value):
            raise ParetuneError(f"reward {spec!r}: its {method} is {_shown(value)}, not a method")
    if reward.score is not None:
        _check_call(reward.score, spec, {})
    bounds, higher = _bounds(reward, spec), _direction(reward, spec)
    if ours and isinstance(reward.range, tuple) and isinstance(reward.higher_is_better, bool):
        with contextlib.suppress(Exception):  # it may be frozen, or have its name as a property
            if reward.name != own:
                reward.name = own
            if reward.name == own:
                return reward
    return NamedReward(reward, own, bounds, higher)


def _made(target: Any, spec: str, options: dict[str, Any]) -> Any:
    try:
        return target(**options)
    except ParetuneError:
        raise
    except Exception as error:
        raise ParetuneError(f"reward {spec!r} could not be made: {one_line(error)}") from error


def _bounds(reward: Any, spec: str) -> tuple[float, float]:
    """The range as two floats, the lower one first."""
    value = _read(reward, "range", spec)
    try:
        low, high = value
        if isinstance(value, (str, bytes)) or not all(isinstance(v, numbers.Real) for v in (low, high)):
            raise TypeError
        bounds = float(low), float(high)
    except Exception:  # it may be anything, with an iterator of its own
        bounds = (math.nan, math.nan)
    if not bounds[0] < bounds[1]:  # false for NaN too
        raise ParetuneError(
            f"reward {spec!r}: its range must be (least, greatest), two numbers of which either may be "
            f"infinite, not {_shown(value)}"
        )
    return bounds


def _direction(reward: Any, spec: str) -> bool:
    value = _read(reward, "higher_is_better", spec)
    if isinstance(value, (int, np.bool_)) and value in (0, 1):  # numpy's bool is no bool of Python's
        return bool(value)
    raise ParetuneError(f"reward {spec!r}: its higher_is_better must be True or False, not {_shown(value)}")


def _check_call(function: Callable[..., Any], spec: str, options: dict[str, Any]) -> None:
    """Refuse what cannot be called with samples and prompts, or would not answer at once."""
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    called = inner if inspect.isroutine(inner) else type(inner).__call__
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        raise ParetuneError(f"reward {spec!r} is async: write its scoring as a plain function")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some of C's functions have none
        return
    try:
        signature.bind([], [], **options)
    except TypeError as error:
        raise ParetuneError(
            f"reward {spec!r} cannot be called with samples, prompts and its options: {one_line(error)}"
        ) from error


def _has(reward: Any, attribute: str, spec: str) -> bool:
    return _read(reward, attribute, spec, missing := object()) is not missing


def _read(reward: Any, attribute: str, spec: str, default: Any = None) -> Any:
    """An attribute, which may be a property that raises."""
    try:
        return getattr(reward, attribute, default)
    except Exception as error:
        raise ParetuneError(f"reward {spec!r}: its {attribute} raised {one_line(error)}") from error


def _shown(value: Any) -> str:
    """A value for a message, in one line, whatever its own text does."""
    try:
        text = repr(value)
    except Exception:
        return f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."
