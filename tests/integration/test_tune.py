"""`paretune tune`: what it trains and measures, what it writes, that it goes on, and mistakes in one line."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.cli import app as cli
from paretune.commands import trials
from paretune.commands import tune as tuning
from paretune.commands.held_out import hold_out, put_aside
from paretune.commands.tune import Setting, tune
from paretune.config import RunConfig
from paretune.data.preferences import load_preferences
from paretune.data.prompts import load_prompts
from paretune.files import write_rows
from paretune.recipes import find_recipe, load_config, parse_config
from paretune.rewards.table import REWARDS
from paretune.types import Dialogue, ParetuneError, Prompt, Unfit
from paretune.yaml_text import load_yaml
from tests.conftest import tiny_recipe
from tests.executing import InThisProcess

PROMPTS = load_prompts("pictures/geneval-train")


class Red:
    """In the table of rewards, so that it needs no process of its own."""

    name, range, higher_is_better = "red", (-math.inf, math.inf), True

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        return samples[:, 0].mean((1, 2))


class Dark(Red):
    name = "dark"

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        return 1 - samples.mean((1, 2, 3))


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REWARDS, "tests.red", f"{__name__}:Red")
    monkeypatch.setitem(REWARDS, "tests.dark", f"{__name__}:Dark")


def tiny(folder: Path, pipeline: Path, **changes: Any) -> RunConfig:
    recipe = tiny_recipe(folder, pipeline, rounds=1, **changes)
    write_rows(folder / "prompts.jsonl", [dict(p.metadata) for p in PROMPTS[:6]])
    write_rows(folder / "held.jsonl", [dict(p.metadata) for p in PROMPTS[6:12]])
    files = {"prompts": str(folder / "prompts.jsonl"), "eval_prompts": str(folder / "held.jsonl")}
    config = load_config(recipe)
    own = {"red": "tests.red", "dark": "tests.dark"}
    changed = {n: {"reward": own[n], **files} for n in config.rewards}
    rewards = {n: r.model_copy(update=changed[n]) for n, r in config.rewards.items()}
    return config.model_copy(update={"rewards": rewards})


def test_each_method_gets_the_setting_that_measures_best(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "open_executor", InThisProcess)
    config = tiny(tmp_path / "recipe", tiny_sd3, train={"epochs": 2, "prompts_per_epoch": 2})
    out, told = tmp_path / "out", list[dict[str, Any]]()

    def again() -> dict[str, Any]:
        told.clear()
        return tune(config, out, told.append, ["mapreduce", "morl_dr"], (1.0, 9.0), (2.0,), (7,), prompts=2)

    chosen = again()
    assert [event["notice"] for event in told if "notice" in event] == [
        f"trial {i} of 4: {method}, rate-{rate}-batch-2, seed 7"
        for i, (method, rate) in enumerate(
            [("mapreduce", 1), ("mapreduce", 9), ("morl_dr", 1), ("morl_dr", 9)], start=1
        )
    ]  # fmt: skip
    assert load_yaml((out / "tuned.yaml").read_text()) == chosen
    reference = chosen["reference_point"]
    for trial in chosen["trials"]:
        sides = [trial["means"][name] - reference[name] for name in reference]
        assert trial["hypervolume"] == pytest.approx(sides[0] * sides[1])
    for method, best in chosen["methods"].items():
        values = {t["rate"]: t["hypervolume"] for t in chosen["trials"] if t["method"] == method}
        assert best["hypervolume"] == max(values.values()) == values[best["rate"]]
        # 2 rewards of 1 epoch of 4 prompts of 3 samples, whichever method: as many as without the factor.
        assert best["samples"] == 24
        single = load_config(out / f"{method}.yaml")
        assert single.methods == (method,)
        assert single.train.learning_rate == pytest.approx(config.train.learning_rate * best["rate"])
        assert (single.train.prompts_per_epoch, single.train.epochs) == (4, 1)
        assert single.rewards == config.rewards  # with its own prompts
    # The held-out prompts were not looked at, nor those of training measured.
    rows = [json.loads(r) for file in out.rglob("rows.jsonl") for r in file.read_text().splitlines()]
    parts = {
        part: {p.text for n in ("red", "dark") for p in load_prompts(str(out / f"prompts/{n}-{part}.jsonl"))}
        for part in ("train", "validation")
    }
    held, trained = parts["validation"], parts["train"]
    assert {row["prompt"] for row in rows} == held
    assert len(held) == 2
    assert held | trained == {p.text for p in PROMPTS[:6]}
    assert not held & trained
    # Called again, it finds all of it done.
    manifests = {file: file.stat().st_mtime_ns for file in out.rglob("manifest.json")}
    assert again() == chosen
    assert {file: file.stat().st_mtime_ns for file in out.rglob("manifest.json")} == manifests


def test_a_setting_that_breaks_is_told_and_the_others_are_measured(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rate at which training ends in NaN is one that a grid tries."""
    monkeypatch.setattr(trials, "open_executor", InThisProcess)
    measure, fault = trials.train_and_measure, Unfit

    def breaking(made: RunConfig, *given: Any) -> list[dict[str, Any]]:
        if made.train.learning_rate > 0.01:
            raise fault("the change of to_q holds NaN or infinite values")
        return measure(made, *given)

    monkeypatch.setattr(tuning, "train_and_measure", breaking)
    config, out = tiny(tmp_path / "recipe", tiny_sd3, train={"epochs": 1}), tmp_path / "out"
    told: list[dict[str, Any]] = []
    chosen = tune(config, out, told.append, ["mapreduce"], (9.0, 1.0), (1.0,), (7, 8), prompts=2)
    assert chosen["methods"]["mapreduce"]["rate"] == 1.0
    assert [(trial["rate"], trial["seed"]) for trial in chosen["trials"]] == [(1.0, 7), (1.0, 8)]
    (failed,) = chosen["failed"]
    assert (failed["rate"], failed["seed"]) == (9.0, 7)
    assert any(
        event.get("notice") == f"this setting failed and cannot be chosen for mapreduce: {failed['error']}"
        for event in told
    )
    assert load_yaml((out / "tuned.yaml").read_text()) == chosen
    with pytest.raises(ParetuneError, match=r"^no setting of mapreduce could be trained; the last: "):
        tune(config, tmp_path / "none", told.append, ["mapreduce"], (9.0,), (1.0,), (7,), prompts=2)
    fault = ParetuneError  # what is no fault of the setting, such as a full disk, ends the grid
    with pytest.raises(ParetuneError, match=r"^the change of to_q holds"):
        tune(config, tmp_path / "full", told.append, ["mapreduce"], (9.0, 1.0), (1.0,), (7,), prompts=2)


def test_every_method_is_checked_before_the_first_trial(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A joint policy asks each reward about the prompts of the others too, of which one may refuse some."""

    class Choosy(Red):
        def applies(self, prompt: Prompt) -> bool:
            return True

        def check(self, prompts: Sequence[Prompt]) -> None:
            if any(prompt.text in dark for prompt in prompts):
                raise ValueError("a prompt of another set")

    config = tiny(tmp_path / "recipe", tiny_sd3, train={"epochs": 1, "prompts_per_epoch": 2})
    rows = [dict(p.metadata) for p in PROMPTS[12:18]]
    write_rows(tmp_path / "recipe" / "dark.jsonl", rows)
    dark = {prompt.text for prompt in PROMPTS[12:18]}
    raw = config.model_dump(mode="json")
    raw["rewards"]["dark"] |= dict.fromkeys(("prompts", "eval_prompts"), str(tmp_path / "recipe/dark.jsonl"))
    monkeypatch.setattr(sys.modules[__name__], "Red", Choosy)
    with pytest.raises(ParetuneError, match="reward red, which morl_dr asks too, cannot score"):
        tune(parse_config(raw, "x"), tmp_path / "out", lambda _: None, ["mapreduce", "morl_dr"], (1.0,),
             (1.0,), (7,), prompts=2)  # fmt: skip
    assert not (tmp_path / "out" / "mapreduce").exists()


def test_what_a_search_for_steps_draws_counts_in_the_samples(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "open_executor", InThisProcess)
    config = tiny(
        tmp_path / "recipe", tiny_sd3, train={"epochs": 1, "prompts_per_epoch": 2},
        reduce={"step": [1.0, 2.0], "prompts": 2},
    )  # fmt: skip
    chosen = tune(config, tmp_path / "out", lambda _: None, ["mapreduce"], (1.0,), (1.0,), (7,), prompts=2)
    # 2 rewards of 2 prompts of 3 samples, and 2 steps measured by 2 rewards on 2 prompts.
    assert chosen["methods"]["mapreduce"]["samples"] == 12 + 8


@pytest.mark.parametrize(("prompts", "epochs", "batch"), [(90, 21, 0.7), (50, 33, 1.1)])
def test_factors_are_the_decimal_numbers_that_are_written(
    tmp_path: Path, prompts: int, epochs: int, batch: float
) -> None:
    """90 times the float .7 is 62.99999999999999."""
    config = tiny(tmp_path, Path("pictures"), train={"epochs": epochs, "prompts_per_epoch": prompts})
    made = Setting(1.0, batch).of(config).train
    assert made.prompts_per_epoch * made.epochs == prompts * epochs


def test_a_set_is_divided_with_its_records(tmp_path: Path) -> None:
    config = tiny(tmp_path, Path("pictures"))
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    lines = [{"prompt": f"p{i}", "word": "ab"} for i in range(3)]
    lines += [{"prompt": [*turns, {"role": "user", "content": f"so {i}"}], "n": i} for i in range(3)]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rewards = {n: r.model_copy(update={"prompts": str(file)}) for n, r in config.rewards.items()}
    made = hold_out(config.model_copy(update={"rewards": rewards}), 2, tmp_path / "parts")
    own = made.rewards["red"]
    found = [*load_prompts(own.prompts), *load_prompts(own.eval_prompts)]
    assert len(load_prompts(own.eval_prompts)) == 2
    whole = load_prompts(str(file))
    assert sorted(map(repr, found)) == sorted(map(repr, whole))
    kept = {str(p.text): p.text.turns for p in found if isinstance(p.text, Dialogue)}
    assert kept == {str(p.text): p.text.turns for p in whole if isinstance(p.text, Dialogue)}
    assert len(kept) == 3


def test_a_prompt_of_another_column_is_the_one_that_is_kept(tmp_path: Path) -> None:
    config = tiny(tmp_path, Path("pictures"))
    write_rows(tmp_path / "data.jsonl", [{"prompt": f"no {i}", "caption": f"c{i}"} for i in range(6)])
    prompts = f"{tmp_path / 'data.jsonl'}:caption"
    rewards = {n: r.model_copy(update={"prompts": prompts}) for n, r in config.rewards.items()}
    own = hold_out(config.model_copy(update={"rewards": rewards}), 2, tmp_path / "parts").rewards["red"]
    found = [*load_prompts(own.prompts), *load_prompts(own.eval_prompts)]
    assert {str(prompt.text) for prompt in found} == {f"c{i}" for i in range(6)}


@pytest.mark.parametrize("objective", ["dpo", "list_dpo"])
def test_pairs_of_the_hub_that_teach_nothing_are_not_written(tmp_path: Path, objective: str) -> None:
    """A run takes a data set of the hub with equal answers in some rows, and refuses a file with such."""
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "train.jsonl", [
        {"prompt": f"p{i}", "chosen": "yes", "rejected": "yes" if i % 2 else "no"} for i in range(12)
    ])  # fmt: skip
    hub = f"hf:{tmp_path / 'data'}@train"
    sets = ["objective.options={}", "objective.joint=sum_then_normalise", "map.lean=0",
            *(f"rewards.{name}.prompts={hub}" for name in ("helpful", "harmless"))]  # fmt: skip
    config = load_config(find_recipe("assistant"), [f"objective.name={objective}", *sets])
    own = hold_out(config, 2, tmp_path / "parts").rewards["helpful"]
    aside = {prompt.text for prompt in load_prompts(own.eval_prompts)}
    assert {p.text for p in load_prompts(own.prompts)} == {f"p{i}" for i in range(0, 12, 2)} - aside
    online = load_config(find_recipe("assistant"), sets[2:])
    drawn = hold_out(online, 2, tmp_path / "drawn").rewards["helpful"]
    assert len(load_prompts(drawn.prompts)) == 10  # an objective that draws reads the prompts alone


def texts(count: int, start: int = 0) -> list[Prompt]:
    return [Prompt(f"p{i}") for i in range(start, start + count)]


@pytest.mark.parametrize(
    ("sets", "count", "aside"),
    [
        ([texts(12), texts(12)[::-1]], 4, 4),  # the same prompts, in another order
        ([texts(12), texts(12, 12)], 4, 8),
        ([texts(12), texts(12, 9)], 4, 7),  # three prompts are in both, of which one serves both
        ([texts(30), texts(6)], 9, 9),  # a part of the other
        ([texts(4) * 3], 4, 1),  # the same prompt on several lines
        ([texts(2)], 4, 0),
    ],
)  # fmt: skip
def test_what_is_put_aside_is_in_no_training_set(
    sets: list[list[Prompt]], count: int, aside: int, tmp_path: Path
) -> None:
    assert len(put_aside(sets, count, seed=0)) == aside
    config = tiny(tmp_path, Path("pictures"))
    for name, prompts in zip(config.rewards, [*sets, texts(5, 100)], strict=False):
        write_rows(tmp_path / f"{name}.jsonl", [{"prompt": p.text} for p in prompts])
    rewards = {
        n: r.model_copy(update={"prompts": str(tmp_path / f"{n}.jsonl")}) for n, r in config.rewards.items()
    }
    made = hold_out(config.model_copy(update={"rewards": rewards}), count, tmp_path / "parts").rewards
    train, held = (
        {n: {p.text for p in load_prompts(getattr(own, key))} for n, own in made.items()}
        for key in ("prompts", "eval_prompts")
    )
    if aside:
        assert not set.union(*train.values()) & set.union(*held.values())
    for name, prompts in zip(config.rewards, sets, strict=False):
        own = {p.text for p in prompts}
        assert train[name] | held[name] == own
        assert len(held[name]) >= min(count, len(own) // 3)


def test_the_pairs_of_a_prompt_that_is_put_aside_are_not_trained_on(tmp_path: Path) -> None:
    config = tiny(tmp_path, Path("pictures"))
    (tmp_path / "two").mkdir()
    pairs = tmp_path / "two" / "pairs.jsonl"
    forms = [
        {"answers": [{"file": "a.png", "score": 1, "scores": {"red": 2}}, {"file": "b.png", "score": 0}]},
        {"samples": ["a.png", "b.png"], "ranks": [2, 1]},
        {"chosen": "a.png", "rejected": "b.png"},
        {"image_path": ["a.png", "b.png"], "human_preference": [0, 1]},
    ]
    prompts = load_prompts(config.rewards["red"].prompts)
    write_rows(pairs, [{"prompt": p.text, **form} for p in prompts for form in forms])
    red = config.rewards["red"].model_copy(update={"pairs": str(pairs)})
    both = config.model_copy(update={"rewards": {**config.rewards, "red": red}})
    made = hold_out(both, 2, tmp_path / "parts").rewards["red"]
    held = {p.text for p in load_prompts(made.eval_prompts)}
    assert made.pairs is not None
    found = load_preferences(made.pairs)
    assert len(held) == 2
    assert {p.prompt for p in found} == {p.text for p in prompts} - held
    kept = [p for p in load_preferences(str(pairs)) if p.prompt not in held]
    # The same lists, of the same files, though the new file lies elsewhere.
    assert [(p.prompt, p.samples, p.scores, p.judged) for p in found] == [
        (p.prompt, tuple(Path(os.path.realpath(str(s))) for s in p.samples), p.scores, p.judged) for p in kept
    ]
    few = red.model_copy(update={"pairs": str(tmp_path / "few.jsonl")})
    write_rows(tmp_path / "few.jsonl", [{"prompt": next(iter(held)), **forms[1]}])
    with pytest.raises(ParetuneError, match="every list is of a prompt that is put aside"):
        hold_out(both.model_copy(update={"rewards": {"red": few}}), 2, tmp_path / "fewer")


def test_a_batch_leaves_the_samples_as_they_are(tmp_path: Path) -> None:
    config = tiny(tmp_path, Path("pictures"), train={"epochs": 14, "prompts_per_epoch": 6})
    made = Setting(0.5, 2.0).of(config)
    assert (made.train.prompts_per_epoch, made.train.epochs) == (12, 7)
    assert made.train.learning_rate == config.train.learning_rate / 2
    assert Setting(0.5, 2.0).keys(config) == {
        "train.learning_rate": 0.001, "train.prompts_per_epoch": 12, "train.epochs": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--seeds 0", "--seeds: 0 is the recipe's own seed, which its tables report"),
        ("--seeds x", "--seeds wants whole numbers, such as 1000,1001, not 'x'"),
        ("--rates 0", "--rates wants factors above 0, such as 0.5,1,2, not '0'"),
        ("--rates ,", "--rates, --batches and --seeds name one value or more each"),
        ("--batches 0.3", "--batches 0.3: 6 prompts an epoch times 0.3 are no whole number"),
        ("--batches 0.1666666", "are no whole number"),
        ("--methods morl", "--methods: methods.0"),
        ("--methods mapreduce,conditioned --set objective.name=sft", "methods: conditioned trains on"),
        ("--methods mapreduce,conditioned --set lora=null", "methods: conditioned: it trains an adapter"),
        ("--batches 1,4", "--batches 4: 14 epochs divided by 4 are no whole number, so it would draw other"),
        (f"--seeds {2**70}", "--seeds: seed: "),
        ("--methods mapreduce --out full", "full is not empty and holds no trials; choose another --out"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_trained(
    words: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    monkeypatch.setattr("sys.argv", ["paretune", "tune", "quickstart", *words.split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert told in " ".join(error.split())
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["full", "mine"]


def test_settings_that_would_draw_fewer_samples_are_refused(tmp_path: Path) -> None:
    """With 2 of 6 prompts put aside, an epoch of 6 would have 4."""
    config = tiny(tmp_path / "recipe", Path("pictures"), train={"epochs": 2, "prompts_per_epoch": 3})
    with pytest.raises(ParetuneError, match=r"--batches 2: mapreduce would draw 67% .*2 put aside"):
        tune(config, tmp_path / "out", lambda _: None, ["mapreduce"], [1.0], [1.0, 2.0], prompts=2)
    assert not (tmp_path / "out" / "mapreduce").exists()


def test_a_judge_that_ends_training_is_kept(tmp_path: Path) -> None:
    raw = tiny(tmp_path, Path("pictures")).model_dump(mode="json")
    raw["rewards"]["red"]["judge"] = "tests.dark"
    plain = parse_config(raw, "x")
    judged = parse_config(raw | {"stop_when": {"judge": 1}}, "x")
    assert hold_out(plain, 2, tmp_path / "a").rewards["red"].judge is None
    assert hold_out(judged, 2, tmp_path / "b").rewards["red"].judge == "tests.dark"


def test_trials_of_another_recipe_are_refused(tmp_path: Path) -> None:
    config = tiny(tmp_path / "recipe", Path("pictures"))
    trials.begin(config, tmp_path / "out")
    (tmp_path / "out" / "mapreduce").mkdir()
    trials.begin(config, tmp_path / "out")
    with pytest.raises(ParetuneError, match="holds trials of another recipe"):
        trials.begin(config.model_copy(update={"seed": 5}), tmp_path / "out")


def test_out_is_a_folder_that_is_kept_only_once_something_was_trained(tmp_path: Path) -> None:
    config = tiny(tmp_path / "recipe", Path("pictures"))
    (tmp_path / "file").write_text("notes")
    with pytest.raises(ParetuneError, match="file is a file; choose another --out"):
        trials.begin(config, tmp_path / "file")
    out = tmp_path / "out"
    trials.begin(config, out)
    (out / "prompts").mkdir()
    trials.begin(config.model_copy(update={"seed": 5}), out)  # a mistake that was told was mended


def test_settings_whose_epochs_are_rounded_apart_are_refused(tmp_path: Path) -> None:
    """A joint policy makes the mean of 12 and 10 epochs, 11; with twice the batch 6, which draw more."""
    small = {"prompts_per_epoch": 1, "updates_per_epoch": 1}
    config = tiny(tmp_path / "recipe", Path("pictures"), train=small)
    raw = config.model_dump(mode="json")
    for name, epochs in (("red", 12), ("dark", 10)):
        raw["rewards"][name]["epochs"] = epochs
    told = r"--batches 1 and 2: morl_dr would draw [\d,]+ and [\d,]+ samples, as epochs are whole"
    with pytest.raises(ParetuneError, match=told):
        tune(parse_config(raw, "x"), tmp_path / "out", lambda _: None, ["morl_dr"], [1.0], [1.0, 2.0],
             prompts=2)  # fmt: skip
