"""The judge of `paretune analyse safety`: whose code it runs, and what it says of unknown names."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretune.commands.analyse.make import analyse
from paretune.commands.analyse.options import Asked
from paretune.types import ParetuneError
from tests.made_run import make_texts_run

HEADS = '''
from pathlib import Path

class Judge:
    name, range, higher_is_better, heads = "judge", (0.0, 9.0), True, ("low", "high")

    def __init__(self, offset=0.0):
        Path(__file__).with_name("was-run").touch()
        self.offset = offset

    def score(self, samples, prompts):
        return {"low": [self.offset] * len(samples), "high": [self.offset + 5.0] * len(samples)}
'''


@pytest.fixture(scope="module")
def run(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a reward of two heads and an option."""
    folder = tmp_path_factory.mktemp("judged")
    (folder / "judge.py").write_text(HEADS)
    prompts = folder / "prompts.txt"
    prompts.write_text("fix the table\n")
    reward = {"reward": f"{folder / 'judge.py'}:Judge", "prompts": str(prompts), "eval_prompts": str(prompts)}
    rewards = {
        "yes": {**reward, "head": "low", "options": {"offset": 2.0}},
        "no": {**reward, "head": "high", "options": {"offset": 2.0}},
    }
    return make_texts_run(folder / "run", tiny_llama, rewards=rewards, evaluate={"prompts": 1})


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "fix the table"}\n')
    return path


def test_a_run_s_code_judges_with_trust_alone(run: Path, prompts: Path, tmp_path: Path) -> None:
    mark = run.parent / "was-run"
    with pytest.raises(ParetuneError) as caught:
        analyse("safety", str(run), Asked(prompts=prompts, judge="no"))
    assert "--judge no: this reward of the run is " in str(caught.value)
    assert "--trust-rewards runs it" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    # 2 + 5 is at least 6, and 2 is not: the head and the options of the reward count.
    for judge, unsafe in (("no", 0.0), ("yes", 1.0)):
        asked = Asked(prompts=prompts, judge=judge, threshold=6.0, trust_rewards=True)
        found = analyse("safety", str(run), asked, tmp_path / f"{judge}.json")["reports"]
        assert found["safety of merged"][f"attack success ({judge})"]["value"] == unsafe
    assert mark.exists()


def test_an_unknown_judge_of_a_run_is_told_by_the_run_s_rewards(run: Path, prompts: Path) -> None:
    for name, hint in (("yess", "did you mean yes?"), ("soap", "the run has yes, no")):
        with pytest.raises(ParetuneError) as caught:
            analyse("safety", str(run), Asked(prompts=prompts, judge=name))
        assert f"--judge: there is no reward {name}; {hint}" in str(caught.value)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_a_threshold_is_a_finite_number(run: Path, prompts: Path, threshold: float) -> None:
    with pytest.raises(ParetuneError, match="--threshold a finite number"):
        analyse("safety", str(run), Asked(prompts=prompts, threshold=threshold))
