"""Policy objectives of flow models as pure functions.

Shapes: log-probabilities, ratios and advantages [B]; velocities, states and means [B, ...].
Every function returns a scalar to minimise, a mean over B, unless its docstring says otherwise.
"""

from __future__ import annotations

from typing import Any

import torch


def importance_ratio(log_prob: torch.Tensor, old_log_prob: torch.Tensor) -> torch.Tensor:
    """pi / pi_old. [B]. It is 1 on policy, before the first update."""
    return torch.exp(log_prob - old_log_prob)


def guard_ratio(
    log_prob: torch.Tensor,
    old_log_prob: torch.Tensor,
    mean: torch.Tensor,
    old_mean: torch.Tensor,
    std: float,
) -> torch.Tensor:
    """The normalised ratio of GRPO-Guard (Wang et al. 2025). [B].

    exp(dlogp * c + mse(mean, old mean) / (2c)) with c = the step's std. It is centred on 1 at every time, so
    that the clip acts equally at all times, which limits over-optimisation.
    """
    mse = ((mean - old_mean) ** 2).flatten(1).mean(1)
    return torch.exp((log_prob - old_log_prob) * std + mse / (2 * std))


def clipped_policy_loss(
    ratio: torch.Tensor, advantages: torch.Tensor, clip_range: float | torch.Tensor
) -> torch.Tensor:
    """PPO's -min(rho A, clip(rho) A) (Schulman et al. 2017; Flow-GRPO). clip_range: one, or [B]."""
    low: Any = 1 - clip_range  # Any, because torch annotates two numbers or two tensors, and not either
    high: Any = 1 + clip_range
    clipped: torch.Tensor = ratio.clamp(low, high)
    return -torch.minimum(ratio * advantages, clipped * advantages).mean()


def mean_kl(mean: torch.Tensor, reference_mean: torch.Tensor, drift_std: float) -> torch.Tensor:
    """KL of two steps with the same noise, mean|mu - mu_ref|^2 / (2 s^2) (Flow-GRPO). drift_std: s."""
    return ((mean - reference_mean) ** 2).mean() / (2 * drift_std**2)


def velocity_kl(velocity: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """mean|v - v_ref|^2: the KL term of the forward-process objectives."""
    return ((velocity - reference) ** 2).mean()


def nft_loss(
    velocity: torch.Tensor,
    old_velocity: torch.Tensor,
    state: torch.Tensor,
    clean: torch.Tensor,
    sigma: torch.Tensor,
    advantages: torch.Tensor,
    beta: float,
    advantage_max: float,
) -> torch.Tensor:
    """DiffusionNFT (Zheng et al. 2025, arXiv 2509.16117): learn from good and bad samples at once.

    v+ = beta v + (1 - beta) v_old and v- = (1 + beta) v_old - beta v both predict the clean sample. Their
    errors are weighted by r and 1 - r with r = clip(A / (2 A_max) + 1/2, 0, 1).

    Args:
        velocity: v, of the model in training.
        old_velocity: v_old, of the model that drew the samples.
        state: the noised samples, at which the velocities are predicted.
        clean: the samples.
        sigma: their noise levels [B].
        advantages: A.
        beta: the strength of the implicit guidance.
        advantage_max: A_max.
    """
    s = sigma.view(-1, *[1] * (state.ndim - 1))
    positive = beta * velocity + (1 - beta) * old_velocity
    negative = (1 + beta) * old_velocity - beta * velocity
    share = (advantages / (2 * advantage_max) + 0.5).clamp(0, 1)
    good = _weighted_error(state - s * positive, clean)
    bad = _weighted_error(state - s * negative, clean)
    return (advantage_max * (share * good + (1 - share) * bad) / beta).mean()


def _weighted_error(prediction: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """|x0_hat - x0|^2 divided by its detached mean absolute error, so that all times weigh equally. [B]."""
    error = prediction - clean
    weight = error.detach().abs().flatten(1).mean(1).clamp(min=1e-5)
    return (error**2).flatten(1).mean(1) / weight


def matching_log_prob(
    velocity: torch.Tensor, clean: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """-mean|v - (noise - x0)|^2, which replaces a log-probability in the forward process (AWM). [B]."""
    return -((velocity - (noise - clean)) ** 2).flatten(1).mean(1)


def awm_loss(
    log_prob: torch.Tensor, old_log_prob: torch.Tensor, advantages: torch.Tensor, clip_range: float
) -> torch.Tensor:
    """Advantage-weighted matching (Xue et al. 2025): the clipped loss on `matching_log_prob`."""
    return clipped_policy_loss(importance_ratio(log_prob, old_log_prob), advantages, clip_range)
