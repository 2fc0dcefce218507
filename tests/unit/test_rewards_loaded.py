"""Reward models whose files are not whole, not numbers or not safetensors: refused, by name."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from paretune.rewards.base import load_reward, score_samples
from paretune.rewards.loaded import check_loaded
from paretune.rewards.text.reward_models import TextModelReward
from paretune.rewards.worlds import reader, towers
from paretune.types import ParetuneError, Prompt
from tests.language import make_gpt2_reward


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_gpt2_reward(tmp_path / "reward")


def change(folder: Path, drop: str = "", **more: torch.Tensor) -> None:
    """Write the weights again without one tensor, or with others."""
    file = folder / "model.safetensors"
    tensors = {name: value for name, value in load_file(file).items() if name != drop}
    save_file({**tensors, **more}, file, {"format": "pt"})


def refused(spec: str, **options: str) -> str:
    with pytest.raises(ParetuneError) as caught:
        load_reward(spec, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_a_surplus_and_a_damaged_tensor_are_named(model: Path) -> None:
    whole = load_file(model / "model.safetensors")
    change(model, drop="score.weight")
    assert refused("text_model", model=str(model)) == (
        f"reward model {model} is incomplete: its files lack score.weight"
    )
    change(model, **{"score.weight": whole["score.weight"], "second.weight": torch.ones(2)})
    assert "holds weights that its model has no place for: second.weight" in refused(
        "text_model", model=str(model)
    )
    for damage in (math.nan, math.inf):
        change(model, drop="second.weight", **{"score.weight": whole["score.weight"] * damage})
        assert "is damaged: NaN or infinite numbers in score.weight" in refused(
            "text_model", model=str(model)
        )
    change(model, **{"score.weight": whole["score.weight"]})
    assert load_reward("text_model", model=str(model)).name == "text_model"


def test_buffers_that_are_computed_today_are_no_surplus(model: Path) -> None:
    change(model, **{"transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
                     "transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4)})  # fmt: skip
    assert load_reward("text_model", model=str(model)).name == "text_model"


class Runs:
    """What a pickle can do when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.trace,)  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt"])
def test_a_pickle_is_never_read(model: Path, tmp_path: Path, name: str) -> None:
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    told = refused("text_model", model=str(model))
    assert f"{model / name}: weights are read from safetensors alone" in told
    assert "convert it" in told
    assert not (tmp_path / "ran").exists()


def test_a_pickle_of_the_same_model_beside_its_safetensors_is_left_alone(model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"not read")
    (model / "training_args.bin").write_bytes(b"not read")
    assert load_reward("text_model", model=str(model)).name == "text_model"


def test_an_adapter_in_a_pickle_is_refused(model: Path) -> None:
    (model / "adapter_config.json").write_text("{}")
    (model / "adapter_model.bin").write_bytes(b"not read")
    assert "adapter_model.bin: weights are read from safetensors alone" in refused(
        "text_model", model=str(model)
    )


@pytest.mark.parametrize("name", ["reader", "preference", "vqa"])
def test_the_weights_of_embedded_rewards_must_fit_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = load_file(reader.weights_path(name))
    first = next(key for key in sorted(whole) if key.endswith("weight"))
    file = tmp_path / "weights.safetensors"
    for module in (reader, towers):
        monkeypatch.setattr(module, "weights_path", lambda _: file)

    def load(tensors: dict[str, torch.Tensor]) -> str:
        save_file(tensors, file)
        reader.load_reader.cache_clear()
        return refused("pictures." + {"reader": "ocr"}.get(name, name))

    assert f"the installed reward model {name} is incomplete: its files lack {first}" in load(
        {k: v for k, v in whole.items() if k != first}
    )
    assert "has no place for: other.weight" in load({**whole, "other.weight": torch.ones(1)})
    assert f"NaN or infinite numbers in {first}" in load({**whole, first: whole[first] * math.nan})
    assert f"does not fit its own configuration: {first}" in load({**whole, first: torch.ones(1)})
    reader.load_reader.cache_clear()


def test_what_loaders_tell_is_read_whatever_its_form() -> None:
    network = torch.nn.Linear(1, 1)
    check_loaded({}, network, "it")
    buffers = ["text_model.embeddings.position_ids", "rotary_emb.inv_freq"]
    check_loaded({"missing_keys": None, "unexpected_keys": buffers}, network, "it")
    with pytest.raises(ParetuneError, match="it does not fit its own configuration: weight"):
        check_loaded({"mismatched_keys": [("weight", (1,), (2,))]}, network, "it")
    with pytest.raises(ParetuneError, match="lack a, b, c and 2 more"):
        check_loaded({"missing_keys": set("edcba")}, network, "it")


# ---------------------------------------------------------------- templates


def test_a_template_is_filled_in_one_pass(model: Path) -> None:
    """Words in braces are words: the answer's place is the template's alone."""
    reward = TextModelReward(str(model), template="{prompt} please {answer}")
    asked, answers = [Prompt("tell {answer} {prompt} {0} %s")], ["maybe {prompt} {answer}"]
    told = "tell {answer} {prompt} {0} %s please maybe {prompt} {answer}"
    assert reward._texts([asked[0].text], answers) == [told]
    twice = TextModelReward(str(model), template="{prompt} {answer} {prompt} {other}")
    assert twice._texts(["how"], ["yes"]) == ["how yes how {other}"]
    assert score_samples(reward, answers, asked).isfinite().all()
