"""Let only those requests reach the page that use its name, have a bounded size, and ask what it answers.

A page on 127.0.0.1 is open to every site that the same browser visits. If the owner of a site lets its name
lead to 127.0.0.1, the site's scripts can read the page and ask it (DNS rebinding); and a form can post to any
address. Plain ASGI.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from ..types import ParetuneError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

LARGEST_BODY = 1 << 20  # bytes: enough for a language model's longest prompt
ASKED = re.compile(r"/(queue/join|reset|cancel)/?\Z")  # the only paths that the page itself posts to
NEVER = re.compile(
    r"\A(/gradio_api)?/(upload(_progress)?/?\Z|proxy=|file[=/]|component_server|monitoring|profiling|dev/|"
    r"run-history|stream|deep_link|vibe)"
)  # paths of Gradio that the page does not use
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_loopback(host: str) -> bool:
    """Whether a server that is bound to `host` can be reached only from this machine."""
    if _is_address(host):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host.lower() == "localhost"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def allowed_hosts(host: str, more: Sequence[str]) -> frozenset[str] | None:
    """The names that the page answers to.

    None means any name: the page is bound to an address that other machines reach, and no name was given.

    host: the address that the page is bound to. more: the names that the user allows.
    """
    for name in more:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name) and not _is_address(name):
            raise ParetuneError(f"--allow-host wants a name without a port, as a.example.org, not {name!r}")
    if not is_loopback(host) and not more:
        return None
    return frozenset(name.strip("[]").rstrip(".").lower() for name in (*LOOPBACK, host, *more))


class Guard:
    """Refuses a foreign Host or Origin, uploads, large bodies, and everything that is not a question.

    hosts: see `allowed_hosts`. inputs: the number of a question -> how many values it carries.
    """

    def __init__(
        self, app: Application, hosts: frozenset[str] | None = None,
        inputs: Mapping[int, int] | None = None,
    ) -> None:  # fmt: skip
        self.app, self.hosts, self.inputs = app, hosts, inputs or {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused is None and scope.get("method") == "POST":
            body = await _body(receive)
            refused = self._wrong(scope["path"], body)
            receive = _again(body or b"", receive)
        if refused is None:
            await self.app(scope, receive, send)
        else:
            await _answer(scope, send, *refused)

    def _refused(self, scope: Message) -> tuple[int, str] | None:
        """The status and the message for a request that is refused before its body is read, or None."""
        if self.hosts is not None:
            names = _headers(scope, b"host")
            if len(names) != 1 or _name(names[0]) not in self.hosts:
                return 421, "this page is not served under that name; --allow-host NAME adds one"
            for origin in _headers(scope, b"origin"):
                if _name(origin.partition("://")[2]) not in self.hosts:
                    return 403, "this page answers no other site"
        path = str(scope["path"])
        if NEVER.search(path):
            return 403, "this page takes no files and gives none"
        if scope["type"] == "http" and scope["method"] not in {"GET", "HEAD", "OPTIONS", "POST"}:
            return 405, "this page is read and asked, nothing else"
        if scope.get("method") == "POST" and not ASKED.search(path):
            return 403, "this page takes questions alone"
        return None

    def _wrong(self, path: str, body: bytes | None) -> tuple[int, str] | None:
        """The status and the message for a POST whose body is refused, or None. body: None if too large."""
        if body is None:
            return 413, f"the question is larger than {LARGEST_BODY:,} bytes"
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            return 400, "the question is not JSON"
        if not path.rstrip("/").endswith("join"):
            return None
        if not isinstance(asked, dict) or not isinstance(asked.get("data"), list):
            return 422, "the question is no object with a list called data"
        values, number = asked["data"], asked.get("fn_index")
        wanted = self.inputs.get(number) if isinstance(number, int) else None
        if wanted is None:
            return 422, "the page has no such question"
        if len(values) != wanted:
            return 422, f"the question has {len(values)} values, not {wanted}"
        if any(isinstance(value, list | dict) for value in values):
            return 422, "every value of the question is a text, a number, true, false or null"
        return None


def _headers(scope: Message, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]


def _name(host: str) -> str:
    """The name of a host without its port, in the form of `allowed_hosts`."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:]*)(:\d*)?", host.strip())
    return match[1].strip("[]").rstrip(".").lower() if match else ""


async def _body(receive: Receive) -> bytes | None:
    """The whole body, or None as soon as it is too large."""
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)
        if sum(map(len, parts)) > LARGEST_BODY:
            return None
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that first returns a body that was read already, and then what follows it."""
    reported = False

    async def again() -> Message:
        nonlocal reported
        if reported:
            return await receive()
        reported = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _answer(scope: Message, send: Send, status: int, line: str) -> None:
    """Refuse a request with a message in the form that the page's scripts read from Gradio."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    content = json.dumps({"detail": line, "error": line}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode()),
               (b"connection", b"close")]  # fmt: skip
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
