"""`paretune eval` and `paretune score`: measure adapters, or score samples, outside a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..adapters.inputs import measurable, open_adapters
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
from ..rewards.former import refuse_drawings
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
    """Measure the base and each adapter over it.

    Args:
        config: a recipe with the base model, the rewards and the evaluation.
        adapters: folders, .safetensors files or hub ids, in any layout that merge reads.
        out: the folder where the rows are kept.
        report: called with the progress.
        renames: "OLD=NEW", for the modules of adapters.
        verify: hash every file of the adapters.

    Returns:
        Means and standard errors, by method and reward.
    """
    check(config)
    names = folder_names([Path(adapter) for adapter in adapters])
    open_adapters(adapters, renames)  # a mistake is reported before anything is written
    claim_eval(out)
    with lock(out):
        places = measurable(adapters, renames, out)
        for place in places:
            check_adapter(place, verify)
        n = config.evaluate.prompts
        subjects = [Subject("base", "base", (), n, ())]
        for name, adapter, place in zip(names, adapters, places, strict=True):
            # Rows are distinguished by this label, and "base" is the base model itself.
            label = "./base" if str(adapter) == "base" else str(adapter)
            subjects.append(Subject(name, label, (str(place),), n, ()))
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

    Numbers in names count as numbers: img_2 comes before img_10. If there are clips, pictures are taken to be
    their contact sheets and are left out.

    Args:
        reward: a spec, as in a recipe.
        folder: of the samples.
        prompts: a file or set of prompts, one for each sample.
        timeout: seconds that scoring one sample may take.

    Returns:
        One row for each sample, with its name, prompt and value.
    """
    if not 0 < timeout <= LARGEST:  # no comparison holds for NaN
        raise ParetuneError(f"--timeout must be above 0 seconds and at most {LARGEST:g}, not {timeout:g}")
    if not folder.is_dir():
        raise ParetuneError(f"no folder {folder}")
    files = [p for p in sorted(folder.iterdir(), key=natural) if p.suffix.lower() in KINDS]
    paths = [p for p in files if p.suffix.lower() in CLIPS] or files
    texts = load_prompts(prompts)
    if len(paths) != len(texts):
        raise ParetuneError(_uneven(folder, paths, prompts, texts))
    PATIENCE.set(timeout)
    scorer = load_reward(reward)
    for path, prompt in zip(paths, texts, strict=True):
        if (why := refusal(scorer, prompt)) is not None:
            raise ParetuneError(
                f"{prompts}: reward {scorer.name} cannot score {prompt.text!r}, which goes with {path.name}: "
                f"{why}"
            )
    rows = []
    for path, prompt in zip(paths, texts, strict=True):
        sample = read_sample(path)
        if isinstance(sample, torch.Tensor):
            refuse_drawings(reward, sample)
        value = score_samples(scorer, sample, [prompt], timeout=timeout)
        rows.append({"image": path.name, "prompt": prompt.text, "value": float(value[0])})
    return rows


def natural(path: Path) -> tuple[list[str | int], str]:
    """A key that sorts files by the words and numbers of their names, img_2 before img_10."""
    parts = re.split(r"([0-9]+)", path.stem)  # words and numbers in turn
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def _uneven(folder: Path, paths: Sequence[Path], prompts: str, texts: Sequence[Prompt]) -> str:
    """The message for different numbers of samples and prompts: which sample would go with which prompt."""
    pairs = [f"{path.name} with {prompt.text[:40]!r}" for path, prompt in zip(paths, texts, strict=False)]
    begin, end = ", ".join(pairs[:2]), f" .. {pairs[-1]}" if len(pairs) > 2 else ""
    if len(paths) > len(texts):
        rest = f"{paths[len(texts)].name} and what follows have no prompt"
    else:
        rest = f"prompt {len(paths) + 1}, {texts[len(paths)].text[:40]!r}, and what follows have no sample"
    paired = f"in the order of the names {begin}{end} go together, and " if pairs else ""
    return f"{folder} holds {len(paths)} samples but {prompts} {len(texts)} prompts: {paired}{rest}"
