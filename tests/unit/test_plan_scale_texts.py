"""`paretune plan --gpus N` of language models, by arithmetic that is done by hand here."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretune.recipes import find_recipe, load_config
from paretune.samples.answers import Texts
from paretune.samples.media import Work

from ..language import make_gpt2
from .test_plan_scale import _planned

# Llama-2 7B, a layer: four projections of 4096 x 4096, three of 4096 x 11008; 32 of them:
# 202,375,168, and 6,476,005,376 of 6.74e9 parameters.
# The adapter of rank 64: 64 x (inputs + outputs) of each projection, 4 x 8192 + 3 x 15104 a layer. These are
# 159,907,840 numbers, 639.631 MB in float32.


def test_two_experts_of_32_groups_use_8_gpus() -> None:
    costs, scale = _planned("llama2-7b", 8)
    assert (scale.side_by_side, scale.each, scale.busy) == (2, 4, 8)  # 4 divides 32 groups and 128 answers
    assert scale.hours["mapreduce"] == pytest.approx(costs.hours["mapreduce"] / 8)
    assert scale.adapter_mb == pytest.approx(639.631, abs=0.001)
    assert scale.round_mb == pytest.approx(2558.525, abs=0.001)  # both up, the average down to both
    assert scale.update_mb == pytest.approx(959.447, abs=0.001)  # 2 x 3/4
    assert scale.gather_gb == 0


def test_each_device_draws_its_share_of_the_answers() -> None:
    """In GB: the base 13.48, the reward's model 1.54, the adapter five times 3.198, and the answers' caches.

    An answer of 288 tokens takes 2 x 4096 x 32 x 288 values of 2 bytes, 3 x 32000 of 4 bytes, and for its
    prompt of 160 tokens (3 x 11008 + 4 x 4096) x 160 of 2: 167.18 MB. An epoch has 256 of them.
    """
    costs, scale = _planned("llama2-7b", 8)
    assert costs.memory_gb == pytest.approx(13.48 + 1.54 + 3.198 + 256 * 0.16719, abs=0.01)  # 61.0
    assert scale.memory_gb == pytest.approx(13.48 + 1.54 + 3.198 + 64 * 0.16719, abs=0.01)  # 28.9


def test_divided_layers_take_a_part_of_the_memory() -> None:
    """16 bits: three quarters of 12.95 GB are elsewhere, and two gathered layers, 0.81 GB, are held."""
    four = "executor.devices_per_expert=4"
    _, whole = _planned("llama2-7b", 8, four)
    _, parts = _planned("llama2-7b", 8, four, "executor.shard=full")
    assert whole.memory_gb - parts.memory_gb == pytest.approx(9.714 - 0.8095, abs=0.001)
    assert parts.gather_gb == pytest.approx(9.714, abs=0.001)


@pytest.mark.parametrize(
    ("recipe", "gpus", "sets", "used"),
    [
        ("smollm2", 12, (), (4, 2, 8)),  # four experts of 4 groups: 3 devices do not share them evenly
        ("smollm2", 16, (), (4, 4, 16)),
        ("assistant", 8, (), (2, 3, 6)),  # two experts of 6 groups: 4 do not
        ("smollm2", 8, ("objective.options.entropy_coef=0.01",), (4, 1, 4)),  # one device only
        ("llama2-7b", 1, (), (1, 1, 1)),
    ],
)  # fmt: skip
def test_devices_that_cannot_share_evenly_are_left(
    recipe: str, gpus: int, sets: tuple[str, ...], used: tuple[int, int, int]
) -> None:
    _, scale = _planned(recipe, gpus, *sets)
    assert (scale.side_by_side, scale.each, scale.busy) == used


def test_a_layer_of_two_feed_forward_projections_holds_no_more_than_there_is(tmp_path: Path) -> None:
    """GPT-2's has two of them and not three; its words' table is 23 x 16."""
    config = load_config(find_recipe("assistant"), [f"model.path={make_gpt2(tmp_path)}"])
    cost = Texts().cost(config, Work())
    assert cost is not None
    assert cost.parameters is not None
    assert cost.in_blocks == cost.parameters - 23 * 16
