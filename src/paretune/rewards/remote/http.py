"""One HTTP question, as clients here ask it: no redirects, no proxies, a bounded answer.

A redirect would take a token or a key along to an address that nobody named.
"""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from paretune.files import parse_json
from paretune.types import ParetuneError

LARGEST = 1 << 26  # bytes of an answer
AGAIN = {408, 429, 500, 502, 503, 504}  # a later try may succeed


@dataclass(frozen=True)
class Reply:
    """An answer: its status, its headers by small letters, its body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""

    def json(self) -> Any:
        """The body as JSON; None for another body."""
        try:
            return parse_json(self.body)
        except ValueError:
            return None


def checked_url(url: Any, what: str) -> str:
    """A base URL without a slash at its end. Raises ParetuneError where it is no http address."""
    told = f"{what}: an address begins with http:// or https://, such as http://127.0.0.1:8600, not {url!r}"
    if not isinstance(url, str) or any(c.isspace() or not c.isprintable() for c in url):
        raise ParetuneError(told)
    try:
        parts = urlsplit(url)
        port_is_right = parts.port != 0
    except ValueError:
        raise ParetuneError(told) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_right or parts.query:
        raise ParetuneError(told)
    if parts.username or parts.password:
        raise ParetuneError(f"{what}: no name and password in an address; a token comes from the environment")
    return url.rstrip("/")


def exchange(
    url: str, body: bytes | None, headers: Mapping[str, str], seconds: float, most: int = LARGEST
) -> Reply:
    """POST a body to a URL, or GET it where there is none. Raises OSError where nothing answers in time."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    line = kind(parts.hostname or "", parts.port, timeout=seconds)
    try:
        line.request("GET" if body is None else "POST", parts.path or "/", body, dict(headers))
        answer = line.getresponse()
        content = answer.read(most + 1)
        if len(content) > most:
            raise OSError(f"an answer of more than {most:,} bytes")
        return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, content)
    except http.client.HTTPException as error:  # an answer that is cut off, or is none
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        line.close()


def waits(patience: float, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """One item a try: waits longer and longer between them, for `patience` seconds in all.

    The waits vary by chance, so that many callers do not come back at once.
    """
    end, wait = time.monotonic() + patience, 0.1
    while True:
        yield
        left = end - time.monotonic()
        if left <= 0:
            return
        sleep(min(left, wait * random.uniform(0.7, 1.3)))
        wait = min(2 * wait, 5.0)


def reason(error: OSError) -> str:
    """Why nothing answered, in a few words."""
    return " ".join((error.strerror or str(error) or type(error).__name__).split())[:200]
