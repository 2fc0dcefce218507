"""`paretune tokens`: add reward tokens to a finished run, as if its recipe had asked for them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import RunConfig, TokensConfig
from ..environment import choose_device
from ..executors.base import Report
from ..files import read_json, write_text
from ..models.detect import resolve_path
from ..recipes import changed_keys, load_config, parse_config
from ..records import seal
from ..records.manifest import MANIFEST
from ..rewards.trust import require_trust
from ..run import run
from ..stages.claim import check, lock
from ..stages.train_tokens import FINAL
from ..tracking.table import check_trackers
from ..types import ParetuneError


def add_tokens(
    out: Path, overrides: Sequence[str], report: Report, trust_rewards: bool = False, verify: bool = False
) -> dict[str, Any]:
    """Train a token for every expert of a finished run, and measure the tokens.

    The run's recipe gets a section `tokens`, so that the run is an ordinary run afterwards: what is finished
    is skipped, and what was stopped continues.

    Args:
        out: the folder of the run.
        overrides: settings such as "tokens.steps=800".
        report: called with events, as in `run`.
        trust_rewards: whether to run the code of rewards that are files or modules; they choose and measure
            tokens.
        verify: hash every file of the run.

    Returns:
        The new summary.
    """
    if not (out / "summary.json").exists() or not (out / "config.yaml").exists():
        raise ParetuneError(f"{out} holds no finished run; `paretune run ... --resume` finishes one")
    seal.check_run(out, verify, ("config.yaml", "summary.json", "final/manifest.json"))
    with lock(out):  # nothing changes while another process works here; `run` takes the lock again
        config = _with_tokens(out, overrides)
        require_trust(config, trust_rewards, f"a token of {out}")
        check(config)  # what `run` would refuse after the recipe was written
        before = load_config(out / "config.yaml")
        changed = changed_keys(before, config)
        if changed and (out / "tokens").exists():
            raise ParetuneError(
                f"{out} holds tokens that were trained with other settings ({', '.join(changed)}); "
                f"move {out / 'tokens'} away to train new ones"
            )
        # What `run` would refuse later; from here on the seal no longer holds the recipe, which changes.
        check_trackers(config.trackers)
        choose_device(config.executor.device)
        seal.begin(out, Path(resolve_path(config.model.path)), verify)
        if not (out / "tokens").exists():  # delete what was made from tokens that no longer exist
            finals = [out / FINAL / reward for reward in config.rewards]
            for stale in [*finals, *filter(_measured_tokens, out.glob("evaluation/rate*"))]:
                shutil.rmtree(stale, ignore_errors=True)
        write_text(out / "config.yaml", config.to_yaml())
    return run(config, out, report, resume=True, verify=verify)


def _with_tokens(out: Path, overrides: Sequence[str]) -> RunConfig:
    """The run's recipe with a section `tokens`, to which the overrides are applied."""
    for item in overrides:
        if not item.startswith("tokens."):
            raise ParetuneError(f"--set {item}: only tokens.* can be set for a run that is finished")
    config = load_config(out / "config.yaml", overrides)
    if config.tokens is not None:
        return config
    section = {"tokens": TokensConfig.model_validate({}).model_dump(mode="json")}
    return parse_config(config.model_dump(mode="json") | section, str(out / "config.yaml"))


def _measured_tokens(folder: Path) -> bool:
    """Whether a run measured tokens in this folder. Folders that a user added are not touched."""
    try:
        return bool(read_json(folder / MANIFEST)["subject"]["tokens"])
    except (ParetuneError, KeyError, TypeError):
        return False
