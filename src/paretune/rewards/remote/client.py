"""`reward: remote`: a reward that `paretune serve` scores, on this machine or another one."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from paretune.types import ParetuneError, Prompt, Samples

from ..errors import RewardError, RewardTimeout
from ..process import PATIENCE
from .http import AGAIN, Reply, checked_url, exchange, reason, waits
from .wire import PROTOCOL, REQUEST, SAFETENSORS, VERSION, pack

FIRST = 5.0  # seconds in which a server must answer for the first time; a wrong address is reported soon
_VARIABLE = re.compile(r"PARETUNE_[A-Z0-9_]*\Z|[A-Z0-9_]+_API_KEY\Z")


class Remote:
    """A reward of a server.

    url: the server's address, or a list of them, which are asked in turn. reward: its name there. token_env:
    the environment variable that holds the server's token. patience: seconds in which a question is asked
    again, where no server answers.
    """

    elsewhere = True  # asking costs somebody's time or money: `stages.reliability` asks no more than needed

    def __init__(
        self, url: str | Sequence[str], reward: str, token_env: str = "PARETUNE_TOKEN", patience: float = 60.0
    ) -> None:
        self._servers = Servers(url, token_env)
        self._patience, self.name = patience, reward
        facts = self._servers.facts(reward)
        low, high = facts["range"]
        self.range = (-math.inf if low is None else low, math.inf if high is None else high)
        self.higher_is_better = bool(facts["higher_is_better"])
        self._reward, self._digest, self._limit = reward, facts["digest"], int(facts["limit"])
        self._told: dict[tuple[str, str], dict[str, Any]] = {}
        if facts["methods"]:
            self.check, self.applies = self._check, self._applies

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> torch.Tensor:
        """float32 [B]. Raises RewardError where the reward fails or no server answers."""
        body = pack(samples, prompts)
        if len(body) > self._limit:
            if len(prompts) == 1:
                raise RewardError(
                    f"reward {self.name!r}: a sample is {len(body):,} bytes and the server takes "
                    f"{self._limit:,} (paretune serve --limit)"
                )
            half = len(prompts) // 2
            return torch.cat([self.score(samples[:half], prompts[:half]),
                              self.score(samples[half:], prompts[half:])])  # fmt: skip
        number = secrets.token_hex(16)

        def right(answer: Any) -> bool:
            scores, same = answer.get("scores"), answer.get("request") == number
            return same and isinstance(scores, list) and len(scores) == len(prompts)

        answer = self._servers.ask(f"/score/{self._reward}", body, {REQUEST: number}, self._patience, right)
        if answer["digest"] != self._digest:
            raise RewardError(
                f"reward {self.name!r} is another one than when this stage began (its server says "
                f"{answer['digest'][:12]}, not {self._digest[:12]}): serve the former one, or begin again"
            )
        return torch.tensor(answer["scores"], dtype=torch.float32)

    def _check(self, prompts: Sequence[Prompt]) -> None:
        for entry in self._ask_about(prompts):
            if entry["why"] is not None:
                raise ParetuneError(entry["why"])

    def _applies(self, prompt: Prompt) -> bool:
        return bool(self._ask_about([prompt])[0]["applies"])

    def _ask_about(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """What the server says about prompts, which is asked once for each."""
        keys = [(str(p.text), json.dumps(dict(p.metadata), sort_keys=True, default=str)) for p in prompts]
        new = {key: p for key, p in zip(keys, prompts, strict=True) if key not in self._told}
        if new:
            def right(answer: Any) -> bool:
                return isinstance(answer.get("prompts"), list) and len(answer["prompts"]) == len(new)

            path = f"/prompts/{self._reward}"
            answer = self._servers.ask(path, pack([], list(new.values())), {}, self._patience, right)
            self._told |= dict(zip(new, answer["prompts"], strict=True))
        return [self._told[key] for key in keys]


class Servers:
    """The servers of one reward. The one that answered last is asked first."""

    def __init__(self, url: str | Sequence[str], token_env: str) -> None:
        urls = [url] if isinstance(url, str) else list(url)
        if not urls:
            raise ParetuneError("reward remote: options.url is empty: name a server, http://127.0.0.1:8600")
        self.urls = [checked_url(one, "reward remote: options.url") for one in urls]
        self.token_env = checked_variable(token_env, "reward remote: options.token_env")
        self._first = 0

    def facts(self, reward: str) -> dict[str, Any]:
        """What a server says about a reward. Raises ParetuneError, one line, where it is of no use."""
        def right(answer: Any) -> bool:
            return isinstance(answer.get("rewards"), dict)

        found = self.ask("/rewards", None, {}, FIRST, right)["rewards"]
        if reward not in found:
            known = ", ".join(found) or "none"
            raise ParetuneError(f"{self.urls[self._first]} serves no reward {reward!r}; it serves {known}")
        return found[reward]

    def ask(
        self, path: str, body: bytes | None, headers: Mapping[str, str], patience: float, right: Any
    ) -> dict[str, Any]:
        """The answer of the first server that gives one.

        Args:
            path: on the server.
            body: of a question that is posted.
            headers: beside those of every question.
            patience: seconds in which the servers are asked again.
            right: whether an answer is one to this question. Another is no answer, and is asked for again.

        Raises:
            RewardError: where no server answers, or one says what does not pass.
        """
        begun, failures = time.monotonic(), dict.fromkeys(self.urls, "")
        for _ in waits(patience):
            for turn in range(len(self.urls)):
                place = (self._first + turn) % len(self.urls)
                url = self.urls[place]
                try:
                    reply = exchange(url + path, body, {**self._headers(body), **headers}, PATIENCE.get())
                except TimeoutError:
                    failures[url] = f"no answer within {PATIENCE.get():g} s"
                    continue
                except OSError as error:
                    failures[url] = reason(error)
                    continue
                answer = self._read(reply, url, failures, right)
                if answer is not None:
                    self._first = place
                    return answer
        told = "; ".join(f"{url}: {failure}" for url, failure in failures.items())
        seconds = time.monotonic() - begun
        raise RewardError(
            f"no reward server answers ({told}; asked for {seconds:.0f} s): start one with `paretune serve`, "
            "or set options.url of the reward"
        )

    def _headers(self, body: bytes | None) -> dict[str, str]:
        token = os.environ.get(self.token_env)
        return {
            VERSION: str(PROTOCOL),
            **({"Content-Type": SAFETENSORS} if body is not None else {}),
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }

    def _read(self, reply: Reply, url: str, failures: dict[str, str], right: Any) -> dict[str, Any] | None:
        """The answer; None for one that may be better next time. Raises RewardError for what stays."""
        spoken, told = reply.headers.get(VERSION.lower()), reply.json()
        error = told.get("error") if isinstance(told, dict) else None
        if spoken is None and reply.status not in AGAIN:
            raise RewardError(f"{url} is no server of `paretune serve`: its answer has no {VERSION}")
        if spoken not in {None, str(PROTOCOL)}:
            raise RewardError(
                f"{url} speaks version {spoken} of the protocol of reward servers, and this paretune version "
                f"{PROTOCOL}: use the same paretune on both sides"
            )
        if reply.status == 401:
            there = "is not the server's" if os.environ.get(self.token_env) else "is not set"
            raise RewardError(f"{url} asks for a token, and the one in {self.token_env} {there}")
        if reply.status == 200 and isinstance(told, dict) and right(told):
            return told
        if reply.status == 504 and error:
            raise RewardTimeout(error)
        if reply.status in AGAIN or reply.status == 200:
            failures[url] = error or f"it answers {reply.status} with something else than was asked for"
            return None
        raise RewardError(error or f"{url} answers {reply.status}")


def checked_variable(name: Any, what: str) -> str:
    """The name of an environment variable that may hold a secret of paretune's.

    A recipe of somebody else's must not be able to send any variable to any address.
    """
    if not isinstance(name, str) or not _VARIABLE.match(name):
        raise ParetuneError(
            f"{what}: the name of a variable that begins with PARETUNE_ or ends with _API_KEY, not {name!r}"
        )
    return name


def server_digest(url: str | Sequence[str], reward: str, token_env: str = "PARETUNE_TOKEN", **_: Any) -> str:
    """What the server says the reward is: a digest of its code, its options and its environment."""
    return str(Servers(url, token_env).facts(reward)["digest"])
