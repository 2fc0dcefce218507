"""Find a reward by its name, and score samples so that every failure is one clear line.

Shapes: B samples and B prompts; pictures are float32 [B, 3, H, W] and clips [B, T, 3, H, W] in [0, 1];
scores are float32 [B].
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from paretune.types import ParetuneError, Prompt, Reward, Samples

from .checks import applies_to
from .errors import RewardError, one_line
from .errors import failure as _line
from .importing import neighbours, resolve
from .printing import prints_to_stderr
from .scores import checked_scores, own_prompts, own_samples
from .wrapping import FunctionReward, build

__all__ = [
    "REWARDS",
    "FunctionReward",
    "RewardError",
    "applies_to",
    "find_reward",
    "load_reward",
    "oriented",
    "reward_file",
    "score_all",
    "score_samples",
]

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


# ---------------------------------------------------------------- finding one


def load_reward(spec: str, name: str | None = None, **options: Any) -> Reward:
    """Build the reward that `spec` names.

    spec: a name of `REWARDS`, "package.module:Name", or "path/to/file.py:Name". Name is a class
    with `score` (constructed with the options), an object that has it, or a function (`FunctionReward`).
    name: what the run calls it, where that differs from its own name.
    Raises ParetuneError for an unknown name, a missing file or module, unfit options, or what is no reward.
    """
    return build_reward(spec, name, options)


def build_reward(spec: str, name: str | None, options: dict[str, Any]) -> Reward:
    """`load_reward`, in this process."""
    target, file = find_reward(spec), reward_file(spec)
    with prints_to_stderr():
        if file is None:
            return build(target, spec, options, name)
        with neighbours(file.resolve().parent):
            return build(target, spec, options, name)


def find_reward(spec: str) -> Any:
    """The class or function that `spec` names, not built. Raises ParetuneError as `load_reward` does."""
    if ":" not in spec and spec not in REWARDS:
        near = difflib.get_close_matches(spec.lower(), REWARDS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ParetuneError(
            f"unknown reward {spec!r}{hint} (known: {', '.join(REWARDS)}; or give module:Name "
            "or file.py:Name)"
        )
    with prints_to_stderr():
        return resolve(REWARDS.get(spec, spec))


def reward_file(spec: str) -> Path | None:
    """The file of "file.py:Name", which may not exist; None for a reward of a module or of a known name."""
    place = REWARDS.get(spec, spec).rpartition(":")[0]
    return Path(place) if place.endswith(".py") else None


# ---------------------------------------------------------------- scoring


def score_samples(
    reward: Reward,
    samples: Samples,
    prompts: Sequence[Prompt],
    batch_size: int = 64,
    timeout: float = 120.0,
) -> torch.Tensor:
    """Score B samples in batches; float32 [B] on the CPU, all finite, the reward's own sign.

    The reward gets copies: what it does to samples and prompts changes nothing for anybody else.
    timeout: seconds for one batch; a call that takes longer is given up (its daemon thread is left
    behind). Raises RewardError, in one line with a prompt, when the reward raises, hangs, returns
    NaN or infinity, another number of values than samples, or something that is not numbers.
    """
    if len(samples) != len(prompts):
        raise ParetuneError(
            f"reward {reward.name!r}: {len(samples)} samples but {len(prompts)} prompts"
        )
    parts = []
    for start in range(0, len(prompts), batch_size):
        chunk = prompts[start : start + batch_size]
        own = own_samples(samples[start : start + batch_size])
        with prints_to_stderr():
            value = _call(reward, own, own_prompts(chunk), timeout)
            parts.append(checked_scores(reward, value, chunk))
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


def oriented(reward: Reward, values: torch.Tensor) -> torch.Tensor:
    """The values with the sign that makes greater better: flipped for a reward that is a cost."""
    return values if reward.higher_is_better else -values


def _call(
    reward: Reward, samples: Samples, prompts: Sequence[Prompt], timeout: float
) -> Any:
    """One call in a thread of its own, so that a reward that hangs does not hang the run."""
    outcome: dict[str, Any] = {}
    threads = torch.get_num_threads()

    def work() -> None:
        # OpenMP keeps its thread count a thread, and a fresh one would take every core.
        torch.set_num_threads(threads)
        try:
            outcome["value"] = reward.score(samples, prompts)
        except BaseException as error:  # re-raised below, as RewardError, in the caller's thread
            outcome["error"] = error

    worker = threading.Thread(target=work, daemon=True, name=f"reward-{reward.name}")
    worker.start()
    worker.join(timeout)
    if "error" in outcome:
        error = outcome["error"]
        raise RewardError(_line(reward, f"raised {one_line(error)}", prompts[0])) from error
    if "value" not in outcome:
        raise RewardError(_line(reward, f"did not answer within {timeout:g} s", prompts[0]))
    return outcome["value"]
