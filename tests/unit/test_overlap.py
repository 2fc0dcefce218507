"""Scores that come in parts, and samples that are drawn while others are scored."""

import threading
import time
from collections.abc import Iterator, Sequence

import pytest
import torch

from paretune.models.flow import Trajectories
from paretune.planning.notices import notices
from paretune.recipes import parse_config
from paretune.training.mixture import Mixture, PromptSet
from paretune.training.overlap import draw_and_score
from paretune.training.trainers import check_objective
from paretune.types import ParetuneError, Prompt


class First:
    """The first number of a sample; notes how many it is asked about in one call."""

    range, higher_is_better = (0.0, 1000.0), True

    def __init__(self, name: str, word: str = "") -> None:
        self.name, self.word = name, word
        self.calls: list[int] = []
        self.layouts: list[bool] = []

    def applies(self, prompt: Prompt) -> bool:
        return self.word in prompt.text

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        self.calls.append(len(samples))
        self.layouts.append(samples.is_contiguous())
        return samples.flatten(1)[:, 0]


def mixture(*rewards: First) -> Mixture:
    """Ten prompts, "a0" to "b9"; every reward scores those that it applies to."""
    prompts = [Prompt(f"{'ab'[i % 2]}{i}") for i in range(10)]
    sets = [PromptSet(r, prompts if i == 0 else (), 1.0) for i, r in enumerate(rewards)]
    return Mixture(sets, "all")


def pictures(count: int) -> torch.Tensor:
    return torch.arange(count).float()[:, None, None, None].expand(-1, 3, 2, 2).contiguous()


@pytest.mark.parametrize("parts", [[160], [64, 64, 32], [100, 60], [1, 158, 1]])
def test_parts_are_scored_in_the_batches_of_the_whole(parts: list[int]) -> None:
    every, some = First("every"), First("some", "a")
    index, samples = torch.arange(10), pictures(160)
    scoring = mixture(every, some).begin_scoring(index, 16, 10.0)
    for part in samples.split(parts):
        scoring.add(part)
    scores = scoring.scores()
    assert scores.raw[0].flatten().tolist() == list(range(160))
    assert scores.raw[1].flatten().tolist() == [i if i // 16 % 2 == 0 else 0 for i in range(160)]
    assert (every.calls, some.calls) == ([64, 64, 32], [64, 16])
    assert all(every.layouts)


def test_scores_before_the_end_are_refused() -> None:
    scoring = mixture(First("x")).begin_scoring(torch.arange(10), 16, 10.0)
    scoring.add(pictures(64))
    with pytest.raises(ValueError, match="64 of 160 samples have come"):
        scoring.scores()


def trajectories(counts: Sequence[int], drawn: list[str]) -> Iterator[Trajectories]:
    start = 0
    for count in counts:
        drawn.append(threading.current_thread().name)
        yield Trajectories(pictures(160)[start : start + count])
        start += count


def test_all_is_drawn_in_another_thread_and_scored_in_this_one() -> None:
    reward, drawn, decoded = First("x"), [], []

    def decode(latents: torch.Tensor) -> torch.Tensor:
        decoded.append(len(latents))
        return latents

    scoring = mixture(reward).begin_scoring(torch.arange(10), 16, 10.0)
    whole = draw_and_score(trajectories([40] * 4, drawn), decode, scoring)
    assert torch.equal(whole.clean, pictures(160))
    assert scoring.scores().raw.flatten().tolist() == list(range(160))
    assert decoded == [64, 64, 32]  # of whole batches of an autoencoder
    assert {name.split("_")[0] for name in drawn} == {"drawing"}


def test_an_error_of_either_side_ends_the_other() -> None:
    class Broken(First):
        def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
            raise RuntimeError("no")

    drawn: list[str] = []
    with pytest.raises(ParetuneError, match="reward 'x' raised RuntimeError: no"):
        draw_and_score(trajectories([64, 64, 16, 16], drawn), lambda x: x,
                       mixture(Broken("x")).begin_scoring(torch.arange(10), 16, 10.0))  # fmt: skip
    assert len(drawn) <= 2  # the part that was being drawn when the first was scored
    assert not any(t.name.startswith("drawing") for t in threading.enumerate())

    def broken() -> Iterator[Trajectories]:
        yield Trajectories(pictures(64))
        raise MemoryError("full")

    with pytest.raises(MemoryError, match="full"):
        draw_and_score(broken(), lambda x: x, mixture(First("x")).begin_scoring(torch.arange(10), 16, 10.0))


def test_a_part_is_scored_while_the_next_is_drawn() -> None:
    """The reward waits for the next part's drawing to begin, which never comes without overlap."""
    next_begun, seen = threading.Event(), list[bool]()

    class Waiting(First):
        def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
            time.sleep(0.05)
            seen.append(next_begun.wait(60))
            return super().score(samples, prompts)

    def drawing() -> Iterator[Trajectories]:
        yield Trajectories(pictures(64))
        next_begun.set()
        yield Trajectories(pictures(64))

    scoring = mixture(Waiting("x")).begin_scoring(torch.arange(4), 32, 100.0)
    draw_and_score(drawing(), lambda x: x, scoring)
    assert len(seen) >= 2
    assert all(seen)
    assert scoring.seconds >= 0.1  # what the reward took is counted, hidden or not


REWARD = {"reward": "pictures.ocr", "prompts": "pictures/ocr-train", "eval_prompts": "pictures/ocr-test"}


def recipe(**sections: object) -> dict[str, object]:
    return {"rewards": {"ocr": REWARD}, "executor": {"overlap": True}, **sections}


NOTHING = "executor.overlap changes nothing here: the "


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ({"micro_batch": 16, "group_size": 12}, []),
        ({"micro_batch": 16, "group_size": 8},
         [f"{NOTHING}64 samples of an epoch are scored in one part, as up to 64 are"]),
        ({"micro_batch": 96},
         [f"{NOTHING}96 samples of an epoch are drawn in one part; set train.micro_batch to 64 or less"]),
    ],
)  # fmt: skip
def test_a_recipe_in_which_nothing_overlaps_is_reported(train: dict[str, int], told: list[str]) -> None:
    config = parse_config(recipe(train=train), "x")
    assert [line for line in notices(config) if "overlap" in line] == told


def test_objectives_that_draw_all_at_once_refuse_it() -> None:
    tree = {"name": "tree_grpo", "options": {"depth": 2}}
    with pytest.raises(ParetuneError, match=r"executor.overlap: objective tree_grpo draws all samples"):
        check_objective(parse_config(recipe(objective=tree, train={"group_size": 4}), "x"))
