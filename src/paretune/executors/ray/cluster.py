"""Connecting to a Ray cluster, and what its machines have. Ray prints little and reports nothing."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...config import ExecutorConfig
from ...types import ParetuneError

PATIENCE = 5.0  # seconds until an address counts as one where nobody answers


def connect(address: str) -> bool:
    """Connect this process to the cluster; whether it was not connected before.

    Raises ParetuneError, one line, where Ray is not installed and where there is no cluster.
    """
    # Ray reads this when it is imported. What the user has set is kept.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ParetuneError(f'executor.kind: ray needs Ray ({error}): pip install "paretune[ray]"') from error
    if ray.is_initialized():
        return False
    if address not in ("auto", "local"):
        _check_answers(address)
    settings: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        with _silence():
            ray.init(
                address=address, logging_level=logging.ERROR, log_to_driver=False, configure_logging=False,
                **settings,
            )  # fmt: skip
    except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and others
        reason = " ".join(str(error).split()).partition(". ")[0][:200]
        raise ParetuneError(
            f"executor.address: there is no Ray cluster at {address} that takes this process ({reason}); "
            "start one with `ray start --head`, set executor.address to local, or, where the cluster asks "
            "for a token, RAY_AUTH_MODE=token in the environment"
        ) from error
    return True


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing on standard error: Ray's C++ writes a warning for each second that it cannot connect."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check_answers(address: str) -> None:
    """Refuse an address where nothing answers: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ParetuneError(f"executor.address: {address} is not auto, local, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except OSError as error:
        option = "--ray-client-server-port" if address.startswith("ray://") else "--port"
        raise ParetuneError(
            f"executor.address: nobody answers at {address} ({error.strerror or error}); start the cluster "
            f"with `ray start --head {option} {port}` there, or set executor.address to local"
        ) from error


def machines() -> list[Mapping[str, Any]]:
    """The machines of the cluster that are alive, as Ray describes them."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def device_of(settings: ExecutorConfig) -> str:
    """"cpu" or "cuda", by the recipe and what the cluster has; never by what the driver's machine has."""
    gpus = sum(node["Resources"].get("GPU", 0) for node in machines())
    if settings.device == "cuda" and not gpus:
        raise ParetuneError(
            "executor.device is cuda, but no machine of the Ray cluster has a GPU; set it to cpu or auto"
        )
    return "cuda" if settings.device != "cpu" and gpus else "cpu"
