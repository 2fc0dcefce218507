"""`paretune eval` and `paretune score`: measure adapters, or score samples, outside a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .config import RunConfig
from .data.prompts import load_prompts
from .environment import choose_device, fingerprint
from .executors.base import Report
from .executors.local import LocalExecutor
from .files import write_json
from .folder import check
from .policies.folders import resolve_path
from .policies.sample_files import CLIPS, KINDS, read_sample
from .rewards.base import load_reward, score_samples
from .seal import check_adapter
from .stages.evaluate import EvaluateJob, Subject, collect, evaluate_subject
from .stages.summarise import tables
from .types import ParetuneError


def measure_adapters(
    config: RunConfig, adapters: Sequence[Path], out: Path, report: Report, verify: bool = False
) -> dict[str, Any]:
    """Means and standard errors of the base and of each adapter over it; rows are kept in `out`."""
    check(config)
    for adapter in adapters:
        if not adapter.is_dir():
            raise ParetuneError(f"no adapter folder {adapter}")
        check_adapter(adapter, verify)
    n = config.evaluate.prompts
    subjects = [Subject("base", "base", (), n, ())]
    subjects += [Subject(str(a).replace("/", "-"), str(a), (str(a.resolve()),), n, ()) for a in adapters]
    device = choose_device(config.executor.device)
    model = fingerprint(resolve_path(config.model.path))
    jobs = [EvaluateJob(config, s, out, model, device) for s in subjects]
    with LocalExecutor(min(len(jobs), config.executor.workers or 2), config.executor.threads) as pool:
        pool.map(evaluate_subject, jobs, report)
    means, errors = tables(collect(config, out, tuple(subjects)))
    result = {"methods": means, "stderr": errors}
    write_json(out / "eval.json", result)
    return result


def score_folder(reward: str, folder: Path, prompts: str) -> list[dict[str, Any]]:
    """Score the pictures, clips or texts of a folder, in the order of their names, each with its prompt.

    Where there are clips, pictures are taken for their contact sheets and left out.
    """
    if not folder.is_dir():
        raise ParetuneError(f"no folder {folder}")
    files = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in KINDS]
    paths = [p for p in files if p.suffix.lower() in CLIPS] or files
    told = load_prompts(prompts)
    if len(paths) != len(told):
        raise ParetuneError(f"{folder} holds {len(paths)} samples but {prompts} {len(told)} prompts")
    scorer = load_reward(reward)
    rows = []
    for path, prompt in zip(paths, told, strict=True):
        value = score_samples(scorer, read_sample(path), [prompt])
        rows.append({"image": path.name, "prompt": prompt.text, "value": float(value[0])})
    return rows
