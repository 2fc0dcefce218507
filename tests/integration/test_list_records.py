"""Training on lists of uneven lengths, on scores of any range, and on records that are checked before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.config import RunConfig
from paretune.recipes import load_config
from paretune.stages.answer_checks import check_answers
from paretune.stages.prompt_checks import check_unloaded
from paretune.types import ParetuneError
from tests.language import language_recipe, make_gpt2

from .commands import call
from .test_list_losses import _rows, _run, _trainer

SHORT = {"epochs": 2, "prompts_per_epoch": 2, "updates_per_epoch": 1}


def _lists(times: float, steps: bool = False) -> list[dict[str, Any]]:
    """A list of two answers and one of three, with scores in [0, times]."""
    texts = (("yes yes", "no"), ("maybe", "soap soap", "water"))
    scores = ((1.0, 0.25), (0.75, 0.5, 0.0))
    made: list[dict[str, Any]] = []
    for prompt, own, values in zip(("fix", "clean"), texts, scores, strict=True):
        answers: list[dict[str, Any]] = []
        for text, value in zip(own, values, strict=True):
            more = {"steps": [text], "step_weights": [1.5]} if steps else {"text": text}
            answers.append({**more, "scores": {"q": times * value}})
        made.append({"prompt": prompt, "answers": answers})
    return made


def test_scores_from_0_to_100_train_as_those_from_0_to_1_do(tiny_llama: Path, tmp_path: Path) -> None:
    found = [
        _run(_trainer(tmp_path / str(times), tiny_llama, "tree_tpo", _lists(times), train=SHORT))
        for times in (1, 100)
    ]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert any(float(value.abs().max()) > 0 for value in found[0].values())


@pytest.mark.parametrize("steps", [True, False])
def test_the_micro_batch_changes_no_loss_of_uneven_lists(
    tiny_llama: Path, tmp_path: Path, steps: bool
) -> None:
    losses: list[float] = []
    for micro in (1, 2):
        folder = tmp_path / str(micro)
        _run(_trainer(folder, tiny_llama, "tree_tpo", _lists(1, steps), {"steps": steps},
                      train={**SHORT, "micro_batch": micro}))  # fmt: skip
        losses.append([row["loss"] for row in _rows(folder)][-1])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


# ---------------------------------------------------------------- before anything is trained


def _config(folder: Path, model: Path, name: str, *records: dict[str, Any], **options: Any) -> Any:
    """A recipe whose reward `no` has the records; `yes`, which is trained before it, has none at fault."""
    train = {"prompts_per_epoch": 1, "updates_per_epoch": 1}
    recipe = language_recipe(folder, model, objective={"name": name, "options": options}, train=train)
    good, file = folder / "good.jsonl", folder / "records.jsonl"
    good.write_text(json.dumps({**_lists(1)[0], "margin": 1.0, "stage": 1}) + "\n")
    file.write_text("".join(json.dumps({"prompt": f"fix {i}", **r}) + "\n" for i, r in enumerate(records)))
    return load_config(recipe, [f"rewards.yes.prompts={good}", f"rewards.no.prompts={file}"])


GOOD = {"answers": [{"text": "yes", "scores": {"q": 1}}, {"text": "no", "scores": {"q": 0}}]}
TWO = {"answers": [{"text": "yes", "scores": {"a": 1, "b": 1}}, {"text": "no", "scores": {"a": 0, "b": 1}}]}


@pytest.mark.parametrize(
    ("name", "options", "faulty", "told"),
    [
        ("madpo_text", {}, TWO, "its answers have several scores; objective.options.score names"),
        ("adpo_text", {"score": "q"}, TWO, "its answers have no score q; objective.options.score names"),
        ("tree_tpo", {}, TWO, "its answers have several scores"),
        ("dpo", {}, {"chosen": "yes", "rejected": "yes"}, "the same text"),
    ],
)
def test_plan_finds_a_record_that_does_not_fit_the_options(
    tiny_llama: Path, tmp_path: Path, name: str, options: dict[str, Any], faulty: dict[str, Any], told: str
) -> None:
    pair = {"chosen": "yes", "rejected": "no"}
    config = _config(tmp_path, tiny_llama, name, pair if name == "dpo" else GOOD, faulty, **options)
    missing: list[str] = []
    if name == "dpo":
        (tmp_path / "good.jsonl").write_text(json.dumps({"prompt": "fix", **pair}) + "\n")
    with pytest.raises(ParetuneError) as caught:
        check_unloaded(config, missing)
    assert f"{tmp_path / 'records.jsonl'}, line 2: training cannot take 'fix 1'" in str(caught.value)
    assert told in str(caught.value)


def test_tokens_are_checked_by_the_tokenizer_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paretune.models.causal_lm.policy.load_text_model", pytest.fail)
    model = make_gpt2(tmp_path / "gpt2")
    long = {"answers": [{"text": "yes " * 40}, {"text": "no"}]}
    other = {"tokenizer": "0123", "answers": [
        {"text": text, "token_weights": [0.5, 0.5]} for text in ("yes", "no")
    ]}  # fmt: skip
    for name, faulty, told in (
        ("list_dpo", long, "and its longest answer"), ("cdpo", other, "were made with the tokenizer 0123"),
        ("dpo", {"chosen": "yes " * 40, "rejected": "no"}, "longest answer"),
    ):  # fmt: skip
        config = _config(tmp_path / name, model, name, faulty)
        config = config.model_copy(update={"rewards": {"no": config.rewards["no"]}})
        with pytest.raises(ParetuneError) as caught:
            check_answers(config)
        where = f"{tmp_path / name / 'records.jsonl'}, line 1: training cannot take 'fix 0'"
        assert str(caught.value).startswith(where)
        assert told in str(caught.value)


def test_a_run_trains_nothing_where_a_later_expert_has_a_faulty_record(
    tiny_llama: Path, tmp_path: Path
) -> None:
    long = {"answers": [{"text": "yes " * 40}, {"text": "no"}]}
    config = _config(tmp_path, tiny_llama, "list_dpo", GOOD, long)
    (tmp_path / "made.yaml").write_text(config.to_yaml())
    done = call("run", tmp_path / "made.yaml", "--out", tmp_path / "run", "--quiet")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "line 2: training cannot take 'fix 1'" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["dpo", "list_dpo"])
def test_the_same_answer_twice_in_a_data_set_of_the_hub_is_no_fault(
    tiny_llama: Path, tmp_path: Path, name: str
) -> None:
    """Nobody can leave a record out of it; other faults of it are found."""
    same, pair = {"chosen": "yes", "rejected": "yes"}, {"chosen": "yes", "rejected": "no"}
    config = _config(tmp_path, tiny_llama, name, pair, same)

    def with_rows(*rows: dict[str, str]) -> RunConfig:
        folder = tmp_path / f"set-{len(rows)}"
        folder.mkdir()
        lines = [json.dumps({"prompt": f"fix {i}", **row}) + "\n" for i, row in enumerate(rows)]
        (folder / "train.jsonl").write_text("".join(lines))
        changed = {"prompts": f"hf:{folder}@train"}
        rewards = {n: r.model_copy(update=changed) for n, r in config.rewards.items()}
        return config.model_copy(update={"rewards": rewards})

    check_unloaded(with_rows(pair, same), [])
    with pytest.raises(ParetuneError, match=r"row 2: training cannot take 'fix 2'"):
        check_unloaded(with_rows(pair, same, {"chosen": "yes"}), [])
