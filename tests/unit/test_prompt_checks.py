"""What is wrong with a prompt is told by `plan` and before a run trains, with its file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paretune.config import RunConfig
from paretune.recipes import find_recipe, load_config
from paretune.stages.claim import check, missing_files
from paretune.stages.prompt_checks import check_prompts, check_unloaded
from paretune.types import ParetuneError
from tests.language import language_recipe, make_llama

QUOTED = ['a shop with the sign "open"', "a shop with a sign"]


def records(place: Path, *rows: dict[str, Any]) -> str:
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(place)


def lines(place: Path, *prompts: str) -> str:
    place.write_text("\n".join(prompts) + "\n")
    return str(place)


def recipe(**sections: Any) -> RunConfig:
    changes = [f"{key}={json.dumps(value)}" for key, value in sections.items()]
    return load_config(find_recipe("smoke"), changes)


def refused(work: Any, *words: Any) -> str:
    with pytest.raises(ParetuneError) as caught:
        work(*words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("part", ["prompts", "eval_prompts"])
def test_a_prompt_without_quotes_is_reported_by_plan_and_at_the_start(
    tmp_path: Path, tiny_sd3: Path, part: str
) -> None:
    good, bad = lines(tmp_path / "good.txt", QUOTED[0]), lines(tmp_path / "bad.txt", *QUOTED)
    own = {"reward": "ocr", "prompts": good, "eval_prompts": good, part: bad}
    model = {"path": str(tiny_sd3), "steps": 4}
    config = recipe(rewards={"words": own}, methods=["mapreduce"], model=model)
    told = (
        f"{bad}, line 2: reward words cannot score 'a shop with a sign': ocr needs the wanted text, as "
        '"text" in the record or in double quotes in the prompt, and the prompt \'a shop with a sign\' has '
        "neither"
    )
    assert refused(check_unloaded, config, missing_files(config)) == told
    assert refused(check, config) == told
    Path(bad).write_text(QUOTED[0])
    check_unloaded(config, missing_files(config))
    check_prompts(config)


def test_a_judge_is_shown_the_held_out_prompts(tmp_path: Path) -> None:
    bare = records(tmp_path / "bare.jsonl", {"prompt": "a dog"})
    own = {"reward": "pictures.preference", "prompts": bare, "eval_prompts": bare,
           "judge": "pictures.rapidocr"}  # fmt: skip
    config = recipe(rewards={"taste": own})
    assert refused(check_prompts, config).startswith(f"{bare}, line 1: judge rapidocr cannot score 'a dog': ")
    assert f"{bare}, line 1: the judge of taste cannot score" in refused(check_unloaded, config, [])
    check_prompts(recipe(rewards={"taste": own}, **{"evaluate.judges": False}))


MINE = """
class Picky:
    name, range, higher_is_better = "picky", (0, 1), True
    def applies(self, prompt): return prompt.text != "not mine"
    def check(self, prompts):
        for prompt in prompts:
            if prompt.text == "bad": raise ValueError("bad words")
    def score(self, samples, prompts): return [0.5] * len(prompts)

class Other(Picky):
    name = "picky"
"""


def test_a_users_own_check_is_asked_everywhere(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    good, bad = lines(tmp_path / "good.txt", "good", "fine"), lines(tmp_path / "bad.txt", "not mine", "bad")
    taste = {"reward": "pictures.preference", "prompts": good, "eval_prompts": bad}
    own = {"reward": f"{file}:Picky", "prompts": bad, "eval_prompts": good}
    config = recipe(rewards={"mine": own})
    why = "line 2: reward mine cannot score 'bad': ValueError: bad words"
    assert f"{bad}, {why}" in refused(check_unloaded, config, [])
    assert "line 1: reward mine cannot score 'not mine': its record lacks" in refused(check_prompts, config)
    # Nothing trains on it: it is asked about those that it applies to.
    config = recipe(rewards={"taste": taste}, **{"evaluate.untargeted": [f"{file}:Picky"]})
    assert f"{bad}, line 2: untargeted reward picky cannot score 'bad'" in refused(check_prompts, config)
    twins = [f"{file}:Picky", f"{file}:Other"]
    taste["eval_prompts"] = good
    config = recipe(rewards={"taste": taste}, **{"evaluate.untargeted": twins})
    assert "picky is a reward or a judge of this run already" in refused(check_prompts, config)
    # morl_dr shows every prompt to every reward that applies.
    taste["prompts"], own["prompts"] = bad, good
    both = {"mine": own, "taste": taste}
    check_prompts(recipe(rewards=both, methods=["mapreduce"]))
    told = refused(check_prompts, recipe(rewards=both, methods=["morl_dr"]))
    assert f"{bad}, line 2: reward mine, which morl_dr asks too, cannot score 'bad'" in told


@pytest.mark.parametrize("part", ["prompts", "eval_prompts"])
@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"caf\xe9\n", "a.txt:1: not UTF-8"),
        ("a.txt", b"one\n\ntwo\n", "a.txt:2: the line is empty"),
        ("a.csv", b"id;caption\n1;a bird\n", "a.csv:1: no column prompt or Prompt"),
        ("a.parquet", b"PAR1", "expected .txt, .jsonl, .json, .csv, .tsv, not '.parquet'"),
    ],
)
def test_plan_reads_every_file_whoever_scores_it(
    tmp_path: Path, part: str, name: str, content: bytes, told: str
) -> None:
    """Of a reward that takes any prompt, too."""
    (tmp_path / name).write_bytes(content)
    good = lines(tmp_path / "good.txt", "a bird")
    own = {"reward": "pictures.preference", "prompts": good, "eval_prompts": good, part: str(tmp_path / name)}
    config = recipe(rewards={"taste": own}, methods=["mapreduce"])
    assert told in refused(check_unloaded, config, missing_files(config))


@pytest.mark.parametrize("name", ["none.csv:caption", "./none.txt", "none.jsonl"])
def test_a_file_that_is_not_there_yet_is_for_the_plan_to_list(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = {"reward": "pictures.preference", "prompts": name, "eval_prompts": name}
    config = recipe(rewards={"words": own}, methods=["mapreduce"])
    missing = missing_files(config)
    assert missing == [Path(name.partition(":")[0]).name]
    check_unloaded(config, missing)


def test_plan_asks_no_hub_and_no_missing_file(tmp_path: Path) -> None:
    hub, absent = "hf:nobody/nothing@train", str(tmp_path / "no.txt")
    own = {"reward": "pictures.ocr", "prompts": hub, "eval_prompts": absent}
    config = recipe(rewards={"words": own, "mine": {**own, "reward": str(tmp_path / "no.py") + ":R"}})
    check_unloaded(config, missing_files(config))


@pytest.mark.parametrize("objective", ["dpo", "kto", "orpo"])
def test_a_pair_with_an_empty_answer_is_reported_before_training(tmp_path: Path, objective: str) -> None:
    rows = [{"prompt": "how", "chosen": "yes", "rejected": "no"}]
    rows.append({"prompt": "fix", "chosen": "", "rejected": "no"})
    file = records(tmp_path / "pairs.jsonl", *rows)
    model = make_llama(tmp_path / "model")
    place = language_recipe(tmp_path / "recipe", model, objective={"name": objective})
    told = (
        f"{file}, line 2: training cannot take 'fix': objective {objective} trains on pairs: the prompt "
        "'fix' has no \"chosen\" and \"rejected\" texts in its record"
    )
    good = records(tmp_path / "good.jsonl", rows[0])
    changes = [f"rewards.yes.prompts={file}", f"rewards.no.prompts={good}", "train.updates_per_epoch=1"]
    config = load_config(place, changes)
    assert refused(check_unloaded, config, []) == told
    assert refused(check, config) == told
    Path(file).write_text(json.dumps(rows[0]))
    check(config)
