"""`paretune eval` and `paretune score`: measure adapters, or score samples, outside a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..adapters.inputs import measurable
from ..config import RunConfig
from ..data.prompts import load_prompts
from ..environment import fingerprint
from ..executors import open_executor
from ..executors.base import Report
from ..files import write_json
from ..limits import LARGEST
from ..models.detect import resolve_path
from ..records.names import folder_names
from ..records.seal import check_adapter
from ..rewards.base import load_reward, score_samples
from ..rewards.checks import refusal
from ..rewards.process import PATIENCE
from ..samples.files import CLIPS, KINDS, read_sample
from ..stages.claim import check, claim_eval, lock
from ..stages.evaluate import EvaluateJob, Subject, collect, evaluate_subject
from ..stages.summarise import tables
from ..types import ParetuneError, Prompt


def measure_adapters(
    config: RunConfig,
    adapters: Sequence[str | Path],
    out: Path,
    report: Report,
    renames: Sequence[str] = (),
    verify: bool = False,
) -> dict[str, Any]:
    """Means and standard errors of the base and of each adapter over it; rows are kept in `out`.

    adapters: folders, .safetensors files or hub ids, of any layout that merge reads. renames: "OLD=NEW".
    """
    check(config)
    names = folder_names([Path(adapter) for adapter in adapters])
    claim_eval(out)
    with lock(out):
        places = measurable(adapters, renames, out)  # told before the base is measured
        for place in places:
            check_adapter(place, verify)
        n = config.evaluate.prompts
        subjects = [Subject("base", "base", (), n, ())]
        for name, adapter, place in zip(names, adapters, places, strict=True):
            told = "./base" if str(adapter) == "base" else str(adapter)  # rows are told apart by this
            subjects.append(Subject(name, told, (str(place),), n, ()))
        model = fingerprint(resolve_path(config.model.path))
        jobs = [EvaluateJob(config, s, out, model) for s in subjects]
        with open_executor(config, usual=2, most=len(jobs)) as pool:
            pool.map(evaluate_subject, jobs, report)
        means, errors = tables(collect(config, out, tuple(subjects)))
        result = {"methods": means, "stderr": errors}
        write_json(out / "eval.json", result)
    return result


def score_folder(reward: str, folder: Path, prompts: str, timeout: float = 120.0) -> list[dict[str, Any]]:
    """Score the pictures, clips or texts of a folder, in the order of their names, each with its prompt.

    Numbers in names count as numbers: img_2 comes before img_10. Where there are clips, pictures are taken
    for their contact sheets and left out. timeout: seconds that one sample may take.
    """
    if not 0 < timeout <= LARGEST:  # no comparison holds for NaN
        raise ParetuneError(f"--timeout must be above 0 seconds and at most {LARGEST:g}, not {timeout:g}")
    if not folder.is_dir():
        raise ParetuneError(f"no folder {folder}")
    files = [p for p in sorted(folder.iterdir(), key=natural) if p.suffix.lower() in KINDS]
    paths = [p for p in files if p.suffix.lower() in CLIPS] or files
    told = load_prompts(prompts)
    if len(paths) != len(told):
        raise ParetuneError(_uneven(folder, paths, prompts, told))
    PATIENCE.set(timeout)
    scorer = load_reward(reward)
    for path, prompt in zip(paths, told, strict=True):
        if (why := refusal(scorer, prompt)) is not None:
            raise ParetuneError(
                f"{prompts}: reward {scorer.name} cannot score {prompt.text!r}, which goes with {path.name}: "
                f"{why}"
            )
    rows = []
    for path, prompt in zip(paths, told, strict=True):
        value = score_samples(scorer, read_sample(path), [prompt], timeout=timeout)
        rows.append({"image": path.name, "prompt": prompt.text, "value": float(value[0])})
    return rows


def natural(path: Path) -> tuple[list[str | int], str]:
    """A key that sorts files by the words and numbers of their names, img_2 before img_10."""
    parts = re.split(r"([0-9]+)", path.stem)  # words and numbers in turn
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def _uneven(folder: Path, paths: Sequence[Path], prompts: str, told: Sequence[Prompt]) -> str:
    """What is paired with what where that does not come out even, in one line."""
    pairs = [f"{path.name} with {prompt.text[:40]!r}" for path, prompt in zip(paths, told, strict=False)]
    begin, end = ", ".join(pairs[:2]), f" .. {pairs[-1]}" if len(pairs) > 2 else ""
    if len(paths) > len(told):
        rest = f"{paths[len(told)].name} and what follows have no prompt"
    else:
        rest = f"prompt {len(paths) + 1}, {told[len(paths)].text[:40]!r}, and what follows have no sample"
    paired = f"in the order of the names {begin}{end} go together, and " if pairs else ""
    return f"{folder} holds {len(paths)} samples but {prompts} {len(told)} prompts: {paired}{rest}"
