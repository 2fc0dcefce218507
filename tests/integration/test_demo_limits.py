"""The page of a real server, asked without a browser: refusals, a flood, what a visitor may send."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paretune.demo.serving import QUEUE
from tests.made_run import make_run
from tests.unit.test_demo_guard import WRONG

from .browsing import served

httpx = pytest.importorskip("httpx")
pytest.importorskip("gradio")


@pytest.fixture(scope="module")
def run(tiny_sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("demo") / "tiny", tiny_sd3)


@pytest.fixture(scope="module")
def client(run: Path) -> Iterator[Any]:
    with served(run) as address, httpx.Client(base_url=address, timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def number(client: Any) -> dict[str, int]:
    """The questions of the page by their names."""
    return {str(own["api_name"]): own["id"] for own in client.get("/config").json()["dependencies"]}


def answer_of(client: Any, data: list[Any], number: int, event: Any = None) -> Any:
    """What one question is answered, as the page reads it."""
    asked = {"data": data, "fn_index": number, "session_hash": "tester", "event_data": event}
    client.post("/gradio_api/queue/join", json=asked).raise_for_status()
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "tester"}) as lines:
        for line in lines.iter_lines():
            if line.startswith("data:") and json.loads(line[5:])["msg"] == "process_completed":
                return json.loads(line[5:])
    raise AssertionError("no answer")


def test_what_is_refused_at_the_door(client: Any) -> None:
    assert client.get("/").status_code == 200
    foreign = client.get("/", headers={"Host": "evil.example"})
    assert (foreign.status_code, "--allow-host" in foreign.text) == (421, True)
    assert client.get("/config", headers={"Origin": "http://evil.example"}).status_code == 403
    upload = client.post("/gradio_api/upload", files={"files": ("x.bin", b"x" * 100)})
    assert (upload.status_code, upload.json()["detail"]) == (403, "this page takes no files and gives none")
    large = client.post("/gradio_api/queue/join", content=b"x" * (1 << 21))
    assert large.status_code == 413


def test_every_value_is_answered_in_one_line(client: Any, number: dict[str, int]) -> None:
    done = answer_of(client, ["a red circle", "mix", "", 1, 0.5, 0.5], number["answer"])
    assert done["success"]
    assert "data:image/png;base64," in done["output"]["data"][1]
    for told, (prompt, weights, method, tokens, seed) in WRONG:
        values = [prompt, method, tokens, seed, *weights]
        if any(isinstance(v, list) or (isinstance(v, float) and not math.isfinite(v)) for v in values):
            continue  # refused at the door, or no JSON
        message = answer_of(client, values, number["answer"])["output"]["data"][0]
        assert told.split("'")[0] in message
        assert message.count("\n") == 0
    strange = answer_of(client, ["a", "mix", "", 0, 1, 1], number["_point"], {"point": "x"})
    assert "this click set nothing: there is no such point" in json.dumps(strange)
    example = answer_of(client, [10**400, "mix", "", 0, 1, 1], number["_example"])
    assert "there is no such example" in json.dumps(example)
    locked = answer_of(client, [None, "a", "mix", "", None, 1, 1], number["_generate"])
    assert locked["success"]


def test_a_flood_is_turned_away_at_once_and_a_visitor_is_answered(
    client: Any, number: dict[str, int], run: Path
) -> None:
    slow = run.parent / "tiny-recipe" / "slow"
    slow.touch()
    sent = {"fn_index": number["answer"]}
    start = time.monotonic()
    try:
        replies = [
            client.post("/gradio_api/queue/join", json={
                **sent, "data": [f"a red circle {i}", "mix", "", 1, 1, 1], "session_hash": f"flood-{i}",
            })
            for i in range(60)
        ]  # fmt: skip
    finally:
        slow.unlink()
    codes = [reply.status_code for reply in replies]
    assert set(codes) == {200, 503}
    # What waits, and what is drawn meanwhile: each drawing takes two seconds.
    assert codes.count(200) <= QUEUE + 4 + (time.monotonic() - start) / 2
    refused = next(reply for reply in replies if reply.status_code == 503)
    assert refused.json()["detail"].startswith(f"Queue is full. Max size is {QUEUE}")
    told = None
    for _ in range(600):  # until one of those that wait is drawn
        time.sleep(0.2)
        told = client.post("/gradio_api/queue/join", json={
            **sent, "data": ["a red circle", "mix", "", 1, 1, 1], "session_hash": "tester"})  # fmt: skip
        if told.status_code == 200:
            break
    assert told is not None
    assert told.status_code == 200
