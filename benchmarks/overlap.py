"""What `executor.overlap` saves: the wall time of drawing and scoring an epoch, with and without it.

    python benchmarks/overlap.py [--parts 10] [--seconds 0.2]

Both sides only sleep, each part as long as the other, so that the figures hold on a busy machine. The samples
go through the trainer's own code (`training.overlap`, `training.mixture`). Prints one JSON object; the scores
of both must be equal to the last bit.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence

import torch

from paretune.models.flow import Trajectories, joined
from paretune.rewards.base import FunctionReward
from paretune.training.mixture import Mixture, PromptSet
from paretune.training.overlap import draw_and_score
from paretune.training.scoring import BATCH, Scores
from paretune.types import Prompt


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=int, default=10, help="of 64 samples each")
    parser.add_argument("--seconds", type=float, default=0.2, help="of drawing a part, and of scoring it")
    options = parser.parse_args()

    def slow(pictures: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        time.sleep(options.seconds)
        return pictures.flatten(1).mean(1)

    def drawn() -> Iterator[Trajectories]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(options.parts):
            time.sleep(options.seconds)
            yield Trajectories(torch.rand(BATCH, 3, 8, 8, generator=generator))

    prompts = [Prompt(str(i)) for i in range(options.parts)]
    mixture = Mixture([PromptSet(FunctionReward(slow, "slow"), prompts)])
    walls: dict[str, float] = {}
    scores: dict[str, Scores] = {}
    for name in ("one after the other", "overlap"):
        scoring = mixture.begin_scoring(torch.arange(options.parts), BATCH, 120.0)
        start = time.perf_counter()
        if name == "overlap":
            draw_and_score(drawn(), lambda latents: latents, scoring)
        else:
            scoring.add(joined(list(drawn())).clean)
        walls[name], scores[name] = time.perf_counter() - start, scoring.scores()
    before, after = scores.values()
    assert torch.equal(before.raw, after.raw)
    print(json.dumps({
        "parts": options.parts, "seconds_a_part": options.seconds,
        **{f"wall, {name}": round(wall, 3) for name, wall in walls.items()},
        "share": round(walls["overlap"] / walls["one after the other"], 3),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
