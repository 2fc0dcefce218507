"""`paretune serve`: score for other machines, or for other processes of this one."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..rewards.apart import RewardApart
from ..rewards.process import PATIENCE, RewardProcess
from ..rewards.remote.batching import Batcher
from ..rewards.remote.digest import reward_digest
from ..rewards.remote.env import EnvProcess, environment, environment_key
from ..rewards.remote.server import LOOPBACK, Answers, Served, make_app
from ..rewards.remote.wire import PROTOCOL
from ..types import ParetuneError
from ..yaml_text import YamlMistake, load_yaml

MISSING = "`paretune serve` needs FastAPI and uvicorn: pip install 'paretune[serve]'"


@dataclass(frozen=True)
class Serving:
    """How rewards are served; the fields are the command's options. limit: MiB of a body."""

    host: str = "127.0.0.1"
    port: int = 8600
    device: str = "auto"
    workers: int = 1
    token: str | None = None
    env: Path | None = None
    batch: int = 64
    timeout: float = 120.0
    limit: int = 256

    def check(self) -> None:
        """Raise ParetuneError for a wrong option, and for a server that others reach without a token."""
        if find_spec("fastapi") is None or find_spec("uvicorn") is None:
            raise ParetuneError(MISSING)
        for name, least, most in (("port", 0, 65535), ("workers", 1, 64), ("batch", 0, 4096),
                                  ("timeout", 0.001, 1e6), ("limit", 1, 65536)):  # fmt: skip
            if not least <= getattr(self, name) <= most:
                raise ParetuneError(f"--{name} must be from {least} to {most}, not {getattr(self, name)}")
        token = self.token
        if token is not None and not (token.isascii() and token.isprintable() and token.strip()):
            raise ParetuneError("--token must be printable ASCII, and not empty")
        if self.token is None and not is_loopback(self.host):
            raise ParetuneError(
                f"--host {self.host} lets other machines ask: give a --token (or PARETUNE_TOKEN) that they "
                "must bear, or leave --host out"
            )

    def devices(self) -> list[dict[str, str]]:
        """Environment variables for each worker that let it see its device alone."""
        names = self.device.split(",")
        return [_visible(names[i % len(names)].strip()) for i in range(self.workers)]


def serve(
    names: Sequence[str], options: Sequence[str], serving: Serving, ready: Callable[[dict[str, Any]], None],
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Serve rewards until Ctrl-C.

    Args:
        names: specs of rewards, each with "LABEL=" in front where it is to be called otherwise.
        options: "LABEL.KEY=VALUE", of the rewards.
        serving: the command's options.
        ready: called with the address and what is served, once questions are answered.
        say: called with a line about what is installed.
    """
    serving.check()
    specs = labelled(names)
    given = options_of(specs, options)
    line = _bound(serving.host, serving.port)
    try:
        python = None if serving.env is None else environment(serving.env, say)
        key = None if serving.env is None else environment_key(serving.env)
        PATIENCE.set(serving.timeout)
        served = {
            label: _served(label, spec, given[label], serving, python, key) for label, spec in specs.items()
        }
        host, port = line.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        with TemporaryDirectory() as folder:
            answers = Answers(served, Path(folder), serving.limit << 20, serving.token, LOOPBACK | {host})
            facts = {name: own.digest for name, own in served.items()}
            _run(make_app(answers), line, lambda: ready({"url": url, "protocol": PROTOCOL, "rewards": facts}))
    finally:
        line.close()


def labelled(names: Sequence[str]) -> dict[str, str]:
    """Label -> spec. Raises ParetuneError for a label that an address cannot hold, or that comes twice."""
    found: dict[str, str] = {}
    for name in names:
        label, given, spec = name.rpartition("=")
        label = label if given else spec.rpartition(":")[2]
        if not label or not all(c.isalnum() or c in "._-" for c in label) or not label.isascii():
            raise ParetuneError(
                f"{name!r}: a reward is served under a name of letters, digits, ., _ and -; give it one, as "
                "NAME=SPEC"
            )
        if found.setdefault(label, spec) != spec or list(names).count(name) > 1:
            raise ParetuneError(
                f"two rewards would be served as {label!r}: give one another name, as NAME=SPEC"
            )
    return found


def options_of(specs: dict[str, str], options: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The options of each label, from "LABEL.KEY=VALUE"."""
    found: dict[str, dict[str, Any]] = {label: {} for label in specs}
    for item in options:
        key, equals, value = item.partition("=")
        label = max((one for one in specs if key.startswith(f"{one}.")), key=len, default=None)
        if not equals or label is None or len(key) == len(label) + 1:
            known = ", ".join(specs)
            raise ParetuneError(f"--option wants REWARD.KEY=VALUE with a reward of {known}, not {item!r}")
        try:
            found[label][key[len(label) + 1 :]] = load_yaml(value)
        except YamlMistake as error:
            raise ParetuneError(f"--option {item}: the value is not YAML: {error}") from error
    return found


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _visible(device: str) -> dict[str, str]:
    if device == "auto":
        return {}
    kind, _, number = device.partition(":")
    if kind not in {"cpu", "cuda"} or (number and not number.isdecimal()) or (kind == "cpu" and number):
        raise ParetuneError(f"--device is auto, cpu, cuda or cuda:N (several with commas), not {device!r}")
    return {"CUDA_VISIBLE_DEVICES": number if number else "" if kind == "cpu" else "0"}


def _served(
    label: str, spec: str, options: dict[str, Any], serving: Serving, python: Path | None, key: str | None
) -> Served:
    workers = [
        RewardApart(spec, label, options, RewardProcess(env) if python is None else EnvProcess(python, env))
        for env in serving.devices()
    ]
    batcher = Batcher(workers, serving.batch, serving.timeout)
    return Served(workers[0], reward_digest(spec, options, key), batcher)


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ParetuneError(f"cannot serve on {host}:{port}: {reason}; choose another --port") from error


def _run(app: Any, line: socket.socket, ready: Callable[[], None]) -> None:
    import uvicorn

    class Announced(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()

    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=10)
    # uvicorn raises it again after it has stopped, unless the process was started to ignore Ctrl-C.
    with suppress(KeyboardInterrupt):
        Announced(config).run([line])
    print("stopped", file=sys.stderr)  # noqa: T201
