"""What `paretune serve` refuses before it loads anything, and what a run is known by that asks a server."""

import socket
from pathlib import Path
from typing import Any

import pytest

from paretune.commands.serve import Serving, labelled, options_of, serve
from paretune.recipes import changed_keys, parse_config
from paretune.rewards.identity import options_identity
from paretune.rewards.remote.digest import reward_digest
from paretune.rewards.remote.env import environment, environment_key
from paretune.rewards.trust import code_of, registered_only
from paretune.types import ParetuneError
from tests.serving import served


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"host": "0.0.0.0"}, r"--host 0.0.0.0 lets other machines ask: give a --token"),
        ({"host": "::"}, r"--host :: lets other machines ask"),
        ({"host": "gpu.example"}, r"lets other machines ask"),
        ({"token": " "}, "--token must be printable ASCII"),
        ({"port": 70000}, "--port must be from 0 to 65535, not 70000"),
        ({"workers": 0}, "--workers must be from 1 to 64"),
        ({"limit": 0}, "--limit must be from 1"),
    ],
)
def test_wrong_options_of_the_command(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ParetuneError, match=told):
        Serving(**options).check()


def test_a_token_opens_the_server_to_others() -> None:
    Serving(host="0.0.0.0", token="sesame").check()
    Serving(host="localhost").check()


def test_devices_are_dealt_to_the_workers() -> None:
    dealt = Serving(device="cuda:1,cuda:3", workers=3).devices()
    assert [env["CUDA_VISIBLE_DEVICES"] for env in dealt] == ["1", "3", "1"]
    assert Serving(device="cpu").devices() == [{"CUDA_VISIBLE_DEVICES": ""}]
    assert Serving().devices() == [{}]
    with pytest.raises(ParetuneError, match="--device is auto, cpu, cuda or cuda:N"):
        Serving(device="tpu").devices()


def test_names_and_options_of_rewards() -> None:
    assert labelled(["pictures.ocr", "a/b.py:Flat", "x=m:F"]) == {
        "pictures.ocr": "pictures.ocr", "Flat": "a/b.py:Flat", "x": "m:F",
    }  # fmt: skip
    given = options_of({"pictures.ocr": "", "x": ""}, ["x.n=3", "pictures.ocr.words=[a, b]"])
    assert given == {"pictures.ocr": {"words": ["a", "b"]}, "x": {"n": 3}}
    for wrong in ("y.n=3", "x.n", "x.=3"):
        with pytest.raises(ParetuneError, match=r"--option wants REWARD.KEY=VALUE with a reward of"):
            options_of({"x": ""}, [wrong])
    with pytest.raises(ParetuneError, match="two rewards would be served as 'F'"):
        labelled(["a.py:F", "b.py:F"])
    with pytest.raises(ParetuneError, match="is served under a name of letters"):
        labelled(["a b=m:F"])


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as line, \
            pytest.raises(ParetuneError, match="Address already in use; choose another --port"):
        serve(["length"], (), Serving(port=line.getsockname()[1]), lambda _: None, lambda _: None)


def test_a_served_reward_is_known_by_its_code_options_and_environment(tmp_path: Path) -> None:
    file, beside = tmp_path / "mine.py", tmp_path / "helper.py"
    file.write_text("import helper\n")
    beside.write_text("x = 1\n")
    spec = f"{file}:f"
    known = [reward_digest(spec, {}), reward_digest(spec, {"a": 1}), reward_digest(spec, {}, "env")]
    beside.write_text("x = 2\n")
    known.append(reward_digest(spec, {}))
    assert len(set(known)) == 4
    assert reward_digest(spec, {}) == known[3]


def recipe(url: Any, **options: Any) -> dict[str, Any]:
    return {"rewards": {"r": {"reward": "remote", "prompts": "a", "eval_prompts": "b",
                              "options": {"url": url, "reward": "mean", **options}}}}  # fmt: skip


def test_a_run_goes_on_with_another_address_and_not_with_another_reward() -> None:
    old = parse_config(recipe("http://a"), "x")
    moved = parse_config(recipe(["http://b", "http://c"], token_env="PARETUNE_B"), "x")
    assert changed_keys(old, moved) == []
    other = parse_config(recipe("http://a", reward="other"), "x")
    assert changed_keys(old, other) == ["rewards.r.options.reward"]


def test_the_servers_digest_is_part_of_what_a_stage_is_made_from(tmp_path: Path) -> None:
    class Mean:
        name, range, higher_is_better, score = "mean", (0.0, 1.0), True, None

    known = []
    for digest in ("d1", "d1", "d2"):
        with served({"mean": Mean()}, tmp_path, digest=digest) as (url, _):
            known.append(options_identity("remote", {"url": url, "reward": "mean"}))
    assert known == [[{"reward": "mean"}, "d1"], [{"reward": "mean"}, "d1"], [{"reward": "mean"}, "d2"]]
    assert options_identity("pictures.ocr", {"a": 1}) == {"a": 1}


def test_a_runs_folder_names_no_address_unasked() -> None:
    config = parse_config({"rewards": {
        "r": recipe("http://a")["rewards"]["r"],
        "ocr": {"reward": "pictures.ocr", "prompts": "a", "eval_prompts": "b"},
    }}, "x")  # fmt: skip
    told: list[str] = []
    assert code_of(config) == ["remote"]
    assert list(registered_only(config, False, told.append).rewards) == ["ocr"]
    assert told == ["not scored: remote; the code and addresses of a run's folder may be anybody's, and "
                    "--trust-rewards uses them"]  # fmt: skip


def test_an_environment_is_known_by_its_requirements_and_the_files_they_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    file, wheel = tmp_path / "r.txt", tmp_path / "w.whl"
    wheel.write_bytes(b"1")
    file.write_text("w.whl\n")
    known = [environment_key(file)]
    wheel.write_bytes(b"2")
    known.append(environment_key(file))
    file.write_text("# nothing\n")
    known.append(environment_key(file))
    assert len(set(known)) == 3
    told: list[str] = []
    python = environment(file, told.append)
    assert python.is_relative_to(tmp_path / "cache" / "environments" / known[2])
    assert environment(file, told.append) == python
    assert len(told) == 1  # made once
    assert told[0].endswith("pip installs nothing")
    with pytest.raises(ParetuneError, match=r"--env: .*gone.txt cannot be read: No such file"):
        environment(tmp_path / "gone.txt")
