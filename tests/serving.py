"""A reward server in this process, on a free port of this machine, for tests of its client."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from paretune.rewards.remote.batching import Batcher
from paretune.rewards.remote.server import LOOPBACK, Answers, Served, make_app


@contextmanager
def served(
    rewards: Mapping[str, Any], folder: Path, token: str | None = None, limit: int = 1 << 20,
    wrap: Callable[[Any], Any] = lambda app: app, most: int = 64, digest: str = "d1",
) -> Iterator[tuple[str, Answers]]:  # fmt: skip
    """The address, and what answers there. wrap: puts something around the application, such as faults."""
    batchers = {name: Batcher([reward], most, 20.0) for name, reward in rewards.items()}
    own = {name: Served(reward, digest, batchers[name]) for name, reward in rewards.items()}
    answers = Answers(own, folder, limit, token, LOOPBACK)
    line = socket.create_server(("127.0.0.1", 0), backlog=256)
    server = uvicorn.Server(uvicorn.Config(wrap(make_app(answers)), log_level="error", access_log=False))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.run, args=([line],), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{line.getsockname()[1]}", answers
    finally:
        server.should_exit = True
        thread.join(10)
        line.close()
        for batcher in batchers.values():
            batcher.close()
