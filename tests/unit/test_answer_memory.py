"""What training on answers takes in memory, term by term, and against what was measured."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paretune.config import LoraConfig
from paretune.models.causal_lm.family import TextOptions
from paretune.models.causal_lm.shape import TextShape, read_text_shape
from paretune.recipes import find_recipe, load_config
from paretune.samples.answer_memory import adapter_bytes, working_bytes
from paretune.samples.media import Work
from paretune.training.objectives.table import find_objective

from ..language import make_gpt2, make_llama

SMOL = TextShape(hidden=576, inner=1536, layers=30, head_units=576, key_units=192, vocabulary=49152)
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "language_memory.py"


def _config(*sets: str) -> Any:
    return load_config(find_recipe("assistant"), sets)


def test_shapes_are_read_from_a_folder_and_from_the_record(tmp_path: Path) -> None:
    llama = read_text_shape(str(make_llama(tmp_path / "llama")))
    assert llama == TextShape(16, 24, 2, 16, 16, 23)
    assert read_text_shape(str(make_gpt2(tmp_path / "gpt2"))) == TextShape(16, 64, 1, 16, 16, 23)
    hub = read_text_shape("meta-llama/Llama-3.1-8B")
    assert hub == TextShape(4096, 14336, 32, 4096, 1024, 128256)
    assert read_text_shape("someone/else") is None


def test_an_adapter_is_held_five_times_in_float32() -> None:
    units = 2 * 1152 + 2 * 768 + 3 * 2112  # in and out of q, o; k, v; gate, up, down
    assert adapter_bytes(LoraConfig(rank=16), SMOL) == 5 * 4 * 16 * units * 30
    assert adapter_bytes(LoraConfig(rank=8, targets=("q_proj",)), SMOL) == 5 * 4 * 8 * 1152 * 30


def _working(work: Work, *sets: str, **options: int) -> float:
    config = _config(*sets)
    return working_bytes(config, SMOL, TextOptions(**options), work) - adapter_bytes(config.lora, SMOL)


def test_micro_batches_hold_their_layers_and_their_logits() -> None:
    """8 answers of 100 tokens with their prompts; little is drawn beside them."""
    sets = ("train.micro_batch=8", "train.prompts_per_epoch=2", "train.group_size=4",
            "train.updates_per_epoch=1")  # fmt: skip
    sizes = {"prompt_tokens": 60, "max_tokens": 40}
    layer = 2 * 576 + 5 * 576 + 4 * 1536 + 7 * 16 + 2 * 576
    tile = 800 * 32768 * 4
    assert _working(Work(), *sets, **sizes) == 800 * 30 * layer * 4 + tile
    assert _working(Work(device="cpu"), *sets, **sizes) == 1.75 * 800 * 30 * layer * 4 + 8.25 * tile
    halved = _working(Work(), *sets, "train.updates_per_epoch=2", **sizes)
    assert halved == (800 * 30 * layer * 4 + tile) / 2
    less = _working(Work(), *sets, "model.gradient_checkpointing=true", **sizes)
    assert less == 800 * (layer + 30 * 576) * 4 + tile


def test_an_epoch_of_many_answers_is_drawn_at_once() -> None:
    """512 answers: their cache is more than one small micro-batch of training."""
    sets = ("train.micro_batch=1", "train.prompts_per_epoch=64", "train.group_size=8")
    cache = 2 * 192 * 30 * 100 * 4
    begin = (3 * 1536 + 4 * 576) * 60 * 4
    assert _working(Work(), *sets, prompt_tokens=60, max_tokens=40) == 512 * (
        cache + 3 * 49152 * 4 + begin
    )


def test_pairs_are_two_answers_and_some_losses_hold_all_their_logits() -> None:
    sets = ("train.micro_batch=4", "train.prompts_per_epoch=4", "train.updates_per_epoch=1")
    layer = 2 * 576 + 5 * 576 + 4 * 1536 + 7 * 16 + 2 * 576
    sizes = {"prompt_tokens": 60, "max_tokens": 40}
    kept = 800 * 30 * layer * 4
    assert _working(Work(draws=False), *sets, **sizes) == kept + 800 * 32768 * 4
    whole = _working(Work(draws=False, whole_logits=True), *sets, **sizes)
    assert whole == kept + 5 * 800 * 49152 * 4
    assert [find_objective(name).whole_logits for name in ("dpo", "kto", "cpo", "simpo", "orpo")] == [
        False, False, True, True, True
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("--size", "135m", "--micro", "8"), ("--size", "40m", "--micro", "4", "--answer", "32")]
)
def test_the_estimate_is_within_a_quarter_of_what_is_measured(words: tuple[str, ...]) -> None:
    command = [sys.executable, str(BENCHMARK), "--answers", "16", "--threads", "1", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ))
    assert 0.75 < json.loads(done.stdout.splitlines()[-1])["ratio"] < 1.25
