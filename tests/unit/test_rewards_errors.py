"""Every way in which a reward can fail, and the one line that says so."""

import math
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.rewards import REWARDS, FunctionReward, RewardError, load_reward, score_samples
from paretune.rewards.base import score_all
from paretune.types import ParetuneError, Prompt

PROMPTS = [Prompt("a red circle"), Prompt("a blue square")]
SAMPLES = torch.zeros(2, 3, 32, 32)


def raising(images: torch.Tensor, prompts: list[Prompt]) -> list[float]:
    raise KeyError("no such thing\nsecond line")


def leaving(images: torch.Tensor, prompts: list[Prompt]) -> list[float]:
    sys.exit("bye")


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (raising, "raised KeyError: 'no such thing"),
        (leaving, "raised SystemExit: bye (prompt 'a red circle')"),
        (lambda i, p: [0.5, math.nan], "returned nan (prompt 'a blue square')"),
        (lambda i, p: [math.inf, 0.5], "returned inf (prompt 'a red circle')"),
        (lambda i, p: [0.5], "returned shape [1], not 2 numbers (prompt 'a red circle')"),
        (lambda i, p: torch.zeros(2, 1), "returned shape [2, 1], not 2 numbers"),
        (lambda i, p: 1.0, "returned shape [], not 2 numbers"),
        (lambda i, p: None, "returned a NoneType, not 2 numbers"),
        (lambda i, p: "well", "returned a str, not 2 numbers"),
        (lambda i, p: ["good", "bad"], "returned a list, not 2 numbers"),
    ],
)
def test_a_failure_is_one_line_with_reward_and_prompt(function: Any, told: str) -> None:
    with pytest.raises(RewardError) as caught:
        score_samples(FunctionReward(function, "mine"), SAMPLES, PROMPTS)
    message = str(caught.value)
    assert message.startswith("reward 'mine' ")
    assert told in message
    assert "\n" not in message


def test_a_reward_that_hangs_is_given_up() -> None:
    def hanging(images: torch.Tensor, prompts: list[Prompt]) -> list[float]:
        time.sleep(60)
        return [0.0, 0.0]

    started = time.monotonic()
    with pytest.raises(RewardError, match=r"did not answer within 0.2 s \(prompt 'a red circle'\)"):
        score_samples(FunctionReward(hanging, "slow"), SAMPLES, PROMPTS, timeout=0.2)
    assert time.monotonic() - started < 30


def test_the_bad_row_is_named_in_a_later_batch_too() -> None:
    def once_bad(images: torch.Tensor, prompts: list[Prompt]) -> list[float]:
        return [math.nan if p.text == "a blue square" else 1.0 for p in prompts]

    with pytest.raises(RewardError, match="'a blue square'"):
        score_samples(FunctionReward(once_bad, "mine"), SAMPLES, PROMPTS, batch_size=1)


def test_samples_and_prompts_must_be_as_many() -> None:
    with pytest.raises(ParetuneError, match="2 samples but 1 prompts"):
        score_samples(FunctionReward(raising, "mine"), SAMPLES, PROMPTS[:1])


def test_no_samples_give_no_scores() -> None:
    assert score_samples(FunctionReward(raising, "mine"), SAMPLES[:0], []).tolist() == []


def test_two_rewards_of_one_name_are_refused() -> None:
    twins = [FunctionReward(raising, "mine"), FunctionReward(leaving, "mine")]
    with pytest.raises(ParetuneError, match="two different rewards are called 'mine'"):
        score_all(twins, SAMPLES, PROMPTS)


def test_numbers_of_any_kind_are_accepted() -> None:
    reward = FunctionReward(lambda i, p: [1, True], "mine")
    assert score_samples(reward, SAMPLES, PROMPTS).tolist() == [1.0, 1.0]


# ---------------------------------------------------------------- finding a reward


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(ParetuneError) as caught:
        load_reward("GenEvl")
    message = str(caught.value)
    assert "unknown reward 'GenEvl'; did you mean 'geneval'?" in message
    assert all(name in message for name in REWARDS)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("no_such_module:f", "cannot import no_such_module: ModuleNotFoundError"),
        ("nowhere/mine.py:f", "nowhere/mine.py does not exist"),
        ("math:sqroot", "has no 'sqroot'; did you mean 'sqrt'?"),
        ("math:pi", "is a float, not a class or function"),
        ("math:", "write it as module:Name or file.py:Name"),
        ("collections:OrderedDict", "is a class without name, range, higher_is_better, score"),
    ],
)
def test_a_spec_that_leads_nowhere(spec: str, told: str) -> None:
    with pytest.raises(ParetuneError) as caught:
        load_reward(spec)
    assert told in str(caught.value)


def test_options_that_do_not_fit() -> None:
    with pytest.raises(ParetuneError, match="could not be made: TypeError"):
        load_reward("pictures.geneval", nonsense=1)


def test_a_function_and_a_class_of_a_file(tmp_path: Path) -> None:
    place = tmp_path / "mine.py"
    place.write_text(
        "class Fixed:\n"
        "    name, range, higher_is_better = 'fixed', (0, 1), True\n"
        "    def __init__(self, value=0.5): self.value = value\n"
        "    def score(self, samples, prompts): return [self.value] * len(prompts)\n"
        "def brightness(images, prompts, scale=1.0):\n"
        "    return images.mean((1, 2, 3)) * scale + 1\n"
    )
    fixed = load_reward(f"{place}:Fixed", name="other", value=0.25)
    bright = load_reward(f"{place}:brightness", scale=2.0)
    assert (fixed.name, bright.name, bright.range) == ("other", "brightness", (-math.inf, math.inf))
    assert score_samples(fixed, SAMPLES, PROMPTS).tolist() == [0.25, 0.25]
    assert score_samples(bright, SAMPLES + 1, PROMPTS).tolist() == [3.0, 3.0]


def test_a_file_that_does_not_parse(tmp_path: Path) -> None:
    place = tmp_path / "broken.py"
    place.write_text("def f(:\n")
    with pytest.raises(ParetuneError, match="SyntaxError"):
        load_reward(f"{place}:f")


# ---------------------------------------------------------------- prompts that cannot be scored


@pytest.mark.parametrize(
    ("name", "told"),
    [("pictures.geneval", "needs a GenEval record"), ("pictures.ocr", 'needs a record with "text"')],
)
def test_a_prompt_without_its_record(name: str, told: str) -> None:
    with pytest.raises(RewardError) as caught:
        score_samples(load_reward(name), SAMPLES, PROMPTS)
    assert told in str(caught.value)
    assert "'a red circle'" in str(caught.value)


def test_rapidocr_names_the_extra_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)
    with pytest.raises(ParetuneError, match=r"pip install 'paretune\[judges\]'"):
        load_reward("pictures.rapidocr")
