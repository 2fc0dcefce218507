"""Read files of preferences: lists of samples of a prompt, from the best to the worst or with scores.

A .jsonl file has one record on each line, in one of these forms; files are relative to its folder.

    {"prompt": .., "answers": [{"file": .., "score": 0.7, "caption": ..}, ..]}   as `paretune pairs` writes it
    {"prompt": .., "samples": [files], "scores": [..]}                          or "ranks", 1 the best
    {"prompt": .., "chosen": file, "rejected": file}
    {"prompt": .., "image_path": [files], "human_preference": [1, 0]}           HPDv2; or "rank"

Without scores or ranks, the best comes first. "captions": [..] gives each sample a caption of its own,
"segments": [[..], ..] each clip the scores of its equal parts in time, and "patches": [grid or null, ..] each
picture the weights of its patches, rows of numbers from 0 to 1.
"hf:OWNER/NAME@SPLIT" is a dataset whose rows have such a form, or Pick-a-Pic's: caption, jpg_0, jpg_1,
label_0.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from paretune.files import real
from paretune.types import ParetuneError

from .hub import PREFIX
from .part_labels import check_text, judged_of, read_patches, read_segments

Media = Path | bytes
LARGEST = 2**30  # bytes of a file, which is read at once


@dataclass(frozen=True)
class Preference:
    """Some samples of one prompt.

    samples: K files, or their bytes. scores: K numbers, greater is better. captions: K, or None: the prompt.
    where: the file and the line, for messages. judged: reward -> its K raw scores, as `paretune pairs` writes
    them. segments: for each sample the scores of its equal parts in time. patches: for each sample a grid of
    weights in [0, 1], or None.
    """

    prompt: str
    samples: tuple[Media, ...]
    scores: tuple[float, ...]
    captions: tuple[str, ...] | None
    where: str
    judged: Mapping[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    segments: tuple[tuple[float, ...], ...] | None = None
    patches: tuple[tuple[tuple[float, ...], ...] | None, ...] | None = None


@functools.lru_cache(maxsize=8)
def load_preferences(spec: str) -> tuple[Preference, ...]:
    """The records of a file or a dataset, in order. Raises ParetuneError, with the line, for a wrong one."""
    if spec.startswith(PREFIX):
        return _from_hub(spec)
    path = Path(spec)
    if path.suffix.lower() != ".jsonl":
        raise ParetuneError(f"pairs {spec}: expected a .jsonl file or hf:OWNER/NAME@SPLIT")
    try:
        if path.stat().st_size > LARGEST:
            raise ParetuneError(f"pairs {spec}: it has more than {LARGEST:,} bytes")
        lines = path.read_bytes().rstrip().split(b"\n")
    except OSError as error:
        raise ParetuneError(f"pairs {spec}: {error.strerror}") from error
    if lines == [b""]:
        raise ParetuneError(f"pairs {spec} is empty")
    return tuple(
        read_record(_json(line, f"{spec}:{number}"), f"{spec}:{number}", path.parent)
        for number, line in enumerate(lines, start=1)
    )


def with_whole_paths(spec: str) -> list[tuple[str, dict[str, Any]]]:
    """The prompt of every record of a file, and the record as it reads the same in another folder.

    Raises ParetuneError for a wrong record, and for a dataset of the hub.
    """
    path = preference_file(spec)
    if path is None:
        raise ParetuneError(f"pairs {spec}: a dataset cannot be divided; write it as a .jsonl file first")
    made = []
    lines = path.read_bytes().rstrip().split(b"\n")
    for line, read in zip(lines, load_preferences(spec), strict=True):
        record = dict(_json(line, read.where))
        files = [str(real(Path(str(media)))) for media in read.samples]
        if record.get("jpg_0") is not None:
            record["jpg_0"], record["jpg_1"] = files
        elif record.get("image_path") is not None:
            record["image_path"] = files
        elif record.get("answers") is not None:
            answers = cast("list[dict[str, Any]]", record["answers"])
            record["answers"] = [a | {"file": file} for a, file in zip(answers, files, strict=True)]
        elif record.get("samples") is not None:
            record["samples"] = files
        else:
            record["chosen"], record["rejected"] = files
        made.append((read.prompt, record))
    return made


def preference_file(spec: str) -> Path | None:
    """The file that `load_preferences` would read; None for a dataset of the hub."""
    return None if spec.startswith(PREFIX) else Path(spec)


def read_record(record: Mapping[str, Any], where: str, folder: Path) -> Preference:
    """One record in any of the forms. folder: that its files are relative to."""
    prompt = record.get("prompt", record.get("caption"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise ParetuneError(f'{where}: "prompt" is missing, empty or not a text')
    samples, scores, captions = _parts(record, where)
    if len(samples) < 2:
        raise ParetuneError(f"{where}: a list has at least two samples, and this one has {len(samples)}")
    for name, values in (("scores", scores), ("captions", captions)):
        if values is not None and len(values) != len(samples):
            raise ParetuneError(f"{where}: {len(samples)} samples, but {len(values)} {name}")
    media = tuple(_media(sample, where, folder) for sample in samples)
    if len(set(media)) < len(media) and captions is None:
        raise ParetuneError(f"{where}: the same file is on two sides: {samples[0]!s:.80}")
    numbers = _numbers(scores, where) if scores is not None \
        else tuple(float(len(samples) - i) for i in range(len(samples)))  # fmt: skip
    if captions is not None and not all(isinstance(c, str) and c.strip() for c in captions):
        raise ParetuneError(f"{where}: a caption is a text that is not empty")
    for text in (prompt, *(captions or ())):
        check_text(text, where)
    told = None if captions is None else tuple(captions)
    return Preference(
        prompt, media, numbers, told, where, judged_of(record.get("answers")),
        read_segments(record.get("segments"), len(media), where),
        read_patches(record.get("patches"), len(media), where),
    )  # fmt: skip


Parts = tuple[Sequence[Any], Sequence[Any] | None, Sequence[Any] | None]


def _parts(record: Mapping[str, Any], where: str) -> Parts:
    """The samples of a record, their scores and their captions."""
    captions = record.get("captions")
    if record.get("jpg_0") is not None:  # Pick-a-Pic: a tie is 0.5
        label = record.get("label_0")
        if not isinstance(label, int | float) or isinstance(label, bool) or not 0 <= label <= 1:
            raise ParetuneError(f"{where}: label_0 is a number between 0 and 1, not {label!r}")
        return [record["jpg_0"], record.get("jpg_1")], [label, 1 - label], captions
    if record.get("image_path") is not None:  # HPDv2
        ranks, liked = record.get("rank"), record.get("human_preference")
        scores = _negated(ranks, where) if ranks is not None else _listed(liked, "human_preference", where)
        return _listed(record["image_path"], "image_path", where), scores, captions
    if record.get("answers") is not None:
        return _answers(_listed(record["answers"], "answers", where), where)
    if record.get("samples") is not None:
        samples, scores, ranks = record["samples"], record.get("scores"), record.get("ranks")
        given = _negated(ranks, where) if ranks is not None else \
            None if scores is None else _listed(scores, "scores", where)  # fmt: skip
        return _listed(samples, "samples", where), given, captions
    if record.get("chosen") is not None and record.get("rejected") is not None:
        return [record["chosen"], record["rejected"]], None, captions
    raise ParetuneError(
        f'{where}: give "answers", "samples", or "chosen" and "rejected": files of pictures or clips'
    )


def _answers(answers: Sequence[Any], where: str) -> Parts:
    """The parts of a record that `paretune pairs` wrote."""
    entries = [cast("Mapping[str, Any]", a) for a in answers if isinstance(a, Mapping) and "file" in a]
    if len(entries) < len(answers):
        raise ParetuneError(f'{where}: every entry of "answers" has a "file"')
    scored = ["score" in a for a in entries]
    told = ["caption" in a for a in entries]
    for name, found in (("score", scored), ("caption", told)):
        if any(found) and not all(found):
            raise ParetuneError(f"{where}: some answers have a {name} and others do not")
    return (
        [a["file"] for a in entries],
        [a["score"] for a in entries] if any(scored) else None,
        [a["caption"] for a in entries] if any(told) else None,
    )


def _listed(value: Any, name: str, where: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ParetuneError(f'{where}: "{name}" is a list')
    return cast("Sequence[Any]", value)


def _negated(ranks: Any, where: str) -> list[float]:
    return [-r for r in _numbers(_listed(ranks, "ranks", where), where)]


def _numbers(values: Sequence[Any], where: str) -> tuple[float, ...]:
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise ParetuneError(f"{where}: scores and ranks are finite numbers, not {value!r:.40}")
    return tuple(float(value) for value in values)


def _media(value: Any, where: str, folder: Path) -> Media:
    """A file of a record, or the bytes of a dataset's row."""
    if isinstance(value, bytes) and value:
        return value
    if isinstance(value, Mapping):
        stored = cast("Mapping[str, Any]", value)
        if stored.get("bytes"):
            return stored["bytes"]
        value = stored.get("path")
    if not isinstance(value, str) or not value or "\0" in value:
        raise ParetuneError(f"{where}: a sample is the name of a file, not {value!r:.60}")
    return folder / value


def _json(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ParetuneError(f"{where}: malformed JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(record, dict):
        raise ParetuneError(f"{where}: expected a JSON object")
    return cast("Mapping[str, Any]", record)


def _from_hub(spec: str) -> tuple[Preference, ...]:
    place, _, split = spec.removeprefix(PREFIX).partition("@")
    if not place or not split:
        raise ParetuneError(f"pairs {spec}: write it as hf:OWNER/NAME@SPLIT")
    try:
        from datasets import Image, disable_progress_bars, load_dataset
    except ImportError as error:
        raise ParetuneError(f"pairs {spec} need datasets: pip install 'paretune[language]'") from error
    disable_progress_bars()
    try:
        rows: Any = load_dataset(place, split=split, trust_remote_code=False)
        for name, kind in rows.features.items():
            if isinstance(kind, Image):  # its bytes, not a decoded picture
                rows = rows.cast_column(name, Image(decode=False))
        records = list(rows)
    except Exception as error:  # the library raises exceptions of many kinds
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise ParetuneError(f"pairs {spec} cannot be loaded: {reason}") from error
    if not records:
        raise ParetuneError(f"pairs {spec} is an empty dataset")
    return tuple(read_record(row, f"{spec}, row {i}", Path(place)) for i, row in enumerate(records))
