"""Rewards as people write them: what is accepted as it is, and what is refused in one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paretune.rewards.base import (
    FunctionReward,
    RewardError,
    applies_to,
    load_reward,
    one_line,
    score_samples,
)
from paretune.rewards.checks import refusal
from paretune.rewards.process import reward_process
from paretune.types import ParetuneError, Prompt

PROMPTS = [Prompt("a red circle", {"tags": ["x"]}), Prompt("a blue square", {"tags": []})]
SAMPLES = torch.full((2, 3, 4, 4), 0.5)
HEAD = "name, range, higher_is_better = 'own', (0, 1), True\n"
SCORE = "    def score(self, samples, prompts): return [0.25] * len(prompts)\n"


def written(folder: Path, text: str, name: str = "mine.py") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return str(folder / name)


FITS = {
    "frozen dataclass": "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    "from typing import ClassVar\n@dataclass(frozen=True)\nclass R:\n"
    "    value: float = 0.25\n    name: ClassVar[str] = 'own'\n    range: ClassVar[tuple] = (0, 1)\n"
    "    higher_is_better: ClassVar[bool] = True\n" + SCORE,
    "name as a property": "class R:\n    range, higher_is_better = (0, 1), True\n    @property\n"
    "    def name(self): return 'own'\n" + SCORE,
    "slots": "class R:\n    __slots__ = ('name', 'range', 'higher_is_better')\n    def __init__(self):\n"
    "        self.name, self.range, self.higher_is_better = 'own', [0, 1], 1\n" + SCORE,
    "an object": "class C:\n    " + HEAD + SCORE + "R = C()\n",
    "a partial of a class": "import functools\nclass C:\n    " + HEAD
    + "    def __init__(self, value): self.value = value\n" + SCORE + "R = functools.partial(C, 0.25)\n",
}  # fmt: skip


@pytest.mark.parametrize("text", FITS.values(), ids=FITS.keys())
def test_a_class_or_object_keeps_its_ways_under_the_runs_name(tmp_path: Path, text: str) -> None:
    spec = written(tmp_path, text)
    renamed = load_reward(f"{spec}:R", name="beauty")
    assert (renamed.name, renamed.range, renamed.higher_is_better) == ("beauty", (0.0, 1.0), True)
    assert load_reward(f"{spec}:R").name == "own"
    assert score_samples(renamed, SAMPLES, PROMPTS).tolist() == [0.25, 0.25]


FUNCTIONS = {
    "a callable object": "class C:\n    def __call__(self, images, prompts): return [0.25] * len(prompts)\n"
    "R = C()\n",
    "a partial": "import functools\ndef f(value, images, prompts): return [value] * len(prompts)\n"
    "R = functools.partial(f, 0.25)\n",
    "a lambda": "R = lambda images, prompts: [0.25 for _ in prompts]\n",
    "keywords": "def R(images, prompts, **options): return np.full(len(prompts), 0.25)\nimport numpy as np\n",
}


@pytest.mark.parametrize("text", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_whatever_can_be_called_is_a_reward(tmp_path: Path, text: str) -> None:
    reward = load_reward(written(tmp_path, text) + ":R")
    assert reward.name == "R"
    assert score_samples(reward, SAMPLES, PROMPTS).tolist() == [0.25, 0.25]


# ---------------------------------------------------------------- files and their neighbours


@pytest.mark.parametrize("line", ["import helper", "from . import helper", "from {folder} import helper"])
def test_a_file_imports_its_neighbours_and_leaves_no_trace(tmp_path: Path, line: str) -> None:
    path, modules = list(sys.path), set(sys.modules)
    found = []
    for folder, value in (("first", 0.25), ("second", 0.75)):
        place = tmp_path / folder
        written(place, f"VALUE = {value}\n", "helper.py")
        text = f"{line.format(folder=folder)}\ndef f(s, p): return [helper.VALUE] * len(p)\n"
        found.append(score_samples(load_reward(written(place, text) + ":f"), SAMPLES, PROMPTS).tolist())
    assert found == [[0.25, 0.25], [0.75, 0.75]]
    assert sys.path == path
    assert [n for n in set(sys.modules) - modules if not n.startswith("paretune_reward_")] == []


def test_a_class_imports_its_neighbour_when_it_is_made(tmp_path: Path) -> None:
    written(tmp_path, "VALUE = 0.5\n", "late_helper.py")
    text = f"class R:\n    {HEAD}    def __init__(self):\n        import late_helper\n{SCORE}"
    assert load_reward(written(tmp_path, text) + ":R").name == "own"
    assert "late_helper" not in sys.modules


@pytest.mark.parametrize("method", ["applies", "check", "score"])
def test_a_method_imports_its_neighbour_when_it_is_called(tmp_path: Path, method: str) -> None:
    """Two rewards of two folders, whose neighbours have one name; what a neighbour holds stays."""
    rewards = []
    for folder, step in (("first", 1), ("second", 10)):
        place = tmp_path / folder
        late = f"TOLD = []\ndef told():\n    TOLD.append(1)\n    return {step} * len(TOLD)\n"
        written(place, late, "late.py")
        names = {"applies": "prompt", "check": "prompts", "score": "samples, prompts"}
        text = f"class R:\n    {HEAD}" + "".join(
            f"    def {name}(self, {takes}):\n"
            + ("        import late\n        late.told()\n" if name == method else "")
            + ("        import late\n        return [late.told()] * len(prompts)\n" if name == "score" else
               "        return True\n")
            for name, takes in names.items()
        )  # fmt: skip
        rewards.append(load_reward(written(place, text) + ":R"))
    found = []
    for reward in [*rewards, *rewards]:
        assert refusal(reward, PROMPTS[0]) is None
        found.append(score_samples(reward, SAMPLES, PROMPTS).tolist()[0])
    assert found == [2, 20, 4, 40]
    assert "late" not in sys.modules


# ---------------------------------------------------------------- refused


def reward_class(tmp_path: Path, **changed: str) -> str:
    facts = {"name": "'own'", "range": "(0, 1)", "higher_is_better": "True"} | changed
    body = "".join(f"    {key} = {value}\n" for key, value in facts.items())
    return written(tmp_path, f"class R:\n{SCORE}{body}") + ":R"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"range": "None"}, "its range must be (least, greatest)"),
        ({"range": "(1, 0)"}, "infinite, not (1, 0)"),
        ({"range": "(0, float('nan'))"}, "infinite, not (0, nan)"),
        ({"range": "(0.5, 0.5)"}, "infinite, not (0.5, 0.5)"),
        ({"range": "(0, 1, 2)"}, "its range must be"),
        ({"range": "'01'"}, "its range must be"),
        ({"range": "(0, 1j)"}, "its range must be"),
        ({"higher_is_better": "'lower'"}, "must be True or False, not 'lower'"),
        ({"higher_is_better": "None"}, "must be True or False, not None"),
        ({"higher_is_better": "2"}, "must be True or False, not 2"),
        ({"name": "None"}, "its name must be one line of at most 100 characters, not None"),
        ({"name": "'two\\nlines'"}, "its name must be one line of at most 100 characters, not 'two\\nlines'"),
        ({"name": "'n' * 101"}, "its name must be one line"),
        ({"name": "property(lambda self: 1 / 0)"}, "its name raised ZeroDivisionError"),
        ({"range": "property(lambda self: 1 / 0)"}, "its range raised ZeroDivisionError"),
        ({"score": "0.5"}, "its score is 0.5, not a method"),
        ({"applies": "True"}, "its applies is True, not a method"),
        ({"check": "'no'"}, "its check is 'no', not a method"),
        ({"score": "lambda self, samples: [0.0]"}, "its score must take (self, samples, prompts)"),
    ],
)
def test_a_declaration_that_says_nothing_is_refused(
    tmp_path: Path, changed: dict[str, str], told: str
) -> None:
    with pytest.raises(ParetuneError) as caught:
        load_reward(reward_class(tmp_path, **changed))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numpys_numbers_are_a_range_and_a_direction(tmp_path: Path) -> None:
    spec = reward_class(tmp_path, range="__import__('numpy').array([0, 2])",
                        higher_is_better="__import__('numpy').bool_(False)")  # fmt: skip
    reward = load_reward(spec)
    assert (reward.range, reward.higher_is_better) == ((0.0, 2.0), False)


@pytest.mark.parametrize(
    "text",
    [
        "async def R(images, prompts): return [0.0]\n",
        f"class R:\n    {HEAD}    async def score(self, samples, prompts): return [0.0]\n",
        "class C:\n    async def __call__(self, images, prompts): return [0.0]\nR = C()\n",
        "import functools\nasync def f(v, images, prompts): return [v]\nR = functools.partial(f, 1)\n",
        "async def R(images, prompts): yield 0.0\n",
    ],
)
def test_async_is_refused_before_anything_is_scored(tmp_path: Path, text: str) -> None:
    with pytest.raises(ParetuneError, match="is async: write its scoring as a plain function"):
        load_reward(written(tmp_path, text) + ":R")


def test_options_that_a_function_or_an_object_does_not_take(tmp_path: Path) -> None:
    spec = written(tmp_path, f"def f(s, p): return 0\nclass C:\n    {HEAD}{SCORE}R = C()\n")
    with pytest.raises(ParetuneError, match="cannot be called with samples, prompts and its options"):
        load_reward(f"{spec}:f", scale=2)
    with pytest.raises(ParetuneError, match="takes no options"):
        load_reward(f"{spec}:R", scale=2)


# ---------------------------------------------------------------- scores


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def unspeakable(images: torch.Tensor, prompts: list[Prompt]) -> list[float]:
    raise Silent


async def later(images: torch.Tensor, prompts: list[Prompt]) -> list[float]:
    return [0.0, 0.0]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    ("function", "told"),
    [
        (unspeakable, "raised Silent (prompt 'a red circle')"),
        (later, "returned a coroutine, not 2 numbers"),
        (lambda i, p: [1j, 2j], "returned complex numbers, not 2 numbers"),
        (lambda i, p: np.array([1 + 1j, 2]), "returned complex numbers"),
        (lambda i, p: torch.ones(2, dtype=torch.complex64), "returned complex numbers"),
        (lambda i, p: torch.ones(2).to_sparse(), "returned a sparse tensor, not 2 numbers"),
        (lambda i, p: torch.nested.nested_tensor([torch.ones(1)] * 2), "returned a Tensor, not 2 numbers"),
        (lambda i, p: torch.ones(2, device="meta"), "returned a Tensor, not 2 numbers"),
        (lambda i, p: [[0.1], [0.2]], "returned shape [2, 1]"),
        (lambda i, p: [[0.1], [0.2, 0.3]], "returned a list, not 2 numbers"),
        (lambda i, p: [0.1] * 3, "returned shape [3]"),
        (lambda i, p: (0.1 for _ in p), "returned a generator, not 2 numbers"),
        (lambda i, p: {"a": 0.1, "b": 0.2}, "returned a dict, not 2 numbers"),
        (lambda i, p: [10**400, 0], "returned a list, not 2 numbers"),
        (lambda i, p: [None, 0.1], "returned a list, not 2 numbers"),
    ],
)
def test_scores_that_are_no_numbers_are_one_line(function: Any, told: str) -> None:
    with pytest.raises(RewardError) as caught:
        score_samples(FunctionReward(function, "mine"), SAMPLES, PROMPTS)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value", [[1, 0], [True, False], (1.0, 0.0), np.array([1, 0]), torch.tensor([True, False]),
              [torch.tensor(1.0), torch.tensor(0.0)], torch.tensor([1.0, 0.0], requires_grad=True)],
)  # fmt: skip
def test_numbers_of_every_kind_are_scores(value: Any) -> None:
    assert score_samples(FunctionReward(lambda i, p: value, "mine"), SAMPLES, PROMPTS).tolist() == [1, 0]


def test_an_applies_that_raises_names_the_reward_and_the_prompt(tmp_path: Path) -> None:
    reward = load_reward(reward_class(tmp_path, applies="lambda self, prompt: prompt.metadata['no']"))
    with pytest.raises(RewardError) as caught:
        applies_to(reward, PROMPTS[0])
    assert str(caught.value) == "reward 'own' raised KeyError: 'no' in applies (prompt 'a red circle')"


def test_a_check_that_raises_is_reported_in_its_own_words(tmp_path: Path) -> None:
    spec = reward_class(tmp_path, check="lambda self, prompts: [][0]")
    assert refusal(load_reward(spec), PROMPTS[0]) == "IndexError: list index out of range"


def test_a_long_message_is_cut() -> None:
    told = one_line(ValueError("x" * 100_000))
    assert told == f"ValueError: {'x' * 397}..."


# ---------------------------------------------------------------- a reward's own copy


def spoil(samples: Any, prompts: Sequence[Prompt]) -> list[float]:
    """All that a reward could do to what it is given."""
    for prompt in prompts:
        prompt.metadata["tags"].append("spoilt")  # type: ignore[attr-defined]
        prompt.metadata["text"] = "spoilt"  # type: ignore[index]
    if isinstance(samples, torch.Tensor):
        samples.zero_()
        samples.numpy()[...] = 7
    else:
        samples[:] = ["spoilt"] * len(samples)
    return [0.0] * len(prompts)


@pytest.mark.parametrize(
    "samples", [SAMPLES, torch.full((2, 3, 3, 4, 4), 0.5), ["an answer", "another"]],
    ids=["pictures", "clips", "answers"],
)  # fmt: skip
def test_a_reward_that_writes_changes_nothing_of_the_runs(samples: Any) -> None:
    before = samples.clone() if isinstance(samples, torch.Tensor) else list(samples)
    prompts = [Prompt("a", {"tags": ["x"]}), Prompt("b", {"tags": []})]
    score_samples(FunctionReward(spoil, "mine"), samples, prompts)
    assert torch.equal(samples, before) if isinstance(samples, torch.Tensor) else samples == before
    assert [p.metadata for p in prompts] == [{"tags": ["x"]}, {"tags": []}]


def test_an_applies_that_writes_changes_no_record(tmp_path: Path) -> None:
    prompt = Prompt("a", {"tags": ["x"]})
    spec = reward_class(tmp_path, applies="lambda self, prompt: prompt.metadata.clear() or True")
    assert applies_to(load_reward(spec), prompt)
    assert prompt.metadata == {"tags": ["x"]}


def test_what_a_reward_prints_goes_to_standard_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reward_process().kill()  # another one writes to where standard error is now
    text = "print('imported')\nclass R:\n    " + HEAD + (
        "    def __init__(self): print('made')\n"
        "    def applies(self, prompt): print('asked'); return True\n"
        "    def score(self, samples, prompts):\n        print('scored'); return [0.25] * len(prompts)\n"
    )
    reward = load_reward(written(tmp_path, text) + ":R")
    assert applies_to(reward, PROMPTS[0])
    score_samples(reward, SAMPLES, PROMPTS)
    sys.stdout.write("result\n")
    sys.stdout.flush()
    out, err = capfd.readouterr()
    reward_process().kill()
    assert out == "result\n"
    assert err.split() == ["imported", "made", "asked", "scored"]
