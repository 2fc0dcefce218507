"""What goes into a reward and what comes out: copies in, checked numbers out."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from paretune.types import Prompt, Reward, Samples

from .errors import RewardError, failure


def own_samples(samples: Samples) -> Samples:
    """A copy that a reward may change: the run's samples are judged and shown after it."""
    return samples.detach().clone() if isinstance(samples, torch.Tensor) else list(samples)


def own_prompts(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Copies, records and all that is in them included: other rewards read the same prompts."""
    return [Prompt(prompt.text, copy.deepcopy(dict(prompt.metadata))) for prompt in prompts]


def checked_scores(reward: Reward, value: Any, prompts: Sequence[Prompt]) -> torch.Tensor:
    """The returned value as float32 [B] on the CPU, or RewardError."""
    wanted = f"{len(prompts)} numbers"
    if inspect.iscoroutine(value):
        value.close()  # otherwise Python warns that nobody waited for it
    if isinstance(value, Mapping):
        keys = ", ".join(map(str, value))
        told = f"returned a {type(value).__name__}, not {wanted}; "
        told += f"where its keys ({keys}) are heads, name one by rewards.NAME.head"
        raise RewardError(failure(reward, told, prompts[0]))
    try:
        scores = torch.as_tensor(value).detach()
        if scores.layout != torch.strided:
            raise RewardError(failure(reward, f"returned a sparse tensor, not {wanted}", prompts[0]))
        if scores.is_complex():
            raise RewardError(failure(reward, f"returned complex numbers, not {wanted}", prompts[0]))
        scores = scores.to("cpu", torch.float32)
        shape = list(scores.shape)  # a nested tensor has none
    except RewardError:
        raise
    except Exception as error:  # whatever torch raises for an object that is no tensor
        what = f"returned a {type(value).__name__}, not {wanted}"
        raise RewardError(failure(reward, what, prompts[0])) from error
    if shape != [len(prompts)]:
        what = f"returned shape {shape}, not {wanted}"
        raise RewardError(failure(reward, what, prompts[0]))
    bad = (~torch.isfinite(scores)).nonzero().flatten()
    if len(bad):
        row = int(bad[0])
        raise RewardError(failure(reward, f"returned {float(scores[row])}", prompts[row]))
    return scores
