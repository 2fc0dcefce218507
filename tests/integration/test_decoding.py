"""Search by beams and revisions of a language model."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.config import ModelConfig
from paretune.models.causal_lm.given_answers import Given, log_probs
from paretune.models.causal_lm.policy import CausalLMPolicy
from paretune.sampling.command import sample_folder
from paretune.sampling.decoding import check_room, decode
from paretune.sampling.request import Request
from paretune.training.objectives.revision import REVISION, revised
from paretune.types import ParetuneError


def opened(model: Path, tokens: int) -> CausalLMPolicy:
    return CausalLMPolicy(ModelConfig.model_validate({"path": str(model), "options": {"max_tokens": tokens}}))


def test_the_policy_of_two_tokens_holds_its_values() -> None:
    """Reward 1 for the tokens 0 0, beta 1, a uniform reference: log-ratios add up to reward less V."""
    leaf = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    second = torch.log(leaf.exp().mean(1))
    first = torch.log(second.exp().mean())
    assert float(second[0]) == pytest.approx(0.6201, abs=5e-5)
    assert float(first) == pytest.approx(0.3574, abs=5e-5)
    policy_one, policy_two = (second - first).exp() / 2, (leaf - second[:, None]).exp() / 2
    assert float(policy_one[0]) == pytest.approx(0.6502, abs=5e-5)
    assert float(policy_two[0, 0]) == pytest.approx(0.7311, abs=5e-5)
    credit = (2 * policy_one[0]).log() + (2 * policy_two[0, 0]).log()
    assert float(credit) == pytest.approx(0.6426, abs=5e-5)
    assert float(credit) == pytest.approx(float(1 - first), abs=1e-6)


def test_with_a_beam_for_every_leaf_the_search_finds_the_likeliest(tiny_llama: Path) -> None:
    policy = opened(tiny_llama, 2)
    end, words = policy.tokenizer.eos_token_id, range(len(policy.tokenizer))
    before = tuple(policy.text_ids(policy.render(["fix the table"]))[0])
    leaves = [(end,), *((a, b) for a, b in itertools.product(words, words) if a != end)]
    sums = [float(row.sum()) for row in log_probs(policy, [Given(before, leaf) for leaf in leaves])]
    order = sorted(range(len(leaves)), key=lambda i: -sums[i])
    texts = [policy.tokenizer.decode(leaves[i], skip_special_tokens=True) for i in order[:3]]
    assert policy.likeliest("fix the table", len(words), 3) == texts
    assert policy.likeliest("fix the table", len(words), 1) == texts[:1]


def test_revisions_follow_each_answer_and_none_is_plain(tiny_llama: Path) -> None:
    policy = opened(tiny_llama, 3)
    pattern = "{prompt} maybe {answer}"
    rows = decode(policy, "fix the table", Request("fix the table", revisions=2), [1, 2], pattern)
    assert len(rows) == 6
    plain = [policy.answer(["fix the table"], seed, 1)[0] for seed in (1, 2)]
    assert [rows[0], rows[3]] == plain
    searched = decode(policy, "fix the table", Request("fix", beams=3, revisions=1), [1], pattern)
    assert searched[1] == policy.likeliest(revised(pattern, "fix the table", searched[0]), 3, 1)[0]
    assert "{prompt}" in REVISION
    request = Request("fix the table", revisions=1)
    check_room(policy, ["fix the table"], request, pattern)
    room = len(policy.text_ids(policy.render(["fix the table maybe "]))[0]) + 2 * 3
    policy.context = room
    check_room(policy, ["fix the table"], request, pattern)
    policy.context = room - 1
    with pytest.raises(ParetuneError, match=r"--revise: the revision prompt for 'fix the table' has"):
        check_room(policy, ["fix the table"], request, pattern)
    check_room(policy, ["fix the table"], Request("fix the table"), pattern)  # nothing to revise


def made(model: str, out: Path, **options: Any) -> dict[str, Any]:
    return sample_folder(model, ["how do I polish the desk"], out, **options)


def test_every_revision_is_a_row_of_the_table(tmp_path: Path) -> None:
    table = made("assistant", tmp_path / "a", count=2, revisions=1)
    assert [(row["sample"], row["revision"]) for row in table["texts"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert table["requests"][0]["revisions"] == 1
    assert len(list((tmp_path / "a" / "texts").iterdir())) == 4
    found = made("assistant", tmp_path / "b", count=2, beams=2)
    assert len({row["text"] for row in found["texts"]}) == 2
    again = made("assistant", tmp_path / "c", count=2, beams=2, seed=9)
    assert [row["text"] for row in again["texts"]] == [row["text"] for row in found["texts"]]
    assert "revision" not in found["texts"][0]
    assert json.loads((tmp_path / "b" / "sample.json").read_text())["requests"][0]["beams"] == 2


@pytest.mark.parametrize(
    ("model", "options", "told"),
    [
        ("pictures", {"beams": 2}, "--beams is for language models; pictures makes pictures"),
        ("pictures", {"revisions": 1}, "--revise is for language models"),
        ("assistant", {"beams": 2, "count": 3}, "-n 3: a search with 2 beams finds 2 answers"),
        ("assistant", {"beams": -1}, "--beams is from 1 to 256, not -1"),
        ("assistant", {"revisions": 99}, "--revise is from 0 to 32, not 99"),
    ],
)
def test_decoding_that_cannot_be_is_one_line(
    tmp_path: Path, model: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ParetuneError) as caught:
        made(model, tmp_path / "a", **options)
    assert told in str(caught.value)
    assert not (tmp_path / "a").exists()


def test_many_beams_are_noted(tmp_path: Path) -> None:
    lines: list[str] = []
    made("assistant", tmp_path / "a", count=1, beams=6, say=lines.append)
    assert lines == ["note: more than 5 beams tend to lengthen answers and to over-optimise the reward"]
