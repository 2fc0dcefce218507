"""What a recipe's preference objective needs of the rest of the recipe, checked before training."""

from __future__ import annotations

from ...config import RunConfig
from ...types import ParetuneError
from .options import PreferenceOptions
from .presets import Composition


def check_recipe(
    name: str, preset: Composition, own: PreferenceOptions, config: RunConfig
) -> None:
    """Raise ParetuneError if an objective cannot train as the recipe says.

    Args:
        name: the objective.
        preset: its parts.
        own: its options.
        config: the recipe.
    """
    _check_target(name, preset, own)
    last = config.model.steps - 1
    if preset.steps and own.window is not None and not 0 <= own.window[0] < own.window[1] <= last:
        raise ParetuneError(f"objective.options.window is [first, last) within the {last} stochastic steps")
    if own.sampler == "cps" and own.noise_level > 1:
        raise ParetuneError("objective.options.noise_level is at most 1 with sampler: cps")
    if own.eta[0] > own.eta[1]:
        raise ParetuneError("objective.options.eta is [least, most]")
    for reward, settings in config.rewards.items():
        epochs = settings.epochs or config.train.epochs
        if epochs % own.reuse:
            raise ParetuneError(
                f"objective.options.reuse: {own.reuse} epochs do not divide the {epochs} of {reward}"
            )


def _check_target(name: str, preset: Composition, own: PreferenceOptions) -> None:
    if own.target not in preset.targets:
        known = ", ".join(preset.targets)
        raise ParetuneError(f"objective.options.target: {name} has no {own.target}; choose of {known}")
    if own.target == "inverted_ref":
        raise ParetuneError(
            "objective.options.target: inverted_ref has no gradient where an adapter begins, which is at "
            "the reference; choose inverted"
        )

