"""An epoch of a real policy gives the same bits whether scoring overlaps sampling or not."""

from pathlib import Path

import pytest
import torch

from .test_expert import OBJECTIVES, _trainer, _values

CASES = ["all steps", "nft", "sft"]


@pytest.mark.parametrize("objective", CASES)
def test_overlap_gives_the_same_bits(tiny_sd3: Path, tmp_path: Path, objective: str) -> None:
    train = {"epochs": 1, "prompts_per_epoch": 3, "group_size": 24, "updates_per_epoch": 1,
             "micro_batch": 20}  # fmt: skip
    calls: list[int] = []

    def red(images: torch.Tensor, prompts: object) -> torch.Tensor:
        calls.append(len(images))
        return images[:, 0].mean((1, 2))

    values = []
    for overlap in (False, True):
        trainer = _trainer(
            tmp_path / str(overlap), tiny_sd3, reward=red, train=train, objective=OBJECTIVES[objective],
            executor={"overlap": overlap},
        )  # fmt: skip
        before = _values(trainer)
        row = trainer.epoch()
        assert row["seconds_sample"] > 0
        values.append((row["reward"], _values(trainer)))
        assert not torch.equal(before, values[-1][1])
    assert values[0][0] == values[1][0]
    assert torch.equal(values[0][1], values[1][1])
    assert calls == [64, 8] * 2


def test_samples_for_trackers_are_written_every_so_many_epochs(tiny_sd3: Path, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, tiny_sd3, trackers=["tensorboard"], samples_every=2, train={"epochs": 3})
    trainer.run(lambda event: None, lambda: False)
    written = sorted(file.name for file in (tmp_path / "shown").iterdir())
    assert written == [f"epoch-000{epoch}-{i}.png" for epoch in (2, 3) for i in range(2)]
