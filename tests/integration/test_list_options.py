"""Options that every loss on lists has: curricula, a reference that follows, decay to the start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.training.checkpoint import Stopped
from paretune.types import ParetuneError

from .test_list_losses import _rows, _run, _trainer, _values

TRAIN: dict[str, Any] = {"epochs": 2, "prompts_per_epoch": 1, "updates_per_epoch": 1}


def staged(*stages: int) -> list[dict[str, Any]]:
    words = ("yes yes", "no", "wait", "maybe")
    return [
        {"prompt": "fix the table", "chosen": words[i % 4], "rejected": words[(i + 1) % 4], "stage": stage}
        for i, stage in enumerate(stages)
    ]


def test_one_stage_is_no_curriculum_bit_for_bit(tiny_llama: Path, tmp_path: Path) -> None:
    found = [
        _run(_trainer(tmp_path / kind, tiny_llama, "list_dpo", staged(1, 1, 1), {"curriculum": kind},
                      train={**TRAIN, "prompts_per_epoch": 2, "updates_per_epoch": 2}))
        for kind in ("none", "rounds", "epochs")
    ]  # fmt: skip
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in found[0])


def test_a_stage_is_drawn_in_its_round_and_its_epochs(tiny_llama: Path, tmp_path: Path) -> None:
    records = staged(1, 2)
    first = _trainer(tmp_path / "a", tiny_llama, "list_dpo", records, {"curriculum": "rounds"}, train=TRAIN)
    assert [first._draw(e).tolist() for e in range(2)] == [[0], [0]]
    spread = _trainer(tmp_path / "b", tiny_llama, "list_dpo", records, {"curriculum": "epochs"}, train=TRAIN)
    assert [spread._draw(e).tolist() for e in range(2)] == [[0], [1]]
    _run(spread)
    assert len(_rows(tmp_path / "b")) == 2


def test_a_curriculum_without_stages_is_refused_before_training(tiny_llama: Path, tmp_path: Path) -> None:
    from paretune.recipes import load_config
    from paretune.training.trainers import check_experts
    from tests.language import language_recipe

    path = language_recipe(
        tmp_path, tiny_llama, objective={"name": "list_dpo", "options": {"curriculum": "rounds"}}
    )
    (tmp_path / "plain.jsonl").write_text('{"prompt": "fix", "chosen": "yes", "rejected": "no"}\n')
    with pytest.raises(ParetuneError, match=r"curriculum: the prompt 'fix' has no \"stage\""):
        check_experts(load_config(path, [f"rewards.yes.prompts={tmp_path / 'plain.jsonl'}"]))


@pytest.mark.parametrize(
    ("options", "train"), [({"reference_decay": 0.5}, {}), ({}, {"decay": "start", "weight_decay": 0.5})]
)
def test_going_on_is_bit_identical(
    tiny_llama: Path, tmp_path: Path, options: dict[str, Any], train: dict[str, Any]
) -> None:
    def made(folder: Path) -> Any:
        return _trainer(folder, tiny_llama, "list_dpo", staged(1, 1), {"beta": 0.5, **options},
                        train={**TRAIN, "epochs": 3, **train})  # fmt: skip

    whole = made(tmp_path / "whole")
    _run(whole)
    part = made(tmp_path / "part")
    seen: list[Any] = []
    with pytest.raises(Stopped):
        part.run(seen.append, lambda: len(seen) == 1)
    again = made(tmp_path / "part")
    again.resume("", None)
    _run(again)
    ours, theirs = _values(whole), _values(again)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(float(value.abs().max()) > 0 for name, value in ours.items() if "lora_B" in name)


def test_decay_to_the_start_shrinks_the_change_and_keeps_a(tiny_llama: Path, tmp_path: Path) -> None:
    """So strong a decay takes every update back to the start, but for Adam's own step."""
    sizes: dict[str, float] = {}
    for kind, decay in (("none", 0.0), ("start", 8.0)):
        train = {**TRAIN, "epochs": 6, "decay": "start", "weight_decay": decay}
        trainer = _trainer(tmp_path / kind, tiny_llama, "list_dpo", staged(1), {"beta": 0.5}, train=train)
        sizes[kind] = sum(float(d.square().sum()) for d in _run(trainer).values())
    assert sizes["start"] < 0.7 * sizes["none"]


def test_a_reference_that_follows_changes_the_loss_and_leaves_the_base(
    tiny_llama: Path, tmp_path: Path
) -> None:
    losses: list[float] = []
    for i, options in enumerate(({}, {"reference_decay": 0.01})):
        trainer = _trainer(tmp_path / str(i), tiny_llama, "list_dpo", staged(1), {"beta": 0.5, **options},
                           train={**TRAIN, "epochs": 3})  # fmt: skip
        before = {n: p.detach().clone() for n, p in trainer.policy.transformer.named_parameters()}
        _run(trainer)
        after = dict(trainer.policy.transformer.named_parameters())
        plain = {n: p for n, p in after.items() if "lora" not in n}
        assert all(torch.equal(before[n.replace(".base_layer", "")], p) for n, p in plain.items())
        losses.append(_rows(tmp_path / str(i))[-1]["loss"])
    # A reference that is nearly the policy of the update before sees nearly no log-ratio.
    assert losses[1] == pytest.approx(0.693, abs=0.05)
    assert losses[0] < losses[1] - 0.05


def test_a_teacher_is_a_target(tiny_llama: Path, tmp_path: Path) -> None:
    records = [{"prompt": "fix the table", "answers": [
        {"text": text, "scores": {"q": 0.0, "guide": guide}}
        for text, guide in (("yes", -1.0), ("no", 2.0), ("wait", -1.0))
    ]}]  # fmt: skip
    options = {"target": "teacher", "score": "guide", "target_temperature": 1.0, "beta": 1.0}
    trainer = _trainer(tmp_path, tiny_llama, "adpo_text", records, options, train={**TRAIN, "epochs": 6})
    _run(trainer)
    rows = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[0] == pytest.approx(1.0986, abs=1e-3)  # log 3, at the anchor
    assert rows[-1] < 1.0
