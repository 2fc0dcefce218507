"""Chat templates are other people's programs: they are rendered where they can be ended.

transformers runs them in a sandbox that keeps them from the system, but a template may still loop for ever
or write gigabytes. Here a child process renders them, with a limit of time, memory and length; where the
system has no fork they are rendered in place.
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

from ..types import ParetuneError

SECONDS = 10.0  # for a batch; and EACH more for each of its conversations
EACH = 0.02
MEMORY = 1 << 30  # bytes above what the process has
LENGTH = 10_000_000  # characters of one rendered conversation
MOST = 200  # characters of a template's own error
Turns = list[dict[str, str]]


def render_chats(
    tokenizer: Any, chats: Sequence[Turns], what: str, prompt: bool = False, seconds: float = SECONDS
) -> list[str]:
    """Conversations as the tokenizer's chat template writes them. prompt: up to where an answer begins.

    what: begins the line of the ParetuneError for a template that fails, or has no end. A rendered text holds
    its special tokens: it is tokenised with `add_special_tokens=False`.
    """
    def render() -> list[str]:
        return [
            tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)
            for turns in chats
        ]

    if not chats:
        return []
    limit = seconds + EACH * len(chats)
    # A child that another thread's lock holds up is no fault of the template: it gets a second one.
    told = _in_child(render, limit) or _in_child(render, limit)
    if told is None:
        raise ParetuneError(f"{what}: its chat template does not end within {limit:.0f} seconds")
    if "error" in told:
        raise ParetuneError(f"{what}: its chat template fails: {told['error']}")
    return told["texts"]


def _in_child(render: Callable[[], list[str]], limit: float) -> dict[str, Any] | None:
    """{"texts": ..} or {"error": ..}; None where no answer came in time."""
    if not hasattr(os, "fork"):
        return _rendered(render)
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # later Pythons': the child runs nothing that threads have a part in
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
    except Exception as error:  # a template raises what it likes
        told = " ".join(str(error).split()) or type(error).__name__
        return {"error": told[:MOST]}


def _limit_memory() -> None:
    """Of this process, above what it has already: an accelerator's libraries map hundreds of gigabytes."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))


def _read(reader: int, end: float) -> dict[str, Any] | None:
    """What the child wrote, whole."""
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
