"""Opening a recipe's model as a policy, by the record of its family."""

from __future__ import annotations

from typing import cast

from ..config import ModelConfig
from ..types import ParetuneError
from .detect import family_of
from .facts import check_options
from .flow import FlowPolicy
from .memory import memory_errors, to_load
from .policy import Policy


def open_policy(config: ModelConfig, device: str = "cpu") -> Policy:
    """Load the model that a recipe names. Raises ParetuneError when it cannot be loaded."""
    check_options(config)
    family = family_of(config.path)
    from .checked import loading  # imported here because it loads torch, which not every importer needs

    with memory_errors(to_load, config), loading(f"model.path: {config.path} cannot be opened"):
        return family.open(config, device)


def open_flow_policy(config: ModelConfig, device: str = "cpu") -> FlowPolicy:
    """`open_policy` for a flow model. Raises ParetuneError for any other model."""
    if family_of(config.path).shape is None:
        raise ParetuneError(f"model.path: {config.path} is no flow model")
    return cast("FlowPolicy", open_policy(config, device))
