"""`paretune merge --method search`: the weights of anyone's adapters, chosen by measuring their averages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..adapters.inputs import check_together, open_adapters
from ..adapters.merge import MergeReport, merge_adapters
from ..config import RunConfig
from ..environment import choose_device
from ..executors.base import Report
from ..files import check_new
from ..limits import check_lattice
from ..models.loading import open_policy
from ..ops.merge_weights import simplex_lattice
from ..ops.merging import DIVISIONS
from ..stages.claim import check
from ..stages.measure_candidates import PROMPTS, means_of, validation_of, values_of
from ..types import ParetuneError


def merge_by_search(
    inputs: Sequence[str | Path],
    config: RunConfig,
    report: Report,
    rank: int | None = None,
    energy: float | None = None,
    *,
    out: str | Path,
    base_model: str | None = None,
    divisions: int = DIVISIONS,
    prompts: int = PROMPTS,
    renames: Sequence[str] = (),
) -> MergeReport:
    """Merge adapters with those weights on the simplex lattice whose model has the largest hypervolume.

    Each candidate's average is folded into the base model and draws samples for `prompts` TRAINING prompts
    of every reward, evenly spaced. The provenance lists every candidate with its mean rewards and its value.
    The arguments that are not described here, and the errors, are those of `merge_adapters`.

    Args:
        inputs: the adapters.
        config: a recipe with the base model and the rewards.
        report: called with the progress.
        divisions: of the lattice.
        prompts: how many training prompts of every reward are used.
    """
    check_new(Path(out))
    check(config)
    adapters = open_adapters(inputs, renames)
    check_together(adapters, [str(name) for name in inputs], base_model)
    try:
        check_lattice("divisions", len(adapters), divisions)
    except ValueError as error:
        raise ParetuneError(str(error)) from error
    candidates = list(simplex_lattice(len(adapters), divisions))
    policy = open_policy(config.model, choose_device(config.executor.device))
    means: list[dict[str, float]] = []
    sets = validation_of(config, prompts)
    for measured in means_of(policy, config, sets, adapters, (), candidates, (rank, energy)):
        means.append(measured)
        report({"folder": "search", "update": len(means), "epochs": len(candidates)})
    found, reference = values_of(config, means)
    values = dict(zip(candidates, found, strict=True))
    rows: list[dict[str, Any]] = [
        {"weights": list(w), "means": m, "value": v}
        for (w, v), m in zip(values.items(), means, strict=True)
    ]
    return merge_adapters(
        inputs, None, "search", rank, energy, out=out, base_model=base_model, renames=renames,
        provenance={"search": rows, "reference_point": reference, "by": config.name, "prompts": prompts},
        divisions=divisions, evaluate=lambda weights: values[tuple(weights)],
    )  # fmt: skip
