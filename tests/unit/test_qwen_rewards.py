"""VQAScore, UnifiedReward and HPSv3 on tiny random Qwen-VLs: pictures, questions, formulas as published."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration, Qwen2VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from paretune.rewards import load_reward, score_samples
from paretune.rewards.base import applies_to
from paretune.rewards.photo import hpsv3, unified_reward
from paretune.rewards.photo.hpsv3 import TEMPLATE, HPSv3
from paretune.rewards.photo.qwen import LEAST_PIXELS, MOST_PIXELS, PICTURE, shared_qwen
from paretune.rewards.photo.unified_reward import QUESTION, written_score
from paretune.rewards.qwen_vision import CHAT, fitting_size, patches, resized
from paretune.types import ParetuneError, Prompt
from tests.photo_models import make_clip, make_qwen, make_qwen2_base, photographs

PROMPTS = [Prompt("a dog"), Prompt("cats")]
WORDS = (*CHAT.split(), *TEMPLATE.split(), *QUESTION.split(), "a", "dog", "cats", "Yes", "No")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_qwen(tmp_path_factory.mktemp("qwen"), WORDS)


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("size", [(56, 84), (60, 130), (300, 200), (20, 20)])
def test_pictures_are_prepared_as_transformers_does(size: tuple[int, int]) -> None:
    smooth = torch.nn.functional.interpolate(photographs(1, 5, 7), size, mode="bilinear")[0]
    picture = (smooth * 255).round() / 255
    processor = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112)
    image = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    wanted = processor(images=[np.ascontiguousarray(image)], return_tensors="pt")
    pixels, grid = patches(resized(picture[None], 56 * 56, 112 * 112))
    assert [grid] == wanted["image_grid_thw"].tolist()
    assert pixels.shape == wanted["pixel_values"].shape
    assert float((pixels - wanted["pixel_values"]).abs().max()) < 2.5 / 255 / 0.26  # PIL rounds twice


def test_sizes_are_those_of_smart_resize() -> None:
    """qwen-vl-utils: multiples of 28 within limits; HPSv3 sets both limits to 256 * 28 * 28."""
    assert fitting_size(512, 512, 200704, 200704) == (448, 448)
    assert fitting_size(1024, 512, 200704, 200704) == (616, 308)
    assert fitting_size(100, 150, 200704, 200704) == (392, 560)
    assert fitting_size(512, 512, 3136, 12845056) == (504, 504)
    with pytest.raises(ParetuneError, match="too long and narrow"):
        fitting_size(10, 2001, 3136, 12845056)


# ---------------------------------------------------------------- VQAScore


def test_vqascore_is_the_chance_of_yes(qwen: str) -> None:
    """t2v_metrics/models/vqascore_models/qwen2vl_model.py: the softmax of the first answered token."""
    reward = load_reward("vqascore", model=qwen, dtype="float32", device="cpu")
    pictures = photographs(2, 56, 84)
    scores = score_samples(reward, pictures, PROMPTS)
    network = Qwen2_5_VLForConditionalGeneration.from_pretrained(qwen).eval()
    tokenizer = AutoTokenizer.from_pretrained(qwen)
    pixels, grid = patches(resized(pictures[:1], LEAST_PIXELS, MOST_PIXELS))
    assert grid == [1, 4, 6]
    text = CHAT.format(seen=PICTURE * 6, text='Does this image show "a dog"?')
    asked = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    seen = (asked["input_ids"] == network.config.image_token_id).int()
    with torch.no_grad():
        out = network(
            **{k: asked[k] for k in ("input_ids", "attention_mask")}, mm_token_type_ids=seen,
            pixel_values=pixels, image_grid_thw=torch.tensor([grid]),
        )  # fmt: skip
    wanted = out.logits[0, -1].softmax(-1)[tokenizer.convert_tokens_to_ids("Yes")]
    assert float(scores[0]) == pytest.approx(float(wanted), rel=1e-4)
    assert scores[0] != scores[1]
    assert not applies_to(reward, Prompt("a <|image_pad|>"))
    with pytest.raises(ParetuneError, match=r"the question needs \{\}"):
        load_reward("vqascore", model=qwen, question="Is it good?")


def test_another_architecture_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParetuneError, match="is a clip; this reward asks a qwen2_vl or qwen2_5_vl"):
        load_reward("vqascore", model=make_clip(tmp_path))


# ---------------------------------------------------------------- UnifiedReward


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("Final Score: 4", 0.8), ("It is good.\nFinal Score:3.5\n", 0.7), ("Final Score: 4.25/5", 0.85),
        ("Final Score: 5", 1.0), ("Final Score: 0.5", 0.0), ("Score: 4", 0.0), ("", 0.0),
        ("Final Score: 2 .. Final Score: 5", 0.4),
    ],
)  # fmt: skip
def test_a_written_score_is_read_as_flow_grpo_does(answer: str, score: float) -> None:
    assert written_score(answer) == pytest.approx(score)


def test_unified_reward_asks_flow_grpos_question(qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shared_qwen(qwen, "float32", "cpu")
    monkeypatch.setattr(unified_reward, "SIDE", 56)
    reward = load_reward("unified_reward", model=qwen, dtype="float32", device="cpu", tokens=3)
    assert score_samples(reward, photographs(1), PROMPTS[:1]).tolist() == [0.0]  # random words hold no score
    asked: list[Any] = []
    monkeypatch.setattr(model, "answer", lambda *told: asked.append(told) or "Final Score: 3")
    assert reward.score(photographs(1), [Prompt("a {dog}")]).tolist() == pytest.approx([0.6])
    picture, question, tokens = asked[0]
    assert picture.shape == (3, 56, 56)
    assert tokens == 3
    assert question.startswith("<image>\nYou are given a text caption and a generated image")
    assert question.endswith(
        "assign a score from 1 to 5 after 'Final Score:'.\nYour task is provided as follows:\n"
        "Text Caption: [a {dog}]"
    )


def test_an_answer_is_the_likeliest_tokens(qwen: str) -> None:
    model, picture = shared_qwen(qwen, "float32", "cpu"), photographs(1, 56, 56)[0]
    first = model.tokenizer.convert_ids_to_tokens(int(model.chances(picture, "a dog").argmax()))
    assert model.answer(picture, "a dog", 1) == ("" if first.startswith("<") else first)


# ---------------------------------------------------------------- HPSv3


@pytest.fixture(scope="module")
def hps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Qwen2VLModel, dict[str, torch.Tensor]]:
    """A base, and weights under the names that transformers 4.45 gave them."""
    base, folder = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("hpsv3")
    config = make_qwen2_base(base, WORDS)
    config.text_config.vocab_size += 1  # <|Reward|>
    torch.manual_seed(3)
    network = Qwen2VLModel(config).eval()
    head = {}
    for place, (i, o) in {"0": (16, 1024), "3": (1024, 16), "5": (16, 2)}.items():
        head[f"rm_head.{place}.weight"], head[f"rm_head.{place}.bias"] = torch.randn(o, i) / 4, torch.randn(o)
    old = {n.replace("language_model.", "model."): v.clone() for n, v in network.state_dict().items()}
    old["lm_head.weight"] = old["model.embed_tokens.weight"].clone()
    save_file(old | head, folder / "HPSv3.safetensors")
    return base, folder, network, head


def test_hpsv3_is_the_mean_at_the_reward_token(
    hps: tuple[Path, Path, Qwen2VLModel, dict[str, torch.Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """hpsv3/model/qwen2vl_trainer.py: rm_head at <|Reward|>, its first of two outputs; plain positions."""
    base, folder, network, head = hps
    monkeypatch.setattr(hpsv3, "PIXELS", 56 * 84)
    reward = load_reward("hpsv3", model=str(folder), base=str(base), dtype="float32", device="cpu")
    pictures = photographs(2, 56, 84)
    scores = score_samples(reward, pictures, PROMPTS)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|Reward|>"]})
    text = CHAT.format(seen=PICTURE * 6, text=TEMPLATE.format(text_prompt="a dog"))
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    pixels, grid = patches(resized(pictures[:1], 56 * 84, 56 * 84))
    with torch.no_grad():
        states = network(
            input_ids=ids, position_ids=torch.arange(ids.shape[1]).expand(3, 1, -1), pixel_values=pixels,
            image_grid_thw=torch.tensor([grid]),
        ).last_hidden_state  # fmt: skip
    x = states[0, ids[0].tolist().index(tokenizer.convert_tokens_to_ids("<|Reward|>"))]
    for place in ("0", "3", "5"):
        x = x.relu() if place != "0" else x
        x = x @ head[f"rm_head.{place}.weight"].T + head[f"rm_head.{place}.bias"]
    assert float(scores[0]) == pytest.approx(float(x[0]), rel=1e-4)
    assert scores[0] != scores[1]


def test_hpsv3s_prompt_is_the_published() -> None:
    assert TEMPLATE.startswith("\nYou are tasked with evaluating a generated image based on Visual Quality")
    assert TEMPLATE.endswith(
        "Textual prompt - {text_prompt}\n\n\n\n"
        "Please provide the overall ratings of this image: <|Reward|>\n\nEND\n"
    )
    digest = hashlib.sha256(TEMPLATE.encode()).hexdigest()  # of the two parts in hpsv3 1.0.0, joined
    assert digest.startswith("f6ee57479d4e9eee")


def test_hpsv3_names_what_does_not_fit(hps: Any, tmp_path: Path) -> None:
    base = hps[0]
    with pytest.raises(ParetuneError, match=r"has no HPSv3\.safetensors"):
        HPSv3(str(tmp_path), str(base))
    words = {"model.embed_tokens.weight": torch.zeros(3, 16)}
    save_file(words, tmp_path / "HPSv3.safetensors")
    with pytest.raises(ParetuneError, match="knows fewer tokens than its tokenizer"):
        HPSv3(str(tmp_path), str(base))
    save_file({"model.embed_tokens.weight": torch.zeros(999, 16)}, tmp_path / "HPSv3.safetensors")
    with pytest.raises(ParetuneError, match="is incomplete: its files lack"):
        HPSv3(str(tmp_path), str(base))
    with pytest.raises(ParetuneError, match=r"holds the token <\|Reward\|>"):
        HPSv3.check([Prompt("a <|Reward|>")])
