"""The judge behind a chat endpoint, asked over HTTP on this machine."""

import base64
import io
import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from paretune.rewards.base import load_reward, score_samples
from paretune.rewards.errors import RewardError
from paretune.rewards.identity import options_identity
from paretune.rewards.remote.judge import VlmJudge
from paretune.types import ParetuneError, Prompt

RED = torch.tensor([1.0, 0.2, 0.0])[:, None, None].expand(3, 4, 4)
DARK = torch.zeros(3, 4, 4)


class Chat:
    """A chat endpoint: `reply` makes the answer of each request; `asked` are the requests."""

    def __init__(self, reply: Callable[[dict[str, Any]], Any]) -> None:
        self.reply, self.asked, self.faults = reply, [], 0
        self.headers: list[dict[str, str]] = []
        self.key: str | None = None
        self.busy, self.most = 0, 0
        self.lock = threading.Lock()


@contextmanager
def endpoint(reply: Callable[[dict[str, Any]], Any]) -> Iterator[tuple[str, Chat]]:
    chat = Chat(reply)

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if chat.key is not None and self.headers.get("Authorization") != f"Bearer {chat.key}":
                self.answer(401, {"error": {"message": "no"}})
            else:
                self.answer(200, {"data": [{"id": "seer"}]})

        def do_POST(self) -> None:
            with chat.lock:
                chat.busy += 1
                chat.most = max(chat.most, chat.busy)
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fault = chat.faults > 0
                chat.faults -= fault
                if not fault:
                    chat.asked.append(request)
                    chat.headers.append(dict(self.headers))
            content = {"error": {"message": "busy"}} if fault else chat.reply(request)
            with chat.lock:
                chat.busy -= 1
            self.answer(429 if fault else 400 if "error" in content else 200, content)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def text(content: str, **first: float) -> dict[str, Any]:
    """An answer; first: probabilities of the first word."""
    top = [{"token": word, "logprob": math.log(p)} for word, p in first.items()]
    words = {"content": [{"top_logprobs": top}]} if top else None
    return {"choices": [{"message": {"content": content}, "logprobs": words}]}


def shown(request: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    """The pictures of a request."""
    parts = [p["image_url"]["url"] for p in request["messages"][-1]["content"] if p["type"] == "image_url"]
    assert all(url.startswith("data:image/png;base64,") for url in parts)
    files = [io.BytesIO(base64.b64decode(url.partition(",")[2])) for url in parts]
    return [np.array(Image.open(file)) for file in files]


def brightness(request: dict[str, Any]) -> dict[str, Any]:
    return text(f"Score: {shown(request)[0].mean() / 25.5:.1f} of 10")


def judge(url: str, folder: Path, **options: Any) -> VlmJudge:
    return VlmJudge(url, "seer", cache=str(folder), **{"patience": 5, **options})


def test_pictures_are_scored_by_the_number_in_the_answer(tmp_path: Path) -> None:
    with endpoint(brightness) as (url, chat):
        options = {"url": url, "model": "seer", "cache": str(tmp_path), "score": r"Score: ([\d.]+)"}
        reward = load_reward("vlm_judge", "looks", **options)
        assert (reward.name, reward.range) == ("looks", (0.0, 10.0))
        scores = score_samples(reward, torch.stack([RED, DARK]), [Prompt("a fox"), Prompt("night")])
    assert scores.tolist() == [4.0, 0.0]
    request = next(r for r in chat.asked if "fox" in json.dumps(r))
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("seer", 0, 32)
    assert shown(request)[0][0, 0].tolist() == [255, 51, 0]
    assert request["messages"][-1]["content"][-1]["text"] == (
        'How well does this picture fit the text "a fox"? Answer with one number from 0 to 10 and nothing '
        "else."
    )


def test_the_probability_of_yes(tmp_path: Path) -> None:
    with endpoint(lambda _: text("Yes", Yes=0.6, yes=0.15, No=0.2)) as (url, chat):
        reward = judge(url, tmp_path, score="yes")
        assert reward.range == (0.0, 1.0)
        assert reward.score(RED[None], [Prompt("a fox")]).tolist() == [pytest.approx(0.75)]
    asked = chat.asked[0]
    assert (asked["logprobs"], asked["top_logprobs"], asked["max_tokens"]) == (True, 20, 1)
    assert asked["messages"][-1]["content"][-1]["text"].startswith('Does this picture show "a fox"?')


def test_clips_are_frames_and_answers_are_text(tmp_path: Path) -> None:
    clip = (torch.arange(9) / 255)[:, None, None, None].expand(9, 3, 4, 4)
    with endpoint(lambda _: text("7")) as (url, chat):
        reward = judge(url, tmp_path, frames=3, system="Be strict.")
        assert reward.score(clip[None], [Prompt("a wave")]).tolist() == [7.0]
        assert reward.score(["Water."], [Prompt("What is wet?")]).tolist() == [7.0]
    assert [int(frame[0, 0, 0]) for frame in shown(chat.asked[0])] == [0, 4, 8]
    assert "this video fit" in chat.asked[0]["messages"][-1]["content"][-1]["text"]
    assert chat.asked[1]["messages"][0] == {"role": "system", "content": "Be strict."}
    assert chat.asked[1]["messages"][1]["content"].endswith("nothing else.\n\nWater.")


def test_a_question_is_asked_once_in_all_runs(tmp_path: Path) -> None:
    with endpoint(brightness) as (url, chat):
        for _ in range(2):  # the second has only what is on disk
            reward = judge(url, tmp_path, score=r"Score: ([\d.]+)")
            scores = reward.score(torch.stack([RED, RED, DARK]), [Prompt("x")] * 3)
            assert scores.tolist() == [4.0, 4.0, 0.0]
        assert len(chat.asked) == 2
        next(tmp_path.rglob("*.json")).write_text("{")  # torn
        assert judge(url, tmp_path, score=r"Score: ([\d.]+)").score(
            torch.stack([RED, DARK]), [Prompt("x")] * 2
        ).tolist() == [4.0, 0.0]  # fmt: skip
        assert len(chat.asked) == 3
    assert not list(tmp_path.rglob("*.tmp"))


def test_refusals_are_counted_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def reply(request: dict[str, Any]) -> dict[str, Any]:
        return text("I cannot judge this." if shown(request)[0].mean() < 1 else "<think>1 or 2?</think> 8")

    with endpoint(reply) as (url, _):
        reward = judge(url, tmp_path)
        assert reward.score(torch.stack([RED, DARK]), [Prompt("x")] * 2).tolist() == [8.0, 0.0]
        assert capsys.readouterr().err == (
            "note: vlm_judge: 1 of 2 answers hold no score (such as 'I cannot judge this.'); they count as "
            "the worst score, 1 so far\n"
        )
        with pytest.raises(RewardError, match=r"1 of 1 answers hold no score .* raise most_refused \(0.5\)"):
            reward.score(DARK[None], [Prompt("x")])


def test_a_busy_endpoint_is_asked_again_and_several_questions_at_a_time(tmp_path: Path) -> None:
    barrier = threading.Barrier(3, timeout=20)

    def reply(_: dict[str, Any]) -> dict[str, Any]:
        barrier.wait()
        return text("5")

    with endpoint(reply) as (url, chat):
        chat.faults = 2
        pictures = torch.stack([RED * 0.1 * i for i in range(6)])
        assert judge(url, tmp_path, concurrency=3).score(pictures, [Prompt("x")] * 6).tolist() == [5.0] * 6
        assert (len(chat.asked), chat.most) == (6, 3)
        chat.faults = 1000
        with pytest.raises(RewardError, match=r"does not answer: 429 busy$"):
            judge(url, tmp_path, patience=0.2).score(RED[None], [Prompt("y")])
        chat.faults, chat.reply = 0, lambda _: {"error": {"message": "no pictures\nhere"}}
        with pytest.raises(RewardError, match=r"refuses the question: 400 no pictures$"):
            judge(url, tmp_path).score(RED[None], [Prompt("y")])


def test_the_key_comes_from_a_variable_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with endpoint(lambda _: text("5")) as (url, chat):
        chat.key = "sesame"
        with pytest.raises(ParetuneError, match=r"needs a key: set options.key_env"):
            judge(url, tmp_path)
        with pytest.raises(ParetuneError, match="variable PARETUNE_JUDGE holds no key"):
            judge(url, tmp_path, key_env="PARETUNE_JUDGE")
        monkeypatch.setenv("PARETUNE_JUDGE", "wrong")
        with pytest.raises(ParetuneError, match="does not take the key in PARETUNE_JUDGE"):
            judge(url, tmp_path, key_env="PARETUNE_JUDGE")
        monkeypatch.setenv("PARETUNE_JUDGE", "sesame")
        judge(url, tmp_path, key_env="PARETUNE_JUDGE").score(RED[None], [Prompt("x")])
        assert chat.headers[0]["Authorization"] == "Bearer sesame"
    assert "sesame" not in "".join(file.read_text() for file in tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"score": r"\d+"}, "needs a group"),
        ({"score": "("}, "score is number, yes or a regular expression"),
        ({"template": "{promt}"}, r"the template has {promt}; it may have {answer}, {high}"),
        ({"template": "{"}, "the template cannot be read"),
        ({"range": [3, 1]}, "range must be finite, the least first"),
        ({"range": 3}, "range must be two numbers"),
        ({"frames": 0}, "frames and concurrency are 1 to 256"),
        ({"key_env": "HOME"}, "begins with PARETUNE_ or ends with _API_KEY, not 'HOME'"),
    ],
)
def test_wrong_options_are_one_line(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with endpoint(lambda _: text("5")) as (url, _), pytest.raises(ParetuneError, match=told):
        judge(url, tmp_path, **options)


def test_an_unknown_model_and_no_endpoint(tmp_path: Path) -> None:
    with endpoint(lambda _: text("5")) as (url, _), \
            pytest.raises(ParetuneError, match=r"has no model sear; it has seer"):
        VlmJudge(url, "sear")
    with pytest.raises(ParetuneError, match=r"no chat endpoint answers at http://127.0.0.1:9/v1: Connection"):
        VlmJudge("http://127.0.0.1:9/v1", "seer")


def test_the_address_is_no_part_of_what_a_judge_is_known_by() -> None:
    a = options_identity("vlm_judge", {"url": "http://a", "model": "m", "key_env": "X_API_KEY"})
    assert a == options_identity("vlm_judge", {"url": "http://b", "model": "m", "concurrency": 3})
    assert a != options_identity("vlm_judge", {"url": "http://a", "model": "n"})
