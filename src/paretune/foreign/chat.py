"""Rendering of chat templates, which are other people's programs, in a process that can be ended.

transformers runs templates in a sandbox that has no access to the system, but a template may still loop
forever or write gigabytes. Here a child process renders them within limits of time, memory and length. On a
system without fork they are rendered in this process.

To fork a process that holds a model takes tens of milliseconds, and the same prompts are asked for again and
again, so each text is kept for the life of the process.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from ..types import ParetuneError

SECONDS = 10.0  # time limit of a batch, to which each conversation adds EACH
EACH = 0.02
MEMORY = 1 << 30  # bytes that rendering may take in addition to what the process has
LENGTH = 10_000_000  # characters of one rendered conversation
MOST = 200  # characters that are shown of a template's error
KEPT = 2_000_000  # characters of rendered texts that are kept for one tokenizer
Turns = list[dict[str, str]]
Key = tuple[str, bool, str]

_kept: WeakKeyDictionary[Any, dict[Key, str]] = WeakKeyDictionary()


def render_chats(
    tokenizer: Any, chats: Sequence[Turns], what: str, prompt: bool = False, seconds: float = SECONDS
) -> list[str]:
    """Render conversations with the tokenizer's chat template.

    Args:
        tokenizer: a tokenizer of transformers that has a chat template.
        chats: the turns of each conversation.
        what: what has the template, as the beginning of the error message.
        prompt: end each text where an answer begins (`add_generation_prompt`).
        seconds: the time limit, to which each conversation adds EACH.

    Returns:
        One text per conversation. It holds its special tokens: tokenise it with `add_special_tokens=False`.

    Raises:
        ParetuneError: the template fails or does not end.
    """
    kept = _kept.setdefault(tokenizer, {})
    program = f"{tokenizer.chat_template} {tokenizer.special_tokens_map}"
    keys = [(program, prompt, json.dumps(turns)) for turns in chats]
    new = {key: turns for key, turns in zip(keys, chats, strict=True) if key not in kept}
    if not new:
        return [kept[key] for key in keys]
    texts = {key: kept[key] for key in keys if key in kept}
    texts |= dict(zip(new, _texts(tokenizer, list(new.values()), what, prompt, seconds), strict=True))
    if sum(map(len, kept.values())) + sum(len(texts[key]) for key in new) > KEPT:
        kept.clear()
    kept |= {key: texts[key] for key in new}
    return [texts[key] for key in keys]


def _texts(tokenizer: Any, chats: Sequence[Turns], what: str, prompt: bool, seconds: float) -> list[str]:
    """Render conversations in a child process; see `render_chats`."""

    def render() -> list[str]:
        return [
            tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)
            for turns in chats
        ]

    limit = seconds + EACH * len(chats)
    # A lock of another thread may block the child, which is no fault of the template: hence a second child.
    result = _in_child(render, limit) or _in_child(render, limit)
    if result is None:
        raise ParetuneError(f"{what}: its chat template does not end within {limit:.0f} seconds")
    if "error" in result:
        raise ParetuneError(f"{what}: its chat template fails: {result['error']}")
    return result["texts"]


def _in_child(render: Callable[[], list[str]], limit: float) -> dict[str, Any] | None:
    """{"texts": ..} or {"error": ..}, or None when there is no result in time."""
    if not hasattr(os, "fork"):
        return _rendered(render)
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # later Pythons warn of fork with threads; the child uses no thread
        child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
            _limit_memory()
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(json.dumps(_rendered(render)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        return _read(reader, time.monotonic() + limit)
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _rendered(render: Callable[[], list[str]]) -> dict[str, Any]:
    try:
        texts = render()
        if any(len(text) > LENGTH for text in texts):
            return {"error": f"it writes more than {LENGTH} characters"}
        return {"texts": texts}
    except MemoryError:
        return {"error": "it writes more than memory holds"}
    except Exception as error:  # a template may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        return {"error": reason[:MOST]}


def _limit_memory() -> None:
    """Limit this process to MEMORY bytes above what it has mapped already.

    The limit is relative because an accelerator's libraries map hundreds of gigabytes.
    """
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))


def _read(reader: int, end: float) -> dict[str, Any] | None:
    """Everything that the child wrote, or None when it did not finish before `end`."""
    parts: list[bytes] = []
    while (left := end - time.monotonic()) > 0:
        if not select.select([reader], [], [], left)[0]:
            break
        part = os.read(reader, 1 << 20)
        if not part:
            whole = b"".join(parts)
            return json.loads(whole) if whole else {"error": "it ended the process that rendered it"}
        parts.append(part)
    return None
