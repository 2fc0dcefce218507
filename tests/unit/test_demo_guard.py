"""What reaches the page, and what a visitor may send: every refusal is one line, whoever asks."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paretune.demo import asked, serving
from paretune.demo.answers import Answers
from paretune.demo.guard import LARGEST_BODY, Guard, allowed_hosts, is_loopback
from paretune.sampling.request import read_seed
from paretune.types import ParetuneError
from tests.made_run import make_run

HOSTS = allowed_hosts("127.0.0.1", ["page.example.org"])
QUESTION = {"data": ["a", 1, None], "fn_index": 4}


def ask(
    method: str = "GET", path: str = "/", body: bytes | list[bytes] = b"",
    host: str | None = "127.0.0.1:7860", hosts: Any = HOSTS, **headers: str,
) -> tuple[int, str]:  # fmt: skip
    """The status and the line of one request to an application that says the body it was given."""
    sent: list[Any] = []
    chunks = [body] if isinstance(body, bytes) else list(body)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        got = (await receive())["body"] if scope["method"] == "POST" else b""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps({"detail": got.decode()}).encode()})

    async def receive() -> Any:
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: Any) -> None:
        sent.append(message)

    told = [(b"host", host.encode())] if host is not None else []
    told += [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": told}
    asyncio.run(Guard(application, hosts, {4: 3})(scope, receive, send))
    line = json.loads(sent[1]["body"])["detail"]
    assert "\n" not in line
    return sent[0]["status"], line


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:7860", "localhost:1", "LOCALHOST", "[::1]:7860", "page.example.org",
             "Page.Example.org.:80"],
)  # fmt: skip
def test_a_name_of_this_machine_is_served(host: str) -> None:
    assert ask(host=host)[0] == 200


@pytest.mark.parametrize(
    "host", [None, "", "evil.example", "127.0.0.1.evil.example", "localhost@evil", "example.org", "127.0.0.2",
             "evil:80:80", "0.0.0.0"],
)  # fmt: skip
def test_a_foreign_name_is_not(host: str | None) -> None:
    status, line = ask(host=host)
    assert (status, line) == (421, "this page is not served under that name; --allow-host NAME adds one")


def test_another_site_asks_nothing() -> None:
    post = {"method": "POST", "path": "/gradio_api/queue/join", "body": json.dumps(QUESTION).encode()}
    assert ask(**post, origin="http://127.0.0.1:7860") == (200, json.dumps(QUESTION))
    for origin in ("http://evil.example", "null", "http://127.0.0.1.evil.example"):
        assert ask(**post, origin=origin)[0] == 403


def test_bound_to_other_addresses_any_name_is_served_unless_some_are_named() -> None:
    assert allowed_hosts("0.0.0.0", []) is None
    assert ask(host="anything", hosts=None)[0] == 200
    named = allowed_hosts("0.0.0.0", ["a.example"])
    told = [ask(host=name, hosts=named)[0] for name in ("a.example", "localhost", "b.example")]
    assert told == [200, 200, 421]
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "127.9.9.9", "0.0.0.0", "x")] == \
        [True] * 4 + [False] * 2  # fmt: skip
    for wrong in ("http://a", "a:80", "a b", ""):
        with pytest.raises(ParetuneError, match="--allow-host wants a name"):
            allowed_hosts("127.0.0.1", [wrong])


@pytest.mark.parametrize(
    "path", ["/gradio_api/upload", "/upload", "/gradio_api/run/x", "/gradio_api/api/x", "/gradio_api/call/x",
             "/login", "/gradio_api/component_server"],
)  # fmt: skip
def test_uploads_and_all_else_that_a_page_never_posts_are_refused(path: str) -> None:
    assert ask("POST", path, b"{}")[0] == 403
    assert ask("PUT", "/")[0] == 405


def test_files_are_not_given_and_the_pages_own_are() -> None:
    assert ask(path="/gradio_api/proxy=http://169.254.169.254/")[0] == 403
    assert ask(path="/gradio_api/file=/etc/passwd")[0] == 403
    assert ask(path="/gradio_api/deep_link")[0] == 403  # it would keep a file for every state of a session
    assert ask(path="/assets/upload-abc.js")[0] == 200


def test_a_question_is_of_bounded_size_and_right_form() -> None:
    def join(body: bytes | list[bytes]) -> tuple[int, str]:
        return ask("POST", "/gradio_api/queue/join", body)

    half = b'"' + b"x" * (LARGEST_BODY // 2)
    assert join([half, half, half]) == (413, "the question is larger than 1,048,576 bytes")
    wrong = {
        b"{": (400, "the question is not JSON"),
        b"[" * 100_000: (400, "the question is not JSON"),
        b"1" * 5000: (400, "the question is not JSON"),
        b"[]": (422, "the question is no object with a list called data"),
        b'{"data": null}': (422, "the question is no object with a list called data"),
        b'{"data": [], "fn_index": 9}': (422, "the page has no such question"),
        b'{"data": [], "fn_index": "4"}': (422, "the page has no such question"),
        b'{"data": [1], "fn_index": 4}': (422, "the question has 1 values, not 3"),
        b'{"data": [{"path": "/etc/passwd"}, 1, 2], "fn_index": 4}':
            (422, "every value of the question is a text, a number, true, false or null"),
    }  # fmt: skip
    for body, refusal in wrong.items():
        assert join(body) == refusal
    whole = json.dumps(QUESTION).encode()
    assert join([whole[:5], whole[5:]]) == (200, whole.decode())
    assert ask("POST", "/gradio_api/reset", b"{}")[0] == 200


# ---------------------------------------------------------------- values


@pytest.fixture(scope="module")
def run(tiny_sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", tiny_sd3)


@pytest.fixture(scope="module")
def answers(run: Path) -> Answers:
    return serving.open_answers(run, trust_rewards=True)


WRONG: list[tuple[str, tuple[Any, ...]]] = [
    ("the prompt must be a text, not null", (None, [1, 1], "mix", "", 0)),
    ("the prompt must be a text, not a list", (["a"], [1, 1], "mix", "", 0)),
    ("the method must be a text, not 3", ("a", [1, 1], 3, "", 0)),
    ("the method must be a text, not null", ("a", [1, 1], None, "", 0)),
    ("the tokens must be a text, not null", ("a", [1, 1], "mix", None, 0)),
    ("the tokens has 5,000 characters; take at most 400", ("a", [1, 1], "mix", "x" * 5000, 0)),
    ("the weight of 'dark' must be a number, not a text", ("a", [1, "1"], "mix", "", 0)),
    ("the weight of 'red' must be a number, not true", ("a", [True, 1], "mix", "", 0)),
    ("the weight of 'red' must be a number, not a number of that many digits",
     ("a", [10**400, 1], "mix", "", 0)),
    ("the weight of 'red' is nan", ("a", [math.nan, 1], "mix", "", 0)),
    ("the weight of 'red' is inf", ("a", [math.inf, 1], "mix", "", 0)),
    ("the seed must be a whole number from 0 up to 2**63 - 1, not a number of 1329 bits",
     ("a", [1, 1], "mix", "", 10**400)),
    ("the seed must be a whole number from 0 up to 2**63 - 1, not nan", ("a", [1, 1], "mix", "", math.nan)),
    ("the seed must be a whole number from 0 up to 2**63 - 1, not inf", ("a", [1, 1], "mix", "", math.inf)),
    ("the seed must be a whole number from 0 up to 2**63 - 1, not -1", ("a", [1, 1], "mix", "", -1)),
    ("the seed must be a whole number from 0 up, not a text", ("a", [1, 1], "mix", "", "7")),
    ("the prompt has 10,000 characters", ("x" * 10_000, [1, 1], "mix", "", 0)),
]  # fmt: skip


@pytest.mark.parametrize(("told", "sent"), WRONG)
def test_whatever_a_visitor_sends_is_reported_in_one_line(
    answers: Answers, told: str, sent: tuple[Any, ...]
) -> None:
    with pytest.raises(ParetuneError) as raised:
        answers.answer(*sent)
    assert str(raised.value).startswith(told)
    assert "\n" not in str(raised.value)


def test_seeds_at_the_bounds() -> None:
    assert [read_seed(s) for s in (0, 5.0, 2**63 - 1)] == [0, 5, 2**63 - 1]
    for seed in (2**63, 10**400, -(10**400), 0.5, None):
        with pytest.raises(ParetuneError, match="the seed must be a whole number"):
            read_seed(seed)


@pytest.mark.parametrize("place", [None, "1", [0], {}, True, -1, 0.5, 10**400, math.nan, math.inf])
def test_a_point_that_is_none(answers: Answers, place: Any) -> None:
    with pytest.raises(ParetuneError, match="there is no such point"):
        answers.point(place)


def test_a_recipe_that_would_keep_a_machine_busy_is_not_served(answers: Answers) -> None:
    source = answers.source
    huge = source.model.model_copy(update={"height": 100_000, "width": 100_000})
    for changed, line in (
        (replace(source, steps=100_000), "evaluate.steps is 100,000: the page draws samples of at most"),
        (replace(source, model=huge), "model.height x model.width is 10,000,000,000"),
    ):
        with pytest.raises(ParetuneError, match=line):
            asked.check_load(changed)
    asked.check_load(source)
