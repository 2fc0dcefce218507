"""A reward server under many callers at once, with faults: is anything lost, wrong, or scored twice?

    python benchmarks/reward_server.py [--callers 200] [--questions 5] [--faults 0.05]

Starts `paretune serve` with a reward whose score of a text is known, and a line in front of it that breaks a
share of the connections: at once, after the question went through (so that the answer is lost), or in the
middle of the answer. Every caller asks its questions with `reward: remote`. Prints one JSON object, and exits
with 1 where a score is wrong, is missing, or a sample was scored twice.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from paretune.rewards.remote.client import Remote
from paretune.types import Prompt

REWARD = """
import time

def number(texts, prompts):
    time.sleep(0.005)
    return [int(text) % 1009 for text in texts]
"""
SAMPLES = 4  # of a question


class Line:
    """Passes connections on to a port, and breaks a share of them."""

    def __init__(self, port: int, share: float) -> None:
        self._port, self._share = port, share
        self._random, self._lock = random.Random(0), threading.Lock()
        self.broken = dict.fromkeys(("at once", "answer lost", "answer cut"), 0)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            caller, _ = self._listener.accept()
            threading.Thread(target=self._pass, args=(caller,), daemon=True).start()

    def _pass(self, caller: socket.socket) -> None:
        with self._lock:
            fault = self._random.choice([*self.broken]) if self._random.random() < self._share else None
            if fault is not None:
                self.broken[fault] += 1
        with caller, socket.create_connection(("127.0.0.1", self._port)) as server:
            if fault == "at once":
                return
            server.sendall(_message(caller))
            answer = _message(server)
            if fault != "answer lost":
                caller.sendall(answer[: len(answer) // 2] if fault == "answer cut" else answer)


def _message(line: socket.socket) -> bytes:
    """A whole question or answer: its head, and as many bytes as that says."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += _some(line)
    head, _, body = got.partition(b"\r\n\r\n")
    told = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    while len(body) < (int(told[1]) if told else 0):
        body += _some(line)
    return head + b"\r\n\r\n" + body


def _some(line: socket.socket) -> bytes:
    part = line.recv(1 << 16)
    if not part:
        raise ConnectionError("closed")
    return part


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=200)
    parser.add_argument("--questions", type=int, default=5, help="of each caller, one after the other")
    parser.add_argument("--faults", type=float, default=0.05, help="the share of broken connections")
    options = parser.parse_args()
    threading.excepthook = lambda _: None  # a broken connection ends its thread of the line
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "reward.py"
        file.write_text(REWARD)
        command = [sys.executable, "-m", "paretune", "serve", f"{file}:number", "--port", "0", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                told = _measure(json.loads(server.stdout.readline())["url"], options)
            finally:
                server.terminate()
    print(json.dumps(told))
    sys.exit(0 if told["wrong"] == told["failed"] == told["scored twice"] == 0 else 1)


def _measure(url: str, options: argparse.Namespace) -> dict[str, object]:
    port = urlsplit(url).port
    assert port is not None
    line, barrier = Line(port, options.faults), threading.Barrier(options.callers)

    def caller(number: int) -> tuple[int, int, list[str]]:
        right, wrong, failed = 0, 0, []
        reward = Remote(line.url, "number")
        barrier.wait()
        for question in range(options.questions):
            first = (number * options.questions + question) * SAMPLES
            texts = [str(first + i) for i in range(SAMPLES)]
            try:
                scores = reward.score(texts, [Prompt(text) for text in texts]).tolist()
            except Exception as error:
                failed.append(str(error))
                continue
            same = scores == [(first + i) % 1009 for i in range(SAMPLES)]
            right, wrong = right + same, wrong + (not same)
        return right, wrong, failed

    with ThreadPoolExecutor(options.callers) as callers:
        asked = [callers.submit(caller, i) for i in range(options.callers)]
        start = time.perf_counter()
        results = [one.result() for one in asked]
    seconds = time.perf_counter() - start
    answered = http.client.HTTPConnection("127.0.0.1", port)
    answered.request("GET", "/metrics")
    text = answered.getresponse().read().decode()
    found = re.findall(r"^paretune_(\w+?)(?:\{.*\})? (\S+)$", text, re.MULTILINE)
    counts = {name: float(value) for name, value in found}
    total = options.callers * options.questions
    failures = [failure for _, _, failed in results for failure in failed]
    return {
        "callers": options.callers, "questions": total, "right": sum(r for r, _, _ in results),
        "wrong": sum(w for _, w, _ in results), "failed": len(failures),
        "samples": total * SAMPLES, "samples scored": int(counts["samples_total"]),
        "scored twice": int(counts["samples_total"]) - total * SAMPLES, "broken": line.broken,
        "asked again and not scored again": int(counts["repeated_total"]),
        "calls of the reward": int(counts["batches_total"]), "seconds": round(seconds, 2),
        **({"first failure": failures[0]} if failures else {}),
    }  # fmt: skip


if __name__ == "__main__":
    main()
