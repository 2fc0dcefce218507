"""The files of public prompt sets: fetched when asked, checked by git's hash, kept as one JSON Lines file.

A set's first use downloads it; later ones read the kept file, whose bytes are checked each time, so that a
file that somebody changed is refused and not trained on.
"""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from paretune.files import read_json, write_bytes, write_json
from paretune.foreign.cache import cache_folder
from paretune.types import ParetuneError

from .sets import SETS, Source, find_set

SECONDS = 60  # that a server may be silent
LARGEST = 2**28  # bytes of a downloaded file


def kept_file(spec: str) -> Path:
    """Where the prompts of a set are kept once they were fetched. Raises ParetuneError for unknown sets."""
    name, split = find_set(spec)
    what = json.dumps([vars(source) for source in SETS[name].splits[split]])
    digest = hashlib.sha256(what.encode()).hexdigest()[:12]
    return cache_folder("prompts") / f"{name}-{split}-{digest}.jsonl"


def set_file(spec: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """The kept file of a set, fetched first if it is not here.

    Raises ParetuneError for an unknown set, a download that fails, and a file that was changed.
    """
    file = kept_file(spec)
    if not file.is_file() or not _note(file).is_file():
        _fetch(spec, file, say)
    known = read_json(_note(file)).get("sha256")
    if hashlib.sha256(file.read_bytes()).hexdigest() != known:
        raise ParetuneError(f"{file} was changed since it was fetched: delete it, and it is fetched again")
    return file


def source_of(spec: str) -> dict[str, Any]:
    """Where a fetched set is from: name, split, licence, prompts, files with revisions and hashes."""
    return read_json(_note(kept_file(spec)))


def _note(file: Path) -> Path:
    return file.with_suffix(".source.json")


def _fetch(spec: str, file: Path, say: Callable[[str], None]) -> None:
    name, split = find_set(spec)
    sources = SETS[name].splits[split]
    records: list[dict[str, Any]] = []
    for source in sources:
        say(f"downloading {source.url}")
        data = _hub_bytes(source) if source.hub else _url_bytes(source)
        found = git_hash(data)
        if source.blob is not None and found != source.blob:
            raise ParetuneError(
                f"prompt set {name}: {source.url} has other bytes than the published revision (git hash "
                f"{found[:12]}.., known {source.blob[:12]}..): it is not used"
            )
        where = f"prompt set {name}, {source.path}"
        records += [{**record, **dict(source.more)} for record in FORMS[source.form](data, where)]
    rows = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    write_bytes(file, rows)
    write_json(
        _note(file),
        {
            "set": name, "split": split, "licence": SETS[name].licence, "prompts": len(records),
            "sha256": hashlib.sha256(rows).hexdigest(),
            "files": [{"url": s.url, "revision": s.revision, "git_hash": s.blob} for s in sources],
        },
    )  # fmt: skip


def git_hash(data: bytes) -> str:
    """Git's name for a file with these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _url_bytes(source: Source) -> bytes:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        raise ParetuneError(f"{source.url} is not on this machine, and HF_HUB_OFFLINE forbids to fetch it")
    try:
        with urllib.request.urlopen(source.url, timeout=SECONDS) as answer:
            data = answer.read(LARGEST + 1)
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise ParetuneError(f"{source.url} cannot be downloaded: {_reason(error)}") from error
    if len(data) > LARGEST:
        raise ParetuneError(f"{source.url} has more than {LARGEST:,} bytes")
    return data


def _hub_bytes(source: Source) -> bytes:
    from huggingface_hub import hf_hub_download

    try:
        place = hf_hub_download(source.repo, source.path, repo_type="dataset", revision=source.revision)
        return Path(place).read_bytes()
    except Exception as error:  # the library raises exceptions of many kinds
        raise ParetuneError(f"{source.url} cannot be downloaded: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]


# ---------------------------------------------------------------- how the published files are written


def _lines(data: bytes, where: str) -> Iterator[dict[str, Any]]:
    for line in _text(data, where).split("\n"):
        if line.strip():
            yield {"prompt": line.strip()}


def _records(data: bytes, where: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_text(data, where).split("\n"), start=1):
        if line.strip():
            record = _json(line, f"{where}:{number}")
            if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
                raise ParetuneError(f'{where}:{number}: no record with a "prompt"')
            yield record


def _list(data: bytes, where: str) -> Iterator[dict[str, Any]]:
    entries = _json(_text(data, where), where)
    for entry in entries if isinstance(entries, list) else [None]:
        text = entry.get("prompt") if isinstance(entry, dict) else entry
        if not isinstance(text, str) or not text.strip():
            raise ParetuneError(f"{where} is no list of prompts")
        yield {"prompt": text.strip()}


def _tsv(data: bytes, where: str) -> Iterator[dict[str, Any]]:
    head, *rows = [line.split("\t") for line in _text(data, where).split("\n") if line.strip()]
    keys = [key.strip().lower() for key in head]
    if "prompt" not in keys:
        raise ParetuneError(f"{where} has no column Prompt")
    for row in rows:
        yield {key: cell.strip() for key, cell in zip(keys, row, strict=False) if cell.strip()}


def _vbench(data: bytes, where: str) -> Iterator[dict[str, Any]]:
    entries = _json(_text(data, where), where)
    for entry in entries if isinstance(entries, list) else [{}]:
        if not isinstance(entry, dict) or not isinstance(entry.get("prompt_en"), str):
            raise ParetuneError(f"{where} is no list of VBench's records")
        yield {"prompt": entry["prompt_en"], **{k: v for k, v in entry.items() if k != "prompt_en"}}


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode().removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ParetuneError(f"{where}: not UTF-8: {error.reason}") from error


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParetuneError(f"{where}: malformed JSON: {_reason(error)}") from error


FORMS: dict[str, Callable[[bytes, str], Iterator[dict[str, Any]]]] = {
    "lines": _lines, "records": _records, "list": _list, "tsv": _tsv, "vbench": _vbench,
}  # fmt: skip
