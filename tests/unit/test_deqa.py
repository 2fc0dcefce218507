"""DeQA-Score on tiny random mPLUG-Owl2s: the published code's numbers, its question, pictures and formula."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from paretune.rewards import load_reward, score_samples
from paretune.rewards.hub import frozen
from paretune.rewards.photo.deqa import AFTER, BEFORE, WORDS, mean_level, prepared
from paretune.rewards.photo.owl2 import Place, owl2_class
from paretune.types import ParetuneError, Prompt
from tests.photo_models import photographs

TINY = {
    "model_type": "mplug_owl2", "architectures": ["MPLUGOwl2LlamaForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_mplug_owl2.MPLUGOwl2Config"},  # never run
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
    "hidden_act": "silu",
    "visual_config": {
        "visual_model": {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
                         "num_attention_heads": 2, "image_size": 8, "patch_size": 4},
        "visual_abstractor": {"num_learnable_queries": 3, "hidden_size": 8, "num_hidden_layers": 2,
                              "num_attention_heads": 2, "intermediate_size": 10, "encoder_hidden_size": 8,
                              "grid_size": 2},
    },
}  # fmt: skip
# The pieces of LLaMA 2's tokenizer.model, as zhiyuanyou/DeQA-Score has it in preprocessor/.
PIECES = {
    1: "<s>", 3148: "▁US", 1001: "ER", 29901: ":", 1128: "▁How", 723: "▁would", 366: "▁you", 6554: "▁rate",
    278: "▁the", 11029: "▁quality", 310: "▁of", 445: "▁this", 1967: "▁image", 29973: "?", 13: "\n",
    29871: "▁", 22933: "ASS", 9047: "IST", 13566: "ANT", 450: "▁The", 338: "▁is",
    15129: "▁excellent", 1781: "▁good", 6534: "▁fair", 6460: "▁poor", 4319: "▁bad",
}  # fmt: skip


def make_owl2(folder: Path, parts: int = 1, **changes: Any) -> str:
    """A tiny model under the published names: sin(0.7 n + the name's checksum) at the n-th place."""
    config = {**TINY, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    made = owl2_class()(owl2_class().config_class(**{k: v for k, v in config.items() if k != "auto_map"}))
    tensors = {
        name: torch.sin(0.7 * torch.arange(value.numel()) + zlib.crc32(name.encode()) % 97).view(value.shape)
        for name, value in made.state_dict().items()
    }
    if parts == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return str(folder)
    places = {name: f"model-{i % parts}.safetensors" for i, name in enumerate(tensors)}
    for file in set(places.values()):
        chosen = {name: value for name, value in tensors.items() if places[name] == file}
        save_file(chosen, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return str(folder)


@pytest.fixture(scope="module")
def deqa(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_owl2(tmp_path_factory.mktemp("deqa"), parts=3, vocab_size=30_000)


def test_the_network_gives_the_published_codes_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of src/model of zhiyuanyou/DeQA-Score (commit 8e4abc8) with transformers 4.36.1, for these weights."""
    network = frozen(owl2_class(), make_owl2(tmp_path), "cpu")
    pictures = (torch.arange(2 * 3 * 8 * 8) * 0.37).cos().view(2, 3, 8, 8)
    with torch.no_grad():
        seen = network.model.visual_abstractor(network.model.vision_model(pictures))
        logits = network([1, 5, 9], pictures, [7, 3])
    assert seen.shape == (2, 3 + 1, 16)
    wanted = torch.tensor([[-67.5344, -39.2005, 6.7353, 49.6391], [-74.8320, -40.7006, 11.7060, 58.8495]])
    assert torch.allclose(seen[0, :2, :4], wanted, atol=1e-3)
    wanted = torch.tensor(
        [[-4.3060, 1.5200, 4.9231, 0.4788, -4.7287, -2.3987],
         [-4.1132, 2.0460, 4.9439, -0.0388, -4.9597, -1.9749]]
    )  # fmt: skip
    assert torch.allclose(logits[:, :6], wanted, atol=1e-3)
    assert "model of type" not in capsys.readouterr().err


def test_the_names_are_those_of_the_published_weights() -> None:
    with torch.device("meta"):
        made = owl2_class()(owl2_class().config_class(**{k: v for k, v in TINY.items() if k != "auto_map"}))
    names = set(made.state_dict())
    for name in (
        "model.layers.0.self_attn.k_proj.multiway.1.weight",
        "model.layers.1.input_layernorm.multiway.0.weight",
        "model.vision_model.encoder.layers.0.self_attn.query_key_value.bias",
        "model.vision_model.embeddings.cls_token", "model.visual_abstractor.vit_eos", "lm_head.weight",
        "model.visual_abstractor.encoder.layers.1.crossattention.attention.k_pos_embed",
        "model.visual_abstractor.encoder.layers.0.crossattention.output.mlp.ffn_ln.weight",
    ):  # fmt: skip
        assert name in names
    assert len(names) == 112  # as the published classes have of these sizes


def test_the_published_size_is_that_of_the_published_files() -> None:
    """16.41 GB in half precision, which its users tell of its files."""
    kind = owl2_class()
    config = kind.config_class(
        vocab_size=32_000, hidden_size=4096, intermediate_size=11_008, num_hidden_layers=32,
        num_attention_heads=32,
    )  # fmt: skip
    with torch.device("meta"):
        made = kind(config)
    assert sum(value.numel() for value in made.state_dict().values()) == 8_204_550_144
    assert made.picture_size == 448


def test_the_question_is_the_authors() -> None:
    def text(ids: tuple[int, ...]) -> str:
        return "".join(PIECES[i] for i in ids).replace("▁", " ")

    assert text(BEFORE) == "<s> USER: How would you rate the quality of this image?\n"
    assert text(AFTER) == " \nASSISTANT: The quality of the image is"
    assert [PIECES[i] for i in WORDS.values()] == [f"▁{word}" for word in WORDS]
    assert list(WORDS) == ["excellent", "good", "fair", "poor", "bad"]


def test_the_score_is_the_mean_level() -> None:
    shares = torch.tensor([[0.5, 0.25, 0.125, 0.0625, 0.0625], [0.2] * 5])
    assert mean_level(shares.log()).tolist() == pytest.approx([4.0625, 3.0])
    assert mean_level(torch.tensor([[0.0, 0, 0, 0, 40]]).half()).tolist() == pytest.approx([1.0])


@pytest.mark.parametrize("size", [(20, 20), (12, 30), (31, 17)])
def test_pictures_are_padded_with_the_mean_colour_and_resized(size: tuple[int, int]) -> None:
    """scorer.py's expand2square, then CLIP's processor at 448 pixels, here at 16."""
    smooth = torch.nn.functional.interpolate(photographs(1, 5, 7), size, mode="bilinear")
    image = Image.fromarray((smooth[0] * 255).round().byte().permute(1, 2, 0).numpy())
    side = max(image.size)
    square = Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    pixels = np.asarray(square.resize((16, 16), Image.Resampling.BICUBIC)).astype(np.float32) / 255
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    wanted = torch.from_numpy((pixels - mean) / std).movedim(-1, 0).float()
    found = prepared(smooth, 16)[0]
    assert float((found - wanted).abs().max()) < 1.5 / 255 / 0.26


def test_a_published_folder_scores_pictures(deqa: str) -> None:
    reward = load_reward("deqa", model=deqa, dtype="float32", device="cpu")
    pictures = photographs(3, 20, 30)
    scores = score_samples(reward, pictures, [Prompt("a"), Prompt("b"), Prompt("a")])
    network = frozen(owl2_class(), deqa, "cpu")
    with torch.no_grad():
        logits = network(BEFORE, prepared(pictures, 8), AFTER)[:, list(WORDS.values())].double()
    wanted = [sum(w * math.exp(v) for w, v in zip((5, 4, 3, 2, 1), row, strict=True)) /
              sum(math.exp(v) for v in row) for row in logits.tolist()]  # fmt: skip
    assert scores.tolist() == pytest.approx(wanted, abs=1e-4)
    assert len({round(s, 4) for s in scores.tolist()}) == 3
    alone = score_samples(reward, pictures[1:2], [Prompt("c")])
    assert float(alone[0]) == pytest.approx(float(scores[1]), abs=1e-4)
    assert (reward.name, reward.range, reward.higher_is_better) == ("deqa", (1.0, 5.0), True)


def test_a_picture_is_read_by_its_own_twin() -> None:
    from paretune.rewards.photo.owl2 import Multiway

    twins = Multiway(lambda: torch.nn.Linear(1, 1, bias=False), Place(1, 3))
    for twin, factor in zip(twins.multiway, (2.0, 10.0), strict=True):
        torch.nn.init.constant_(twin.weight, factor)  # type: ignore[arg-type]
    assert twins(torch.ones(1, 4, 1)).flatten().tolist() == [2, 10, 10, 2]


def test_other_weights_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParetuneError, match="has 32 words, and deqa asks in those of LLaMA 2"):
        load_reward("deqa", model=make_owl2(tmp_path), dtype="float32")
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.visual_abstractor.vit_eos"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ParetuneError, match=r"its files lack model\.visual_abstractor\.vit_eos"):
        load_reward("deqa", model=str(tmp_path), dtype="float32")
    file.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ParetuneError, match="weights are read from safetensors alone"):
        load_reward("deqa", model=str(tmp_path), dtype="float32")
