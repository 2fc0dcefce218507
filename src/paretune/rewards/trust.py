"""Which rewards are somebody's code, who may load them, and whether what a spec names can be a reward at all.

A registered name is paretune's own code, or that of a package that the user has installed: it is trusted.
"package.module:Name" and "file.py:Name" are run when they are imported: a recipe of one's own may name them,
one that lies in a run's folder may come from anybody.
"""

from __future__ import annotations

import functools
import inspect
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paretune.config import RunConfig
from paretune.types import ParetuneError

from .table import ELSEWHERE

ASK = "--trust-rewards"
NOT_TRUSTED = f"it is a file's or a module's code, which is run with {ASK} alone"


def is_code(spec: str) -> bool:
    """Whether a spec names a module or a file, which importing runs; registered names hold no colon.

    A reward that is asked over the network counts too: samples and a key go to an address of the recipe's.
    """
    return ":" in spec or spec in ELSEWHERE


def code_of(config: RunConfig) -> list[str]:
    """The specs of a recipe that are somebody's code: of rewards, judges, and what nothing trains on."""
    own = [spec for r in config.rewards.values() for spec in (r.reward, r.judge) if spec]
    return list(dict.fromkeys(filter(is_code, [*own, *config.evaluate.untargeted])))


def require_trust(config: RunConfig, trusted: bool, what: str) -> None:
    """Refuse work that means nothing without all of the recipe's rewards."""
    if not trusted and (code := code_of(config)):
        raise ParetuneError(
            f"{what} is measured by {', '.join(code)}: code that comes with a run's folder and may be "
            f"anybody's; give {ASK} to run it"
        )


def registered_only(config: RunConfig, trusted: bool, say: Callable[[str], None]) -> RunConfig:
    """The recipe without rewards and judges that are somebody's code, unless they are trusted.

    say: receives one line about which are left out. Raises ParetuneError where no reward is left.
    """
    code = code_of(config)
    if trusted or not code:
        return config
    rewards = {
        name: own.model_copy(update={"judge": None}) if own.judge and is_code(own.judge) else own
        for name, own in config.rewards.items()
        if not is_code(own.reward)
    }
    if not rewards:
        raise ParetuneError(f"no reward is left to score with: {left_out(code)}")
    say(left_out(code))
    others = tuple(spec for spec in config.evaluate.untargeted if not is_code(spec))
    evaluate = config.evaluate.model_copy(update={"untargeted": others})
    return config.model_copy(update={"rewards": rewards, "evaluate": evaluate})


def left_out(code: list[str]) -> str:
    """The line about rewards that are not loaded."""
    shown = ", ".join(" ".join(spec.split())[:120] for spec in code)
    if any(spec in ELSEWHERE for spec in code):
        whose = "the code and addresses of a run's folder may be anybody's"
        return f"not scored: {shown}; {whose}, and {ASK} uses them"
    return f"not scored: {shown}; the code of a run's folder may be anybody's, and {ASK} runs it"


# ---------------------------------------------------------------- what can be a reward


def check_kind(target: Any, spec: str) -> Any:
    """`target`, if it can be a reward: a class with a method score, an object of one, or a function written
    in Python; a partial of these too. Nothing is called."""
    inner = target
    while isinstance(inner, functools.partial):
        inner = inner.func
    if inspect.isclass(inner):
        _check_class(inner, spec)
        return target
    written = inspect.unwrap(inner) if callable(inner) else inner
    if inspect.isfunction(written) or inspect.ismethod(written):
        _refuse_library(inner, spec)
        return target
    methods = [inspect.getattr_static(type(inner), name, None) for name in ("score", "__call__")]
    if not callable(inner) and methods[0] is None and not hasattr(inner, "score"):
        raise ParetuneError(f"reward {spec!r} is a {type(inner).__name__}, not a class or function")
    if not any(map(inspect.isfunction, methods)) and inspect.getattr_static(inner, "score", None) is None:
        raise ParetuneError(
            f"reward {spec!r} is a {type(inner).__name__}, not a class with a method score or a function "
            "written in Python"
        )
    _refuse_library(type(inner), spec)
    return target


def check_options(target: Any, spec: str, options: dict[str, Any]) -> None:
    """Compare a recipe's options with what the class or function takes, before it is called."""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # a class that hides its own: the call will tell
        return
    inner = target
    while isinstance(inner, functools.partial):
        inner = inner.func
    samples_and_prompts = () if inspect.isclass(inner) else (None, None)
    try:
        signature.bind(*samples_and_prompts, **options)
    except TypeError as error:
        kinds = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        names = [p.name for p in signature.parameters.values() if p.kind in kinds]
        takes = ", ".join(names[len(samples_and_prompts) :]) or "no options"
        told = f"TypeError: {error} (it takes {takes})"
        raise ParetuneError(f"reward {spec!r} could not be made: {told}") from error


def _check_class(target: type, spec: str) -> None:
    score = inspect.getattr_static(target, "score", None)
    delegates = inspect.getattr_static(target, "__getattr__", None) is not None
    if score is None and not delegates:
        names = ("name", "range", "higher_is_better", "score")
        missing = [n for n in names if inspect.getattr_static(target, n, None) is None]
        raise ParetuneError(f"reward {spec!r} is a class without {', '.join(missing)}")
    _refuse_library(target, spec)
    if not inspect.isfunction(score):  # a static method, a property, ..: `score_samples` tells
        return
    try:
        inspect.signature(score).bind(None, None, None)
    except TypeError as error:
        told = f"its score must take (self, samples, prompts): {error}"
        raise ParetuneError(f"reward {spec!r} is no reward: {told}") from error


def _refuse_library(target: Any, spec: str) -> None:
    """A class or function of Python's own library scores nothing, and many of them start programs."""
    module = str(getattr(target, "__module__", ""))
    file = getattr(sys.modules.get(module), "__file__", None)
    named = module.partition(".")[0] in sys.stdlib_module_names
    # A user's own module may bear the name of one of Python's, but not lie where Python's do.
    if named and (file is None or Path(file).is_relative_to(sysconfig.get_path("stdlib"))):
        raise ParetuneError(f"reward {spec!r} is of Python's own module {module}, which holds no rewards")
