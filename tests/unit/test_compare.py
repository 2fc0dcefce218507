"""Comparing runs: pooled seeds, labels, margins by hand, mistakes in one line."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from paretune.cli.app import app
from paretune.cli.tables import comparison_table
from paretune.commands.measured_alike import check_measured_alike
from paretune.recipes import find_recipe, load_config
from paretune.report import write_comparison
from paretune.report.compare import compare_runs, gain, stderr
from paretune.types import ParetuneError

PROMPTS = ("p", "q")


def a_run(folder: Path, values: dict[str, dict[str, float]], **changes: Any) -> str:
    """A finished run whose methods have these constant scores; prompt q scores .1 more than p."""
    folder.mkdir(parents=True)
    rewards = list(next(iter(values.values())))
    summary = {
        "rewards": rewards, "judges": {}, "ranges": {r: [0, 1] for r in rewards},
        "reference_point": dict.fromkeys(rewards, 0.0), "budget": {"base": 0, "mapreduce": 40},
        "rounds": [{"round": 1}, {"round": 2}], "methods": {}, **changes,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = [
        {"method": method, "preference": [0.5, 0.5], "prompt": prompt, "prompt_set": reward, "seed": 0,
         "reward": reward, "value": value + 0.1 * i, "kind": "reward", "round": None}
        for method, means in values.items() for reward, value in means.items()
        for i, prompt in enumerate(PROMPTS)
    ]  # fmt: skip
    (folder / "evaluation.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(folder)


BASE = {"a": 0.15, "b": 0.35}


def seeds(tmp_path: Path) -> list[str]:
    return [
        a_run(tmp_path / "0", {
            "base": BASE, "rewarded_soup": {"a": 0.35, "b": 0.35},
            "mapreduce@1": {"a": 0.25, "b": 0.35}, "mapreduce@2": {"a": 0.45, "b": 0.55},
        }),
        a_run(tmp_path / "1", {
            "base": BASE, "rewarded_soup": {"a": 0.35, "b": 0.35},
            "mapreduce@1": {"a": 0.25, "b": 0.35}, "mapreduce@2": {"a": 0.65, "b": 0.55},
        }),
    ]  # fmt: skip


def test_the_same_method_of_two_runs_is_pooled(tmp_path: Path) -> None:
    found = compare_runs(seeds(tmp_path), draws=50)
    assert list(found["methods"]) == ["base", "rewarded_soup", "mapreduce@1", "mapreduce"]
    last = found["methods"]["mapreduce"]
    assert last["runs"] == 2
    assert last["samples"] == 40
    assert found["methods"]["mapreduce@1"]["samples"] == 20
    assert last["means"] == {"a": pytest.approx(0.6), "b": pytest.approx(0.6)}
    assert last["stderr"] == {"a": pytest.approx(0.1), "b": pytest.approx(0.05)}  # b: the same in both
    assert last["gains"]["a"]["mean"] == pytest.approx(0.4)
    assert last["gains"]["a"]["share"] == pytest.approx(2.0)
    assert last["hypervolume"] == pytest.approx(0.36)
    assert last["margin"] == pytest.approx(0.36 - 0.16)
    assert last["epsilon"] == 0.0


def test_a_label_keeps_runs_apart(tmp_path: Path) -> None:
    one, two = seeds(tmp_path)
    found = compare_runs([f"x={one}", f"y={two}"], against="x rewarded_soup", draws=10)
    assert [m for m in found["methods"] if m.endswith(" mapreduce")] == ["x mapreduce", "y mapreduce"]
    assert found["methods"]["y mapreduce"]["samples"] == 40
    assert found["methods"]["base"]["runs"] == 2
    assert found["methods"]["y rewarded_soup"]["margin"] == pytest.approx(0.0)


@pytest.mark.parametrize("turned", [False, True])
def test_a_run_without_a_label_keeps_its_own_figures(tmp_path: Path, turned: bool) -> None:
    one, two = seeds(tmp_path)
    place = Path(two) / "summary.json"
    summary = json.loads(place.read_text())
    summary["budget"] = {name: 10 * samples for name, samples in summary["budget"].items()}
    summary["training_seconds"] = dict.fromkeys(summary["budget"], 9.0)
    place.write_text(json.dumps(summary))
    runs = [one, f"y={two}"]
    found = compare_runs(runs[::-1] if turned else runs, against="rewarded_soup", draws=10)["methods"]
    assert (found["mapreduce"]["samples"], found["mapreduce@1"]["samples"]) == (40, 20)
    assert (found["y mapreduce"]["samples"], found["y mapreduce"]["training_seconds"]) == (400, 9.0)
    assert found["mapreduce"]["training_seconds"] is None


def test_the_error_of_one_run_is_over_prompts() -> None:
    assert stderr(np.array([[0.0, 2.0]])) == pytest.approx(1.0)
    assert stderr(np.array([[0.0, 2.0], [2.0, 4.0]])) == pytest.approx(1.0)
    assert stderr(np.array([[0.0, 2.0], [0.0, 2.0]])) == pytest.approx(1.0)
    assert stderr(np.array([[0.0]])) == 0.0


def test_a_constant_gain_is_certain() -> None:
    noisy = np.random.default_rng(0).uniform(size=(1, 30))
    found = gain(noisy, noisy + 0.25, draws=50)
    assert found["mean"] == pytest.approx(0.25)
    assert found["stderr"] == pytest.approx(0, abs=1e-9)
    assert found["interval"] == (pytest.approx(0.25), pytest.approx(0.25))


def test_the_page_tells_the_winner(tmp_path: Path) -> None:
    page = write_comparison(compare_runs(seeds(tmp_path), draws=20), tmp_path / "page.html")
    told = page.read_text()
    assert "MapReduce has the greatest hypervolume, 0.3600: +0.2000 over rewarded soup" in told
    assert "<script" not in told
    assert "http" not in told.replace("http://www.w3.org", "")
    assert (tmp_path / "page-plots" / "compare-hypervolume.png").exists()


def test_the_page_tells_what_mapreduce_lacks_where_the_other_wins(tmp_path: Path) -> None:
    run = a_run(tmp_path / "r", {
        "base": BASE, "rewarded_soup": {"a": 0.35, "b": 0.35}, "mapreduce@2": {"a": 0.25, "b": 0.35},
    })  # fmt: skip
    told = write_comparison(compare_runs([run], draws=20), tmp_path / "page.html").read_text()
    assert "Rewarded soup has the greatest hypervolume, 0.1600: MapReduce −0.0400 over rewarded soup" in told


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    runs, page = seeds(tmp_path), tmp_path / "c.html"
    done = CliRunner().invoke(app, ["compare", *runs, "--out", str(page)])
    assert done.exit_code == 0, done.output
    assert "0.600" in done.output
    assert page.exists()
    told = CliRunner().invoke(app, ["compare", *runs, "--out", str(page), "--json"])
    assert json.loads(told.output)["methods"]["mapreduce"]["runs"] == 2


def test_margins_are_from_a_method_that_there_is(tmp_path: Path) -> None:
    runs = seeds(tmp_path)
    assert compare_runs(runs, draws=5)["against"] == "rewarded_soup"
    told = r"no run has the method rewarded_soop; there are base, .* \(did you mean rewarded_soup\?\)$"
    with pytest.raises(ParetuneError, match=told):
        compare_runs(runs, against="rewarded_soop", draws=5)
    alone = a_run(tmp_path / "alone", {"base": BASE, "mapreduce@2": BASE})
    assert compare_runs([alone], draws=5)["against"] is None


def test_a_run_given_twice_is_no_second_seed(tmp_path: Path) -> None:
    one, two = seeds(tmp_path)
    (tmp_path / "link").symlink_to(one)
    for again in (one, f"{one}/", f"x={one}", str(tmp_path / "link")):
        with pytest.raises(ParetuneError, match="are the same run; give it once"):
            compare_runs([one, two, again])


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("summary.json", "{}", "its summary.json lacks rewards, rounds, ranges"),
        ("summary.json", "[]", "its summary.json lacks rewards"),
        ("evaluation.jsonl", "", "its evaluation.jsonl is empty"),
        ("evaluation.jsonl", '{"method": "base"}\n', "is damaged: a row has no 'reward'"),
    ],
)
def test_a_run_whose_files_are_empty_is_one_line(tmp_path: Path, file: str, text: str, told: str) -> None:
    run = a_run(tmp_path / "r", {"base": BASE})
    (Path(run) / file).write_text(text)
    with pytest.raises(ParetuneError, match=told):
        compare_runs([run], draws=5)


def test_a_run_of_which_some_rounds_are_measured(tmp_path: Path) -> None:
    values = {"base": BASE, "mapreduce@1": BASE, "mapreduce@10": {"a": 0.45, "b": 0.55}}
    rounds = [{"round": 1}, {"round": 10}]
    found = compare_runs([a_run(tmp_path / "0", values, rounds=rounds)], draws=5)["methods"]
    assert list(found) == ["base", "mapreduce@1", "mapreduce"]
    assert (found["mapreduce"]["samples"], found["mapreduce@1"]["samples"]) == (40, 4)


def test_the_untargeted_scores_of_any_run_are_columns(tmp_path: Path) -> None:
    values = {"base": BASE, "mapreduce@2": BASE}
    more = {m: {**v, "mine": 0.25} for m, v in values.items()}
    plain = a_run(tmp_path / "0", values)
    scored = a_run(tmp_path / "1", more, rewards=["a", "b"], untargeted=["mine", "unmeasured"])
    found = compare_runs([plain, scored], draws=5)
    assert found["untargeted"] == ["mine"]
    assert found["methods"]["mapreduce"]["means"]["mine"] == pytest.approx(0.3)


def test_the_page_has_epsilons_interval_and_the_table_the_reference_point(tmp_path: Path) -> None:
    found = compare_runs(seeds(tmp_path), draws=20)
    for method in found["methods"].values():
        method["epsilon_interval"] = (0.0123, 0.0456)
    assert "0.012 to 0.046" in write_comparison(found, tmp_path / "page.html").read_text()
    console = Console(record=True, width=160, file=StringIO())
    console.print(comparison_table(found))
    assert "hypervolume from the point a 0, b 0" in console.export_text()


def test_runs_that_do_not_compare_are_refused(tmp_path: Path) -> None:
    (first,) = seeds(tmp_path)[:1]
    other = a_run(tmp_path / "other", {"base": {"a": 0.1, "c": 0.1}})
    with pytest.raises(ParetuneError, match="only runs of the same rewards compare"):
        compare_runs([first, other])
    rows = (Path(first) / "evaluation.jsonl").read_text().replace('"prompt": "q"', '"prompt": "z"')
    moved = a_run(tmp_path / "moved", {"base": BASE})
    (Path(moved) / "evaluation.jsonl").write_text(rows)
    with pytest.raises(ParetuneError, match="other held-out prompts of a"):
        compare_runs([first, moved])
    with pytest.raises(ParetuneError, match=r"no finished run: summary.json is missing"):
        compare_runs([str(tmp_path)])


def test_what_a_device_sends_and_how_long_it_trains_stand_beside(tmp_path: Path) -> None:
    base, soup = {"base": BASE, "rewarded_soup": BASE}, {"base": BASE, "mapreduce@2": BASE}
    costs = [
        {"exchanged": {"mapreduce": 2e6}, "training_seconds": {"mapreduce": s}} for s in (30.0, 50.0)
    ]
    runs = [f"m={a_run(tmp_path / str(i), soup, **cost)}" for i, cost in enumerate(costs)]
    plain = a_run(tmp_path / "plain", base)
    found = compare_runs([*runs, plain])
    own, other = found["methods"]["m mapreduce"], found["methods"]["rewarded_soup"]
    assert (own["exchanged"], own["training_seconds"]) == (2e6, 40.0)
    assert (other["exchanged"], other["training_seconds"]) == (None, None)
    page = write_comparison(found, tmp_path / "page.html").read_text()
    assert "<th>sent<small>MB a device</small></th>" in page
    assert "<td>2.0</td>" in page
    assert "<td>40.0</td>" in page
    older = write_comparison(compare_runs([plain]), tmp_path / "older.html").read_text()
    assert "MB a device" not in older  # runs of earlier versions have neither


def test_runs_with_other_grids_or_rewards_are_refused(tmp_path: Path) -> None:
    first, second = seeds(tmp_path)
    grid = [
        {"method": "mapreduce@2", "preference": [1.0, 0.0], "prompt": prompt, "prompt_set": name, "seed": 0,
         "reward": name, "value": 0.5, "kind": "reward", "round": 2, "lattice": True}
        for name in BASE for prompt in PROMPTS
    ]  # fmt: skip
    with (Path(second) / "evaluation.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in grid)
    with pytest.raises(ParetuneError, match=r"mapreduce of .*1 was measured at other preferences than that"):
        compare_runs([first, second])
    apart = compare_runs([f"one={first}", f"two={second}"])
    assert {"one mapreduce", "two mapreduce"} <= apart["methods"].keys()
    other = a_run(tmp_path / "2", {"base": BASE, "mapreduce@2": BASE})
    with pytest.raises(ParetuneError, match=r"two mapreduce of .*2 was measured at other preferences than"):
        compare_runs([f"one={first}", f"two={second}", f"two={other}"])


def test_labels_whose_bases_differ_gain_over_their_own(tmp_path: Path) -> None:
    """Such as two models, or one that is measured in two ways."""
    runs = [
        f"{label}=" + a_run(tmp_path / label, {"base": {"a": a}, "mapreduce@2": {"a": a + 0.1}})
        for label, a in (("x", 0.15), ("y", 0.45))
    ]
    found = compare_runs(runs, draws=5)["methods"]
    assert list(found) == ["x base", "x mapreduce", "y base", "y mapreduce"]
    for label in "xy":
        assert found[f"{label} base"]["runs"] == 1
        assert found[f"{label} mapreduce"]["gains"]["a"]["mean"] == pytest.approx(0.1)
    # With equal bases there is one.
    again = a_run(tmp_path / "z", {"base": {"a": 0.15}, "mapreduce@2": {"a": 0.3}})
    found = compare_runs([runs[0], f"z={again}"], draws=5)["methods"]
    assert list(found) == ["base", "x mapreduce", "z mapreduce"]
    assert found["z mapreduce"]["gains"]["a"]["mean"] == pytest.approx(0.15)


@pytest.mark.parametrize("turned", [False, True])
def test_the_judges_of_any_run_are_columns(tmp_path: Path, turned: bool) -> None:
    values = {"base": BASE, "mapreduce@2": BASE}
    more = {m: {**v, "J": 0.25} for m, v in values.items()}
    runs = [
        a_run(tmp_path / "0", values),
        a_run(tmp_path / "1", more, rewards=["a", "b"], judges={"a": "J"}),
    ]
    found = compare_runs(runs[::-1] if turned else runs, draws=5)
    assert found["judges"] == {"a": "J"}
    assert list(found["methods"]["mapreduce"]["means"]) == ["a", "b", "J"]


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("model.path=pictures-told", r"\(model.path\)"), ("model.dtype=bfloat16", r"\(model.dtype\)"),
        ("rewards.preference.options.conflict=1", r"\(rewards.preference.options\)"),
        ("rewards.ocr.reward=pictures.contrast", r"\(rewards.ocr.reward\)"),
        ("evaluate.steps=3", r"\(evaluate.steps\)"), ("evaluate.seed=7", r"\(evaluate.seed\)"),
        ("train.learning_rate=0.5", None), ("seed=8", None),
    ],
)  # fmt: skip
def test_the_recipes_say_whether_runs_were_measured_alike(
    tmp_path: Path, item: str, told: str | None
) -> None:
    runs = seeds(tmp_path)
    for run, changes in zip(runs, ([], [item]), strict=True):
        made = load_config(find_recipe("quickstart"), changes)
        (Path(run) / "config.yaml").write_text(made.to_yaml())
    if told is None:
        check_measured_alike(runs)
        return
    with pytest.raises(ParetuneError, match=f"measured in another way than .*{told}"):
        check_measured_alike(runs)
    labelled = [f"{label}={run}" for label, run in zip("ab", runs, strict=True)]
    if item.startswith(("evaluate", "model")):  # two recipes may differ in it, two seeds of one may not
        check_measured_alike(labelled)
    else:
        with pytest.raises(ParetuneError, match=f"measured in another way than .*{told}"):
            check_measured_alike(labelled)


def test_where_a_reward_lies_or_what_it_was_called_does_not_count(tmp_path: Path) -> None:
    runs = seeds(tmp_path)
    check_measured_alike(runs)  # no recipe: by the prompts alone
    url = ("rewards.ocr.reward=remote", "rewards.ocr.options={url: 'http://%s:1', reward: ocr}")
    both = [[f"{item % host if '%' in item else item}" for item in url] for host in ("one", "two")]
    both = [[*items, f"rewards.preference.reward=/{host}/mine.py:f"]
            for items, host in zip(both, ("here", "there"), strict=True)]  # fmt: skip
    for run, items in zip(runs, both, strict=True):
        (Path(run) / "config.yaml").write_text(load_config(find_recipe("quickstart"), items).to_yaml())
    check_measured_alike(runs)
    (Path(runs[0]) / "config.yaml").write_text("]damaged")
    check_measured_alike(runs)


def test_the_page_says_of_which_scores_less_is_better(tmp_path: Path) -> None:
    run = a_run(tmp_path / "0", {"base": BASE, "mapreduce@2": BASE}, higher_is_better={"a": True, "b": False})
    found = compare_runs([run])
    assert found["higher_is_better"] == {"a": True, "b": False}
    page = write_comparison(found, tmp_path / "page.html").read_text()
    assert "<th>b<small>reward, lower is better</small></th>" in page
    assert "<th>a<small>reward</small></th>" in page
    assert "b (lower is better)" in page
