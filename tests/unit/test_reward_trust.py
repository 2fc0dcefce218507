"""The rewards of a run's folder are anybody's code: nothing of them is imported or called unasked."""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from paretune.cli import app as cli
from paretune.commands.add_tokens import add_tokens
from paretune.demo.serving import open_answers
from paretune.recipes import find_recipe, in_run, load_config
from paretune.rewards import FunctionReward, load_reward, score_samples
from paretune.rewards.base import build_reward, find_reward
from paretune.rewards.process import reward_process
from paretune.rewards.trust import registered_only
from paretune.sampling import Request, Sampler
from paretune.sampling.source import open_source
from paretune.types import ParetuneError, Prompt
from tests.conftest import tiny_recipe
from tests.made_run import make_run, make_tokens

HOSTILE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
def red(images, prompts): return [0.5] * len(prompts)
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


def strangers_run(tmp_path: Path, pipeline: Path, specs: dict[str, Any]) -> Path:
    """A finished run whose config.yaml was changed: specs: a reward's name -> its keys."""
    run = make_run(tmp_path / "run", pipeline)
    config = yaml.safe_load((run / "config.yaml").read_text())
    for name, keys in specs.items():
        config["rewards"][name] |= keys
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return run


def hostile(tmp_path: Path, pipeline: Path, marker: Path) -> Path:
    (tmp_path / "evil.py").write_text(HOSTILE.format(marker=str(marker)))
    popen = {"reward": "subprocess:Popen", "options": {"args": f"touch {marker}", "shell": True}}
    return strangers_run(
        tmp_path, pipeline,
        {"red": {"reward": f"{tmp_path / 'evil.py'}:red", "judge": "os:system"}, "dark": popen},
    )  # fmt: skip


def here(*words: object) -> Any:
    return CliRunner().invoke(cli.app, [str(w) for w in words])


# ---------------------------------------------------------------- the commands


def test_sample_draws_scores_nothing_and_says_so(tiny_sd3: Path, tmp_path: Path, marker: Path) -> None:
    run = hostile(tmp_path, tiny_sd3, marker)
    done = here("sample", run, "--prompt", "a red circle", "--out", tmp_path / "out", "-n", 1, "--json")
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines() == [
        f"not scored: {tmp_path}/evil.py:red, subprocess:Popen; the code of a run's folder may be anybody's, "
        "and --trust-rewards runs it"
    ]
    (row,) = json.loads(done.stdout)["pictures"]
    assert row["scores"] == {}
    assert list(row["left_out"]) == ["red", "dark"]
    assert not marker.exists()


def test_with_trust_sample_scores_and_popen_is_still_refused(
    tiny_sd3: Path, tmp_path: Path, marker: Path
) -> None:
    run = hostile(tmp_path, tiny_sd3, marker)
    sampler = Sampler(open_source(str(run), trust_rewards=True))
    with pytest.raises(ParetuneError, match=r"'subprocess:Popen' is a class without name, range"):
        sampler.draw_scored(Request("a red circle"))
    marker.unlink()  # evil.py was asked for and imported; Popen never ran
    with pytest.raises(ParetuneError, match="Popen"):
        load_reward("subprocess:Popen", args=f"touch {marker}", shell=True)
    assert not marker.exists()


def test_the_page_scores_nothing_and_shows_no_file_of_the_users(
    tiny_sd3: Path, tmp_path: Path, marker: Path
) -> None:
    run = hostile(tmp_path, tiny_sd3, marker)
    diary = tmp_path / "diary.txt"
    diary.write_text("dear diary\n")
    config = yaml.safe_load((run / "config.yaml").read_text())
    for own in config["rewards"].values():
        own["eval_prompts"] = str(diary)
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    answers = open_answers(run)
    assert "dear diary" not in answers.examples()
    assert "no score: it is a file&#x27;s or a module&#x27;s code" in \
        answers.answer("a red circle", [1, 1], "mix", "", 1).bars  # fmt: skip
    assert open_source(str(run), trust_rewards=True).unscored == {}
    assert not marker.exists()


def test_eval_of_a_runs_recipe_leaves_code_out_or_refuses(
    tiny_sd3: Path, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = hostile(tmp_path, tiny_sd3, marker)
    measured: list[Any] = []
    monkeypatch.setattr("paretune.commands.measure.measure_adapters", lambda c, *_: measured.append(c) or {
        "methods": {}, "stderr": {}})  # fmt: skip
    nothing = here("eval", run / "config.yaml", "--out", tmp_path / "out", "--json")
    assert "no reward is left to score with: not scored:" in str(nothing.exception)
    assert measured == []
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["rewards"]["dark"] |= {"reward": "pictures.contrast", "options": {}, "judge": "os:system"}
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    done = here("eval", run / "config.yaml", "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith(f"not scored: {tmp_path}/evil.py:red, os:system; ")
    assert list(measured[0].rewards) == ["dark"]
    assert measured[0].rewards["dark"].judge is None
    trusted = here("eval", run / "config.yaml", "--out", tmp_path / "out", "--json", "--trust-rewards")
    assert trusted.exit_code == 0
    assert list(measured[1].rewards) == ["red", "dark"]
    assert not marker.exists()


def test_plan_tokens_and_merge_import_nothing(tiny_sd3: Path, tmp_path: Path, marker: Path) -> None:
    run = hostile(tmp_path, tiny_sd3, marker)
    planned = here("plan", run / "config.yaml", "--json")
    assert planned.exit_code == 0, planned.output
    assert planned.stderr.startswith("not looked at: ")
    make_tokens(run, tiny_sd3)
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(ParetuneError, match=r"is measured by .*evil.py:red.*give --trust-rewards to run it"):
        add_tokens(run, [], lambda _: None)
    assert (run / "config.yaml").read_bytes() == before
    final = run / "final"
    merged = here("merge", final, final, "--method", "search", "--by", run / "config.yaml",
                  "--out", tmp_path / "m")  # fmt: skip
    assert "a merge by" in str(merged.exception)
    assert here("export", run, "--out", tmp_path / "e").exit_code == 0
    assert not marker.exists()


def test_a_recipe_of_ones_own_is_not_in_a_run(tiny_sd3: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tiny_sd3)
    own = tiny_recipe(tmp_path / "mine", tiny_sd3)
    (run / "deep").mkdir()
    (run / "deep" / "x.yaml").write_text("")
    (tmp_path / "link.yaml").symlink_to(run / "config.yaml")
    strangers = [run / "config.yaml", run / "deep" / "x.yaml", tmp_path / "link.yaml"]
    assert [in_run(p) for p in strangers] == [True] * 3
    assert [in_run(p) for p in (own, find_recipe("smoke"))] == [False] * 2
    config = load_config(own)
    assert registered_only(config, True, pytest.fail) is config
    shipped = load_config(find_recipe("smoke"))
    assert registered_only(shipped, False, pytest.fail) is shipped  # registered rewards need no trust


# ---------------------------------------------------------------- what can be a reward


@pytest.mark.parametrize(
    ("spec", "options", "told"),
    [
        ("subprocess:Popen", {"args": "touch {m}", "shell": True}, "is a class without name, range"),
        ("subprocess:call", {"args": "touch {m}", "shell": True}, "is of Python's own module subprocess"),
        ("subprocess:run", {"args": "touch {m}", "shell": True}, "is of Python's own module subprocess"),
        ("os:system", {}, "is a builtin_function_or_method, not a class with a method score"),
        ("os:popen", {}, "is of Python's own module os"),
        ("builtins:eval", {}, "is a builtin_function_or_method"),
        ("builtins:exec", {}, "is a builtin_function_or_method"),
        ("shutil:rmtree", {}, "is of Python's own module shutil"),
        ("runpy:run_path", {}, "is of Python's own module runpy"),
        ("pathlib:Path", {}, "is a class without"),
        ("math:pi", {}, "is a float, not a class or function"),
        ("os:environ", {}, "is a _Environ, not a class or function"),
        ("tests.unit.test_reward_trust:started", {}, "is of Python's own module subprocess"),
        ("tests.unit.test_reward_trust:Short", {}, "its score must take (self, samples, prompts)"),
        ("tests.unit.test_reward_trust:Counted", {"scale": 2}, "unexpected keyword argument 'scale'"),
        ("tests.unit.test_reward_trust:bright", {"scal": 2}, "unexpected keyword argument 'scal'"),
        ("tests.unit.test_reward_trust:alone", {}, "cannot be called with samples, prompts and its options"),
    ],
)
def test_what_is_no_reward_is_refused_before_it_is_called(
    tmp_path: Path, spec: str, options: dict[str, Any], told: str
) -> None:
    marker = tmp_path / "marker"
    filled = {k: v.format(m=marker) if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises(ParetuneError) as raised:
        load_reward(spec, **filled)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not marker.exists()
    assert Counted.made == 0


def test_what_is_a_reward_stays_one() -> None:
    prompts = [Prompt("x")] * 2
    for spec in ("Late", "bright", "half", "Delegated", "cached", "Static", "bound"):
        reward = load_reward(f"tests.unit.test_reward_trust:{spec}")
        assert score_samples(reward, ["a", "b"], prompts).tolist() == [0.5, 0.5]
    bright = build_reward("tests.unit.test_reward_trust:bright", None, {"scale": 0.5})
    assert isinstance(bright, FunctionReward)
    assert find_reward("pictures.geneval").__name__ == "GenEvalReward"


def test_a_users_module_may_bear_the_name_of_one_of_pythons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chunk.py").write_text("def score(samples, prompts): return [0.5] * len(prompts)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "chunk", raising=False)
    reward_process().kill()  # a new one takes over where modules are looked for
    assert score_samples(load_reward("chunk:score"), ["a"], [Prompt("x")]).tolist() == [0.5]
    reward_process().kill()
    assert "chunk" not in sys.modules  # it was imported there, not here


started = functools.partial(subprocess.call, "true")


class Short:
    name, range, higher_is_better = "short", (0, 1), True

    def score(self, samples: Any) -> Any: ...


class Counted:
    name, range, higher_is_better = "counted", (0, 1), True
    made = 0

    def __init__(self) -> None:
        Counted.made += 1

    def score(self, samples: Any, prompts: Any) -> Any: ...


class Late:
    """Its attributes are there once it is made."""

    def __init__(self) -> None:
        self.name, self.range, self.higher_is_better = "late", (-math.inf, math.inf), True

    def score(self, samples: Any, prompts: Any) -> Any:
        return [0.5] * len(prompts)


class Delegated:
    def __init__(self) -> None:
        self._inner = Late()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Static:
    name, range, higher_is_better = "static", (0, 1), True

    @staticmethod
    def score(samples: Any, prompts: Any) -> Any:
        return [0.5] * len(prompts)


def bright(samples: Any, prompts: Any, scale: float = 1.0) -> Any:
    return [0.5 * scale] * len(prompts)


def alone(samples: Any) -> Any: ...


half = functools.partial(bright, scale=1.0)
cached = functools.wraps(bright)(lambda *a, **k: bright(*a, **k))
bound = Late().score
