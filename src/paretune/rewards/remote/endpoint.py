"""A chat endpoint of OpenAI's form: POST {url}/chat/completions."""

from __future__ import annotations

import json
import math
from typing import Any

from paretune.types import ParetuneError

from ..errors import RewardError
from .http import AGAIN, Reply, exchange, reason, waits


class Endpoint:
    """Where a judge is asked.

    url: the base, which ends before /chat/completions. key: its bearer token, from the variable key_env.
    seconds: for one question. patience: seconds in which a question is asked again.
    """

    def __init__(
        self, url: str, key: str | None, key_env: str | None, seconds: float, patience: float
    ) -> None:
        self.url, self._key_env, self._seconds, self._patience = url, key_env, seconds, patience
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            if not (key.isascii() and key.isprintable()):
                raise ParetuneError(f"vlm_judge: the key in {key_env} must be printable ASCII")
            self._headers["Authorization"] = f"Bearer {key}"

    def check_model(self, model: str) -> None:
        """Raise ParetuneError where nothing answers, the key is wrong, or there is no such model."""
        try:
            reply = exchange(f"{self.url}/models", None, self._headers, min(10.0, self._seconds))
        except OSError as error:
            why = reason(error)
            raise ParetuneError(f"vlm_judge: no chat endpoint answers at {self.url}: {why}") from error
        self._refuse_key(reply)
        told = reply.json()
        entries = told.get("data") if reply.status == 200 and isinstance(told, dict) else None
        names = [e.get("id") for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
        if names and model not in names:  # an endpoint without a list may know the model all the same
            known = ", ".join(map(str, names[:10]))
            raise ParetuneError(f"vlm_judge: {self.url} has no model {model}; it has {known}")

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer as {"text": .., "first": {word: log-probability}}. Raises RewardError."""
        body, failure = json.dumps(request).encode(), ""
        for _ in waits(self._patience):
            try:
                reply = exchange(f"{self.url}/chat/completions", body, self._headers, self._seconds)
            except TimeoutError:
                failure = f"no answer within {self._seconds:g} s"
                continue
            except OSError as error:
                failure = reason(error)
                continue
            self._refuse_key(reply)
            if reply.status in AGAIN:
                failure = _status_line(reply)
                continue
            if reply.status != 200:
                raise RewardError(f"vlm_judge: {self.url} refuses the question: {_status_line(reply)}")
            answer = _answer(reply.json())
            if answer is not None:
                return answer
            failure = "its answer has no choices"
        raise RewardError(f"vlm_judge: {self.url} does not answer: {failure}")

    def _refuse_key(self, reply: Reply) -> None:
        if reply.status not in {401, 403}:
            return
        given = "needs a key: set options.key_env" if self._key_env is None else \
            f"does not take the key in {self._key_env}"  # fmt: skip
        raise RewardError(f"vlm_judge: {self.url} {given}")


def _answer(told: Any) -> dict[str, Any] | None:
    try:
        choice = told["choices"][0]
        message = choice["message"]
        text = message.get("content") or message.get("refusal") or ""
        tokens = (choice.get("logprobs") or {}).get("content") or []
        top = tokens[0].get("top_logprobs") or [tokens[0]] if tokens else []
        first = {str(t["token"]): float(t["logprob"]) for t in top if math.isfinite(float(t["logprob"]))}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None
    return {"text": text if isinstance(text, str) else json.dumps(text), "first": first}


def _status_line(reply: Reply) -> str:
    """The status, and the first line of the message of an error."""
    body = reply.json()
    error = body.get("error", body.get("message")) if isinstance(body, dict) else None
    text = error.get("message") if isinstance(error, dict) else error
    first = next(iter(str(text or "").strip().splitlines()), "")[:300]
    return f"{reply.status} {first}".strip()
