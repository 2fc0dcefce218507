"""Find a reward by its name, and score samples so that every failure is one clear line.

Shapes: B samples and B prompts; pictures are float32 [B, 3, H, W] and clips [B, T, 3, H, W] in [0, 1];
scores are float32 [B].
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import inspect
import math
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from paretune.types import ParetuneError, Prompt, Reward, Samples

from .apart import RewardApart, find_apart, shown
from .deadline import Late, within
from .errors import LATE, RewardError, RewardTimeout
from .trust import check_kind, check_options

REWARDS: dict[str, str] = {
    "geneval": "paretune.rewards.geneval:GenEvalReward",
    "geneval_strict": "paretune.rewards.geneval:StrictGenEval",
    "ocr": "paretune.rewards.ocr:OcrReward",
    "preference": "paretune.rewards.preference:PreferenceReward",
    "rapidocr": "paretune.rewards.ocr:RapidOcrJudge",
    "preference_judge": "paretune.rewards.preference:PreferenceJudge",
    "vqa": "paretune.rewards.vqa:CaptionJudge",
    "contrast": "paretune.rewards.layout:ContrastReward",
    "prominence": "paretune.rewards.layout:ProminenceReward",
    "video_quality": "paretune.rewards.video:VideoQuality",
    "motion_quality": "paretune.rewards.video:MotionQuality",
    "visual_judge": "paretune.rewards.video_judges:VisualJudge",
    "motion_judge": "paretune.rewards.video_judges:MotionJudge",
    "pickscore": "paretune.rewards.pickscore:PickScore",
    "scene_ocr": "paretune.rewards.scene_ocr:SceneOcr",
    "geneval_photo": "paretune.rewards.geneval_photo:GenEvalPhoto",
    "text_model": "paretune.rewards.text:TextModelReward",
    "length": "paretune.rewards.text:LengthPenalty",
    "repetition": "paretune.rewards.text:RepetitionPenalty",
    "helpful_rules": "paretune.rewards.text_rules:HelpfulRules",
    "harmless_rules": "paretune.rewards.text_rules:HarmlessRules",
}


class FunctionReward:
    """A plain function `f(images, prompts) -> B floats` as a reward; no range, higher is better.

    images: float32 [B, 3, H, W], or the B texts of a language model; prompts: the B `Prompt`s.
    Options are passed on by keyword.
    """

    def __init__(self, function: Callable[..., Any], name: str, **options: Any) -> None:
        self.name = name
        self.range = (-math.inf, math.inf)
        self.higher_is_better = True
        self._function = functools.partial(function, **options)

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Whatever the function returns; `score_samples` checks it and makes it a tensor."""
        return self._function(samples, prompts)


# ---------------------------------------------------------------- finding one


def load_reward(spec: str, name: str | None = None, **options: Any) -> Reward:
    """Build the reward that `spec` names.

    spec: a name of `REWARDS`, "package.module:Name", or "path/to/file.py:Name". Name is a class
    with `score` (constructed with the options) or a function (see `FunctionReward`).
    name: what the run calls it, where that differs from its own name.
    A reward of a module or a file is loaded and called in a process of its own (`apart.RewardApart`).
    Raises ParetuneError for an unknown name, a missing file or module, or unfit options.
    """
    return RewardApart(spec, name, options) if is_own(spec) else build_reward(spec, name, options)


def is_own(spec: str) -> bool:
    """Whether `spec` names a reward of a user's own: code of a module or of a file."""
    return ":" in spec and spec not in REWARDS


def check_spec(spec: str) -> None:
    """Raise ParetuneError where `find_reward` would; code of a user's own is imported elsewhere."""
    if is_own(spec):
        find_apart(spec)
    else:
        find_reward(spec)


def build_reward(spec: str, name: str | None, options: dict[str, Any]) -> Reward:
    """`load_reward`, in this process."""
    reward = _build(find_reward(spec), spec, options)
    if name is not None:
        reward.name = name
    return reward


def find_reward(spec: str) -> Any:
    """The class or function that `spec` names, not built. Raises ParetuneError as `load_reward` does."""
    if ":" not in spec and spec not in REWARDS:
        near = difflib.get_close_matches(spec.lower(), REWARDS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ParetuneError(
            f"unknown reward {spec!r}{hint} (known: {', '.join(REWARDS)}; or give module:Name "
            "or file.py:Name)"
        )
    return check_kind(_resolve(REWARDS.get(spec, spec)), spec)


def reward_file(spec: str) -> Path | None:
    """The file of "file.py:Name", which may not exist; None for a reward of a module or of a known name."""
    place = REWARDS.get(spec, spec).rpartition(":")[0]
    return Path(place) if place.endswith(".py") else None


def _resolve(path: str) -> Any:
    """The object that "module:Name" or "file.py:Name" points to."""
    place, _, attribute = path.rpartition(":")
    if not place or not attribute:
        raise ParetuneError(f"reward {path!r}: write it as module:Name or file.py:Name")
    try:
        module = _import_file(place) if place.endswith(".py") else importlib.import_module(place)
    except ParetuneError:
        raise
    except Exception as error:
        raise ParetuneError(f"reward {path!r}: cannot import {place}: {one_line(error)}") from error
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, dir(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ParetuneError(f"reward {path!r}: {place} has no {attribute!r}{hint}")
    return getattr(module, attribute)


def _import_file(place: str) -> ModuleType:
    path = Path(place)
    if not path.is_file():
        raise ParetuneError(f"reward file {place} does not exist")
    spec = importlib.util.spec_from_file_location(f"paretune_reward_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ParetuneError(f"reward file {place} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(target: Any, spec: str, options: dict[str, Any]) -> Reward:
    check_options(target, spec, options)
    if inspect.isclass(target):
        try:
            reward: Any = target(**options)  # checked below
        except ParetuneError:
            raise
        except Exception as error:
            raise ParetuneError(f"reward {spec!r} could not be made: {one_line(error)}") from error
        missing = [a for a in ("name", "range", "higher_is_better", "score")
                   if not hasattr(reward, a)]
        if missing:
            raise ParetuneError(f"reward {spec!r} is a class without {', '.join(missing)}")
        return reward
    if callable(target):
        label = getattr(target, "__name__", spec.rpartition(":")[2])
        return FunctionReward(target, label, **options)
    raise ParetuneError(f"reward {spec!r} is a {type(target).__name__}, not a class or function")


# ---------------------------------------------------------------- scoring


def score_samples(
    reward: Reward,
    samples: Samples,
    prompts: Sequence[Prompt],
    batch_size: int = 64,
    timeout: float | None = 120.0,
) -> torch.Tensor:
    """Score B samples in batches; float32 [B] on the CPU, all finite, the reward's own sign.

    timeout: seconds for one batch, None for no limit; the process of a user's own reward is killed when
    it takes longer, the call of another one is broken off. Raises RewardError, in one line with a prompt,
    when the reward raises, hangs, returns NaN or infinity, another number of values than samples, or
    something that is not numbers.
    """
    if len(samples) != len(prompts):
        raise ParetuneError(
            f"reward {reward.name!r}: {len(samples)} samples but {len(prompts)} prompts"
        )
    parts = []
    for start in range(0, len(prompts), batch_size):
        chunk = prompts[start : start + batch_size]
        value = _call(reward, samples[start : start + batch_size], chunk, timeout)
        parts.append(_checked(reward, value, chunk))
    return torch.cat(parts) if parts else torch.zeros(0)


def score_all(
    rewards: Sequence[Reward],
    samples: Samples,
    prompts: Sequence[Prompt],
    batch_size: int = 64,
    timeout: float = 120.0,
) -> dict[str, torch.Tensor]:
    """Each distinct reward's scores, {name: float32 [B]}; one that comes twice is scored once."""
    by_name: dict[str, Reward] = {}
    for reward in rewards:
        if by_name.setdefault(reward.name, reward) is not reward:
            raise ParetuneError(f"two different rewards are called {reward.name!r}: rename one")
    return {
        name: score_samples(reward, samples, prompts, batch_size, timeout)
        for name, reward in by_name.items()
    }


def applies_to(reward: Reward, prompt: Prompt) -> bool:
    """Whether a reward can score a prompt of another reward's set; true unless it says otherwise.

    A reward that needs something of the record (a word, say) has a method `applies(prompt) -> bool`.
    """
    applies = getattr(reward, "applies", None)
    return True if applies is None else bool(applies(prompt))


def oriented(reward: Reward, values: torch.Tensor) -> torch.Tensor:
    """The values with the sign that makes greater better: flipped for a reward that is a cost."""
    return values if reward.higher_is_better else -values


def _call(
    reward: Reward, samples: Samples, prompts: Sequence[Prompt], timeout: float | None
) -> Any:
    """What a reward returns for one batch; whatever it raises is a RewardError."""
    if isinstance(reward, RewardApart):
        return reward.scored(samples, prompts, math.inf if timeout is None else timeout)
    try:
        with within(timeout), torch.enable_grad():
            return reward.score(samples, prompts)
    except Late as error:
        told = f"did not answer within {timeout:g} s"
        raise RewardTimeout(f"{_line(reward, told, prompts[0])}; {LATE}") from error
    except BaseException as error:
        # Ctrl-C is the user's, unless this process does not hear it: then the reward raised it.
        if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            raise
        raise RewardError(_line(reward, f"raised {one_line(error)}", prompts[0])) from error


def _checked(reward: Reward, value: Any, prompts: Sequence[Prompt]) -> torch.Tensor:
    """The returned value as float32 [B], or RewardError."""
    wanted = f"{len(prompts)} numbers"
    try:
        given = torch.as_tensor(value).detach()
        if given.is_complex():
            raise TypeError("complex scores have no order")
        scores = given.to("cpu", torch.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        told = f"returned a {type(value).__name__}, not {wanted}"
        raise RewardError(_line(reward, told, prompts[0])) from error
    if scores.shape != (len(prompts),):
        told = f"returned shape {list(scores.shape)}, not {wanted}"
        raise RewardError(_line(reward, told, prompts[0]))
    bad = (~torch.isfinite(scores)).nonzero().flatten()
    if len(bad):
        row = int(bad[0])
        raise RewardError(_line(reward, f"returned {float(scores[row])}", prompts[row]))
    return scores


def _line(reward: Reward, told: str, prompt: Prompt) -> str:
    return f"reward {reward.name!r} {told} (prompt {shown(prompt)!r})"


def one_line(error: BaseException) -> str:
    """An exception in one line: its type and the first line of its message."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
