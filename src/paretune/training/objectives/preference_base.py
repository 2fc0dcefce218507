"""What a preference objective declares before any model is loaded: checks, costs and words."""

from __future__ import annotations

from typing import Any, ClassVar

from ...config import RunConfig
from ...types import ParetuneError
from ..preferences.checking import check_recipe
from ..preferences.file_lists import check_file
from ..preferences.options import PreferenceOptions
from ..preferences.presets import Composition
from .base import Options
from .flow import FlowObjective


class PreferenceBase(FlowObjective[Options]):
    """See the module. preset, name: of the system."""

    preset: ClassVar[Composition]
    name: ClassVar[str]

    @classmethod
    def own_options(cls, options: Options) -> PreferenceOptions:
        """All options, with the preset's defaults for those that it does not read."""
        return PreferenceOptions.of(options, cls.preset.all_defaults)

    @classmethod
    def window(cls, own: PreferenceOptions, steps: int) -> tuple[int, int]:
        """The steps that are trained on, [first, last): by default all but the last.

        Candidates of the first fifth of the steps are not judged: as published, they show nothing yet.
        """
        skipped = -(-steps // 5) if cls.preset.builder == "candidates" and steps > 2 else 0
        return own.window or (skipped, steps - 1)

    @classmethod
    def check(cls, config: RunConfig, options: Any) -> None:
        """See `preferences.checking.check_recipe`."""
        check_recipe(cls.name, cls.preset, cls.own_options(options), config)

    @classmethod
    def check_expert(cls, name: str, config: RunConfig, reward: str, options: Any) -> None:
        """See `Objective.check_expert`: the file of pairs, if the expert has one or needs one."""
        if config.rewards[reward].pairs is not None:
            check_file(config, reward, name, cls.preset, cls.own_options(options))
        elif cls.preset.builder == "file":
            raise ParetuneError(
                f"rewards.{reward}: {name} trains on a file of pairs with captions: give its pairs"
            )

    @classmethod
    def trained_points(cls, config: RunConfig, options: Any) -> float:
        """See `Objective.trained_points`: levels, or steps, times the share of samples that are kept."""
        own, group = cls.own_options(options), config.train.group_size
        points = float(own.times)
        if cls.preset.steps:
            first, last = cls.window(own, config.model.steps)
            points = float(last - first)
        whole = "pairs" in cls.preset.all_reads and own.pairs == "all"
        kept = (config.train.keep or group) if whole else 2
        return points * kept / group / own.reuse

    @classmethod
    def anchored(cls, options: Any) -> bool:
        """See `Objective.anchored`."""
        return cls.preset.reference

    @classmethod
    def describe(cls, options: Any) -> str:
        """See `Objective.describe`."""
        own = cls.own_options(options)
        scale = f"beta {own.beta:g}, " if "beta" in cls.preset.all_reads else ""
        return f"{scale}{cls.preset.compare} on {own.target}, {cls.preset.builder}"
