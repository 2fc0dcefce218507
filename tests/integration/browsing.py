"""A page of `paretune demo` in its own process, and visitors in Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.warm import Begun

from .commands import begin

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 120_000  # milliseconds: a busy machine is slow, and what is waited for comes much sooner
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: `apt-get install chromium`")


@contextmanager
def served(run: Path) -> Iterator[str]:
    """The page's address."""
    for _ in range(3):  # a port that was free may be another test's when the server wants it
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        url = f"http://127.0.0.1:{port}/"
        server = begin("demo", run, "--port", port, "--trust-rewards")
        if left := _left(url, server):
            if "cannot serve on" not in left:
                break
            continue
        try:
            yield url
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)
        return
    pytest.fail(f"the server left: {left}")


def _left(url: str, server: Begun) -> str:
    """Wait until the server answers; what it told if it left before, else "" """
    for _ in range(3000):
        if server.poll() is not None:
            return repr(server.wait(timeout=1))
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return ""
        except OSError:
            time.sleep(0.1)
    server.send_signal(signal.SIGTERM)
    return f"it did not come up: {server.wait(timeout=60)!r}"


@contextmanager
def visits(browser: Any, address: str, ready: str) -> Iterator[Callable[..., Any]]:
    """Open the page; afterwards: no error in the console, nothing asked of another machine.

    ready: what the page has once its first answer is there.
    """
    wrong: list[str] = []
    contexts = []

    def heard(message: Any) -> None:
        if message.type == "error":
            wrong.append(message.text)

    def asked(request: Any) -> None:
        if not request.url.startswith((address, address.replace("http", "ws"), "data:", "blob:")):
            wrong.append(f"asked {request.url}")

    def open_page(width: int = 1200, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", heard)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
        page.on("request", asked)
        page.goto(address)
        page.wait_for_selector(ready)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def slider(page: Any, number: int) -> Any:
    return page.locator(".pt-slider input[type=range]").nth(number)
