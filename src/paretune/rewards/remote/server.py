"""The HTTP side of a reward server: who may ask, how much, and what is answered. FastAPI is an extra.

    GET  /health         {"status", "protocol", "paretune"}; needs no token
    GET  /rewards        {"rewards": {NAME: {"digest", "range", "higher_is_better", "methods", "limit"}}}
    POST /score/NAME     a body of `wire`, or a PNG or WebP with ?prompt= and ?record=; {"scores", ..}
    POST /prompts/NAME   the same body without samples; {"prompts": [{"applies", "why"}, ..]}
    GET  /metrics        counters as Prometheus reads them

A question that has a number (`wire.REQUEST`) is scored once, however often it is asked: a caller whose answer
was lost asks again and gets the same scores.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from paretune.types import ParetuneError, Reward

from ..checks import applies_to, refusal
from ..errors import RewardTimeout
from .batching import Batcher, Busy
from .metrics import metrics_text
from .wire import PICTURES, PROTOCOL, REQUEST, SAFETENSORS, VERSION, Question, unpack, unpack_picture

KEPT = 4096  # answers that are kept for callers that ask again
LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}


@dataclass(frozen=True)
class Served:
    """A reward and what scores it. reward: is asked about prompts. methods: `check` and `applies`, if any."""

    reward: Reward
    digest: str
    batcher: Batcher

    @property
    def methods(self) -> list[str]:
        """The optional methods that it has."""
        return [name for name in ("check", "applies") if getattr(self.reward, name, None) is not None]


class Refused(Exception):
    """A question that is not answered: the status and a line that says why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class Answers:
    """What the server answers. One object for one event loop."""

    def __init__(
        self, served: Mapping[str, Served], folder: Path, limit: int, token: str | None, allowed: set[str]
    ) -> None:
        """Take what is served.

        Args:
            served: the rewards by name.
            folder: where input pictures are put.
            limit: the most bytes of a body; four such bodies at most are held at once.
            token: what callers must bear, if anything.
            allowed: names of this machine. Without a token, questions under other names are refused: a page
                of a browser on this machine must not be able to ask (DNS rebinding).
        """
        self.served, self.folder, self.limit = served, folder, limit
        self.token, self.allowed = token, allowed
        self.requests: Counter[tuple[str, int]] = Counter()
        self.repeated, self._held = 0, 0
        self._given: OrderedDict[tuple[str, str], tuple[str, asyncio.Task[list[float]]]] = OrderedDict()

    # ------------------------------------------------------------ who may ask

    def admit(self, request: Any) -> None:
        """Raise Refused for a caller that may not ask, or that speaks another version."""
        spoken = request.headers.get(VERSION)
        if spoken is not None and spoken != str(PROTOCOL):
            raise Refused(400, f"this server speaks version {PROTOCOL} of its protocol, not {spoken[:20]}")
        if self.token is None:
            if _name(request.headers.get("host", "")) not in self.allowed:
                raise Refused(403, "without a token this server answers to the names of its machine alone")
            return
        given = request.headers.get("authorization", "").encode("latin-1", "replace")
        if not hmac.compare_digest(given, b"Bearer " + self.token.encode()):
            raise Refused(401, "the token is missing or wrong")

    async def body(self, request: Any) -> bytes:
        """The body of a question, no more of it than the limit."""
        told = request.headers.get("content-length", "")
        if told.isdecimal() and int(told) > self.limit:
            raise Refused(413, f"the body is larger than {self.limit:,} bytes")
        if self._held > 4 * self.limit:
            raise Refused(503, "the server holds as many bodies as it can")
        parts: list[bytes] = []
        size = 0
        try:
            async for part in request.stream():
                size += len(part)
                self._held += len(part)
                if size > self.limit:
                    raise Refused(413, f"the body is larger than {self.limit:,} bytes")
                parts.append(part)
            return b"".join(parts)
        finally:
            self._held -= size

    # ------------------------------------------------------------ what is answered

    async def health(self, request: Any) -> dict[str, Any]:
        """Whether the server works, for whoever watches it."""
        return {"status": "ok", "protocol": PROTOCOL, "paretune": version("paretune")}

    async def rewards(self, request: Any) -> dict[str, Any]:
        """What is served."""
        self.admit(request)
        return {"rewards": {name: self._facts(served) for name, served in self.served.items()}}

    def _facts(self, served: Served) -> dict[str, Any]:
        reward = served.reward
        return {
            "digest": served.digest, "limit": self.limit, "methods": served.methods,
            "range": [v if math.isfinite(v) else None for v in reward.range],
            "higher_is_better": reward.higher_is_better,
        }  # fmt: skip

    async def prompts(self, request: Any) -> dict[str, Any]:
        """Which prompts the reward can score."""
        name, served = self._asked(request)
        question = await self._question(request, await self.body(request))

        def answers() -> list[dict[str, Any]]:
            return [{"applies": applies_to(served.reward, prompt), "why": refusal(served.reward, prompt)}
                    for prompt in question.prompts]  # fmt: skip

        return {"prompts": await asyncio.to_thread(answers), "reward": name}

    async def score(self, request: Any) -> dict[str, Any]:
        """The scores of samples. They are computed to the end even where the caller goes away."""
        name, served = self._asked(request)
        body = await self.body(request)
        number = request.headers.get(REQUEST, "")[:64]
        scores = await asyncio.shield(self._task(name, served, request, body, number))
        return {"scores": scores, "digest": served.digest, "request": number}

    def _task(
        self, name: str, served: Served, request: Any, body: bytes, number: str
    ) -> asyncio.Task[list[float]]:
        key, content = (name, number), hashlib.sha256(body).hexdigest()
        if number and key in self._given:
            before, task = self._given[key]
            if before != content:
                raise Refused(409, "another question had this number")
            self.repeated += 1
            return task
        task = asyncio.create_task(self._scores(served, request, body))
        if number:
            self._given[key] = content, task

            def forget(done: asyncio.Task[list[float]]) -> None:
                if done.cancelled() or done.exception() is not None:  # the next try may succeed
                    self._given.pop(key, None)

            task.add_done_callback(forget)
            while len(self._given) > KEPT:
                self._given.popitem(last=False)
        return task

    async def _scores(self, served: Served, request: Any, body: bytes) -> list[float]:
        question = await self._question(request, body)
        if len(question.samples) != len(question.prompts):
            raise Refused(422, f"{len(question.samples)} samples but {len(question.prompts)} prompts")
        if not question.prompts:
            return []
        return await asyncio.wrap_future(served.batcher.submit(question.samples, question.prompts))

    async def _question(self, request: Any, body: bytes) -> Question:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        asked = request.query_params
        if kind in PICTURES:
            return await asyncio.to_thread(
                unpack_picture, body, kind, asked.get("prompt", ""), asked.get("record", "")
            )
        if kind not in {SAFETENSORS, "application/octet-stream"}:
            known = ", ".join([SAFETENSORS, *PICTURES])
            raise Refused(415, f"a body is one of {known}, not {kind[:80] or 'nothing'}")
        return await asyncio.to_thread(unpack, body, self.folder)

    def _asked(self, request: Any) -> tuple[str, Served]:
        self.admit(request)
        name = request.path_params["name"]
        if name not in self.served:
            raise Refused(404, f"no reward {name[:80]!r} here; there are {', '.join(self.served)}")
        return name, self.served[name]


def make_app(answers: Answers) -> Any:
    """The application that a server runs."""
    from fastapi import FastAPI
    from starlette.responses import JSONResponse, PlainTextResponse

    app = FastAPI(title="paretune serve", docs_url=None, redoc_url=None, openapi_url=None)
    headers = {VERSION: str(PROTOCOL)}

    def answered(handle: Callable[[Any], Awaitable[dict[str, Any]]]) -> Callable[[Any], Awaitable[Any]]:
        async def answer(request: Any) -> Any:
            name = request.path_params.get("name", "")
            try:
                status, content = 200, await handle(request)
            except Refused as error:
                status, content = error.status, {"error": error.why}
            except Busy:
                status, content = 503, {"error": "more samples wait than the server holds"}
            except RewardTimeout as error:
                status, content = 504, {"error": str(error)}
            except ParetuneError as error:
                status, content = 422, {"error": str(error)}
            except Exception as error:  # a caller learns no more than that
                status, content = 500, {"error": f"the server failed: {type(error).__name__}"}
            answers.requests[name if name in answers.served else "", status] += 1
            more = {"Retry-After": "1"} if status == 503 else {}
            return JSONResponse(content, status, {**headers, **more})

        return answer

    async def metrics(request: Any) -> Any:
        try:
            answers.admit(request)
        except Refused as error:
            return JSONResponse({"error": error.why}, error.status, headers)
        batchers = {name: served.batcher for name, served in answers.served.items()}
        return PlainTextResponse(metrics_text(answers.requests, answers.repeated, batchers), headers=headers)

    app.add_route("/health", answered(answers.health), ["GET"])
    app.add_route("/rewards", answered(answers.rewards), ["GET"])
    app.add_route("/score/{name}", answered(answers.score), ["POST"])
    app.add_route("/prompts/{name}", answered(answers.prompts), ["POST"])
    app.add_route("/metrics", metrics, ["GET"])
    return app


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    return (host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]).lower()
