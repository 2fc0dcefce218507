"""The reward server and its client, over HTTP on this machine."""

import http.client
import io
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import torch
from PIL import Image

from paretune.rewards.base import load_reward, score_samples
from paretune.rewards.errors import RewardError
from paretune.rewards.remote.client import Remote
from paretune.rewards.remote.wire import SAFETENSORS, VERSION, pack, unpack
from paretune.types import Dialogue, ParetuneError, Pictured, Prompt
from tests.serving import served

PICTURES = torch.arange(4 * 3 * 2 * 2).reshape(4, 3, 2, 2) / 48
PROMPTS = [Prompt("a"), Prompt("b"), Prompt("c"), Prompt("d")]


class Mean:
    """The mean of a picture, or the length of a text. It applies to prompts without a z."""

    name, range, higher_is_better = "mean", (0.0, math.inf), False

    def __init__(self) -> None:
        self.calls: list[int] = []

    def check(self, prompts: Sequence[Prompt]) -> None:
        for prompt in prompts:
            if "z" in prompt.text:
                raise ParetuneError("no z")

    def score(self, samples: Any, prompts: Sequence[Prompt]) -> Any:
        self.calls.append(len(prompts))
        if any("!" in prompt.text for prompt in prompts):
            raise RuntimeError("an exclamation mark")
        return samples.flatten(1).mean(1) if isinstance(samples, torch.Tensor) else [len(s) for s in samples]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Any]]:
    with served({"mean": Mean()}, tmp_path) as (url, answers):
        yield url, answers


def ask(url: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """Status and answer of a bare request."""
    parts = urlsplit(url)
    line = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    line.request("GET" if body is None else "POST", path, body, named)
    answer = line.getresponse()
    content = answer.read()
    line.close()
    return answer.status, json.loads(content) if content[:1] == b"{" else content.decode()


def test_a_remote_reward_scores_as_the_reward_itself(server: tuple[str, Any]) -> None:
    reward = load_reward("remote", "brightness", url=server[0], reward="mean")
    assert (reward.name, reward.range, reward.higher_is_better) == ("brightness", (0.0, math.inf), False)
    assert torch.equal(score_samples(reward, PICTURES, PROMPTS), PICTURES.flatten(1).mean(1))
    clips = PICTURES[None].expand(4, -1, -1, -1, -1)
    assert torch.equal(score_samples(reward, clips, PROMPTS), clips.flatten(1).mean(1))
    assert score_samples(reward, ["x", "yy", "", "zzz"], PROMPTS).tolist() == [1, 2, 0, 3]


def test_prompts_are_asked_about_once(server: tuple[str, Any]) -> None:
    reward: Any = Remote(server[0], "mean")
    assert [reward.applies(Prompt(text)) for text in ("a", "z", "a")] == [True, False, True]
    with pytest.raises(ParetuneError, match=r"^no z$"):
        reward.check([Prompt("a"), Prompt("z")])
    assert server[1].requests["mean", 200] == 2


def test_prompts_keep_their_turns_records_and_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), "red").save(tmp_path / "in.png")
    talk = Dialogue([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}])
    edit = Pictured("b", str(tmp_path / "in.png"))
    prompts = [Prompt(talk), Prompt("a", {"include": [1]}), Prompt(edit, {"k": 1})]
    (tmp_path / "out").mkdir()
    asked = unpack(pack([], prompts), tmp_path / "out").prompts
    assert asked[0].text.turns == talk.turns  # type: ignore[attr-defined]
    assert (asked[1].text, asked[1].metadata) == ("a", {"include": [1]})
    image = asked[2].text.image  # type: ignore[attr-defined]
    assert Path(image).parent == tmp_path / "out"
    assert Path(image).read_bytes() == (tmp_path / "in.png").read_bytes()
    assert asked[2].metadata == {"k": 1, "image": image}


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_a_picture_may_come_as_a_file(server: tuple[str, Any], kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (51, 102, 0)).save(file, kind, lossless=True)
    path = f"/score/mean?prompt={quote('a b')}&record={quote('{}')}"
    status, answer = ask(server[0], path, file.getvalue(), Content_Type=f"image/{kind}")
    assert (status, answer["scores"]) == (200, [pytest.approx(0.2)])


class Gated(Mean):
    """Waits for `gate` in its first call."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.gate = threading.Event(), threading.Event()

    def score(self, samples: Any, prompts: Sequence[Prompt]) -> Any:
        self.begun.set()
        assert self.gate.wait(20)
        return super().score(samples, prompts)


def until(ready: Callable[[], bool]) -> None:
    """Wait for what must come within 20 s."""
    end = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_callers_are_scored_together_and_each_gets_its_own(tmp_path: Path) -> None:
    reward = Gated()
    with served({"mean": reward}, tmp_path, most=8) as (url, answers), ThreadPoolExecutor(6) as callers:
        client = Remote(url, "mean")
        asked = [callers.submit(client.score, PICTURES, PROMPTS)]
        until(reward.begun.is_set)
        asked += [callers.submit(client.score, PICTURES + i, PROMPTS) for i in range(1, 5)]
        until(lambda: answers.served["mean"].batcher.waiting == 16)
        reward.gate.set()
        for i, scores in enumerate(asked):
            assert torch.equal(scores.result(), (PICTURES + i).flatten(1).mean(1))
    assert reward.calls == [4, 8, 8]


def test_one_callers_fault_is_not_the_others(tmp_path: Path) -> None:
    reward = Gated()
    with served({"mean": reward}, tmp_path) as (url, answers), ThreadPoolExecutor(3) as callers:
        client = Remote(url, "mean")
        first = callers.submit(client.score, ["x"], [Prompt("a")])
        until(reward.begun.is_set)
        wrong = callers.submit(client.score, ["xy"], [Prompt("no!")])
        right = callers.submit(client.score, ["xyz"], [Prompt("b")])
        until(lambda: answers.served["mean"].batcher.waiting == 2)
        reward.gate.set()
        assert (first.result().tolist(), right.result().tolist()) == ([1.0], [3.0])
        with pytest.raises(RewardError, match="raised RuntimeError: an exclamation mark"):
            wrong.result()
    assert reward.calls == [1, 2, 1, 1]


def test_a_question_that_comes_again_is_scored_once(server: tuple[str, Any]) -> None:
    url, answers = server
    body, headers = pack(["abc"], [Prompt("a")]), {"Content_Type": SAFETENSORS, "Paretune_Request": "n1"}
    told = [ask(url, "/score/mean", body, **headers) for _ in range(3)]
    assert [answer["scores"] for _, answer in told] == [[3.0]] * 3
    assert (answers.served["mean"].batcher.counts.samples, answers.repeated) == (1, 2)
    other = pack(["abcd"], [Prompt("a")])
    assert ask(url, "/score/mean", other, **headers) == (409, {"error": "another question had this number"})
    text = ask(url, "/metrics")[1]
    assert 'paretune_requests_total{reward="mean",status="200"} 3\n' in text
    assert 'paretune_samples_total{reward="mean"} 1\n' in text
    assert "paretune_repeated_total 2\n" in text


def test_what_the_server_refuses(tmp_path: Path) -> None:
    body = pack(["abc"], [Prompt("a")])
    with served({"mean": Mean()}, tmp_path, limit=1000) as (url, _):
        def told(path: str, body: bytes | None, **headers: str) -> tuple[int, str]:
            status, answer = ask(url, path, body, **headers)
            return status, answer["error"] if isinstance(answer, dict) else answer

        kind = {"Content_Type": SAFETENSORS}
        assert told("/score/other", body, **kind)[0] == 404
        assert told("/score/mean", b"x" * 1001, **kind) == (413, "the body is larger than 1,000 bytes")
        assert told("/score/mean", b"\x80\x04K\x01.", **kind)[0] == 422  # a pickle
        assert told("/score/mean", body, Content_Type="application/x-pickle")[0] == 415
        no_picture = (422, "the body is no picture of image/png")
        assert told("/score/mean", b"GIF89a", Content_Type="image/png") == no_picture
        assert told("/score/mean", body, **kind, Paretune_Protocol="7") == (
            400, "this server speaks version 1 of its protocol, not 7"
        )  # fmt: skip
        assert told("/score/mean", body, **kind, Host="evil.example")[0] == 403
        assert ask(url, "/health")[1]["protocol"] == 1


def test_a_token_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served({"mean": Mean()}, tmp_path, token="right") as (url, _):
        assert [ask(url, path)[0] for path in ("/health", "/rewards", "/metrics")] == [200, 401, 401]
        monkeypatch.delenv("PARETUNE_TOKEN", raising=False)
        with pytest.raises(ParetuneError, match="for a token, and the one in PARETUNE_TOKEN is not set"):
            Remote(url, "mean")
        monkeypatch.setenv("PARETUNE_TOKEN", "wrong")
        with pytest.raises(ParetuneError, match="the one in PARETUNE_TOKEN is not the server's"):
            Remote(url, "mean")
        monkeypatch.setenv("PARETUNE_TOKEN", "right")
        assert Remote(url, "mean").score(["ab"], [Prompt("a")]).tolist() == [2.0]


class Answering:
    """An application that answers everything alike, or passes it on after `times`."""

    def __init__(
        self, app: Any, status: int = 200, body: bytes = b"{}", headers: dict[str, str] | None = None
    ) -> None:
        self.app, self.status, self.body, self.times = app, status, body, 10**9
        self.headers = [(k.encode(), v.encode()) for k, v in (headers or {}).items()]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or self.times <= 0:
            await self.app(scope, receive, send)
            return
        self.times -= 1
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


@pytest.mark.parametrize(
    ("wrap", "told"),
    [
        (lambda app: Answering(app, headers={VERSION: "2"}),
         "speaks version 2 of the protocol of reward servers, and this paretune version 1"),
        (lambda app: Answering(app, 404, b"<html>"), "is no server of `paretune serve`"),
        (lambda app: app, r"serves no reward 'meen'; it serves mean"),
    ],
)  # fmt: skip
def test_another_version_and_another_server_are_one_line(tmp_path: Path, wrap: Any, told: str) -> None:
    with served({"mean": Mean()}, tmp_path, wrap=wrap) as (url, _), pytest.raises(ParetuneError, match=told):
        Remote(url, "meen")


def test_faults_are_asked_again_and_another_server_helps(tmp_path: Path) -> None:
    faults: list[Answering] = []

    def wrap(app: Any) -> Answering:
        faults.append(Answering(app, 503, b"busy", {VERSION: "1"}))
        faults[-1].times = 0
        return faults[-1]

    with served({"mean": Mean()}, tmp_path, wrap=wrap) as (url, answers):
        client = Remote(["http://127.0.0.1:9", url], "mean", patience=5)
        faults[0].times = 2
        assert client.score(["ab"], [Prompt("a")]).tolist() == [2.0]
        assert (faults[0].times, answers.served["mean"].batcher.counts.samples) == (0, 1)
        faults[0].times = 10**6
        client._patience = 0.2
        with pytest.raises(RewardError) as caught:
            client.score(["ab"], [Prompt("a")])
    assert "no reward server answers (http://127.0.0.1:9: Connection refused; " in str(caught.value)
    assert f"{url}: it answers 503" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reward_that_changes_meanwhile_is_not_mixed(tmp_path: Path) -> None:
    with served({"mean": Mean()}, tmp_path, digest="d1") as (first, answers):
        client = Remote(first, "mean")
        object.__setattr__(answers.served["mean"], "digest", "d2")
        with pytest.raises(RewardError, match=r"another one than when this stage began \(its server says d2"):
            client.score(["ab"], [Prompt("a")])


def test_large_questions_are_divided_by_the_servers_limit(tmp_path: Path) -> None:
    reward = Mean()
    with served({"mean": reward}, tmp_path, limit=2000) as (url, _):
        client, large = Remote(url, "mean"), torch.arange(4.0)[:, None, None, None].expand(4, 3, 8, 8)
        assert client.score(large, PROMPTS).tolist() == [0, 1, 2, 3]
        assert sum(reward.calls) == 4
        assert len(reward.calls) > 1
        with pytest.raises(RewardError, match=r"a sample is .* bytes and the server takes 2,000"):
            client.score(torch.zeros(1, 3, 16, 16), PROMPTS[:1])


@pytest.mark.parametrize(
    "url", ["ftp://x", "127.0.0.1:8600", "http://", "http://a:b@c", "http://x y", 3, "http://x:99999"]
)
def test_wrong_addresses(url: Any) -> None:
    with pytest.raises(ParetuneError, match=r"reward remote: options.url"):
        Remote(url if isinstance(url, str) else [url], "mean")


def test_no_other_variable_is_sent_anywhere() -> None:
    with pytest.raises(ParetuneError, match=r"begins with PARETUNE_ or ends with _API_KEY, not 'AWS_SECRET"):
        Remote("http://127.0.0.1:9", "mean", token_env="AWS_SECRET_ACCESS_KEY")
