"""VideoAlign: literal rules of its frames and its prompt, and the real code on a tiny random Qwen2-VL."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from paretune.recipes import parse_config
from paretune.rewards.base import RewardError, load_reward, reward_of, score_samples
from paretune.rewards.clips import videoalign
from paretune.rewards.clips.frames import LEAST_PIXELS, frame_numbers
from paretune.rewards.clips.videoalign import TEMPLATE, VideoAlign, new_name
from paretune.rewards.heads import HeadReward
from paretune.rewards.qwen_vision import CHAT, MEAN, STD, fitting_size, patches, resized
from paretune.types import ParetuneError, Prompt, Reward
from tests.clip_models import make_qwen_base, make_video_reward

PROMPTS = [Prompt("a dog runs"), Prompt("a dog")]


def clips(count: int = 2, frames: int = 9) -> torch.Tensor:
    return torch.rand(count, frames, 3, 40, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base, folder = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("reward")
    make_qwen_base(base)
    make_video_reward(base, folder)
    return base, folder


def reward(model: tuple[Path, Path], head: str = "VQ", **options: object) -> Reward:
    base, folder = model
    return load_reward("videoalign", head=head, model=str(folder), base=str(base), dtype="float32", **options)


@pytest.mark.parametrize(
    ("total", "rate", "expected"),
    [
        (53, 24.0, [0, 17, 35, 52]),  # HunyuanVideo: 4.4 frames, rounded to 4
        (33, 16.0, [0, 11, 21, 32]),  # Wan: 4.1 frames
        (129, 24.0, [0, 14, 28, 43, 57, 71, 85, 100, 114, 128]),  # 10.75 frames, rounded to 10
        (2, 24.0, [0, 1]),
        (3, 24.0, [0, 2]),  # no more than there are, an even number
    ],
)
def test_frames_are_those_of_smart_nframes(total: int, rate: float, expected: list[int]) -> None:
    """vision_process.py: total / rate * fps, at least 4, an even number, then linspace(0, total - 1)."""
    assert frame_numbers(total, rate, 2.0) == expected


def test_frame_sizes_are_those_of_smart_resize() -> None:
    """vision_process.py, with the published max_frame_pixels of 200704 and min_pixels of 128 * 28 * 28."""
    assert fitting_size(480, 480, LEAST_PIXELS, 200704) == (448, 448)
    assert fitting_size(480, 832, LEAST_PIXELS, 200704) == (336, 588)
    assert fitting_size(240, 416, LEAST_PIXELS, 200704) == (252, 420)  # 240 / 28 is rounded to 9
    assert fitting_size(100, 100, LEAST_PIXELS, 200704) == (336, 336)  # too small: enlarged
    with pytest.raises(ParetuneError, match="too long and narrow"):
        fitting_size(10, 3000, LEAST_PIXELS, 200704)


def test_patches_are_those_of_transformers() -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    picture = (torch.rand(3, 56, 84) * 255).round()
    ours, grid = patches(picture[None])
    theirs = Qwen2VLImageProcessorPil(image_mean=list(MEAN), image_std=list(STD), do_resize=False)(
        images=[picture.byte().permute(1, 2, 0).numpy()], return_tensors="pt"
    )
    assert theirs["image_grid_thw"].tolist() == [grid] == [[1, 4, 6]]
    torch.testing.assert_close(ours, theirs["pixel_values"], atol=1e-5, rtol=0)


def test_frames_are_whole_numbers_at_their_size() -> None:
    pixels = resized(clips(1)[0], LEAST_PIXELS, 200704)
    assert pixels.shape == (9, 3, 252, 420)  # enlarged to 128 * 28 * 28 pixels at least
    assert torch.equal(pixels, pixels.round())


def test_the_prompt_is_the_published_text() -> None:
    """DETAILED_PROMPT_WITH_SPECIAL_TOKEN of VideoAlign's prompt_template.py, commit 219ab9d."""
    digest = hashlib.sha256(TEMPLATE.encode()).hexdigest()
    assert digest == "fdb6309bac618dd0c8b1b589d3a0970a974f7856eecbb355a190b2dce54af700"


def test_old_names_become_todays() -> None:
    assert new_name("base_model.model.visual.merger.mlp.0.weight") == "visual.merger.mlp.0.weight"
    layer = "layers.3.self_attn.q_proj.lora_A.default.weight"
    assert new_name(f"base_model.model.model.{layer}") == f"language_model.{layer}"
    assert new_name("base_model.model.model.norm.weight") == "language_model.norm.weight"
    assert new_name("base_model.model.rm_head.weight") == "rm_head.weight"


def test_heads_are_read_at_their_tokens_with_adapters_and_plain_positions(model: tuple[Path, Path]) -> None:
    """The same by hand: adapters folded, hidden states of transformers' Qwen2-VL at the special tokens."""
    from transformers import AutoTokenizer, Qwen2VLConfig, Qwen2VLModel

    base, folder = model
    old = make_video_reward(base, folder)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": list(videoalign.TOKENS)})
    config = Qwen2VLConfig.from_pretrained(base)
    config.text_config.vocab_size = len(tokenizer)
    state = {}
    for name, value in old.items():
        module = name.split(".base_layer")[0]
        if name.endswith(".base_layer.weight"):
            up, down = old[f"{module}.lora_B.default.weight"], old[f"{module}.lora_A.default.weight"]
            state[f"{new_name(module)}.weight"] = value + 2.0 * up @ down  # alpha 4 over rank 2
        elif "lora_" not in name and "_head" not in name:
            state[new_name(name).replace(".base_layer", "")] = value
    network = Qwen2VLModel(config).eval()
    network.load_state_dict(state)

    clip = clips(1)
    pixels, grid = patches(resized(clip[0][frame_numbers(9, 24.0, 2.0)], LEAST_PIXELS, 200704))
    text = CHAT.format(
        seen=videoalign.CLIP_TOKEN * (grid[0] * grid[1] * grid[2] // 4),
        text=TEMPLATE.format(text_prompt="a dog runs"),
    )
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        states = network(
            input_ids=ids, pixel_values_videos=pixels, video_grid_thw=torch.tensor([grid]),
            position_ids=torch.arange(ids.shape[1]).expand(3, 1, -1),
        ).last_hidden_state[0]  # fmt: skip
    places = [int((ids[0] == tokenizer.convert_tokens_to_ids(t)).nonzero()) for t in videoalign.TOKENS]
    expected = states[places] @ old["base_model.model.rm_head.weight"][0]

    for i, head in enumerate(("VQ", "MQ", "TA")):
        raw = reward(model, head, normalise=False).score(clip, PROMPTS[:1])
        assert raw.item() == pytest.approx(float(expected[i]), abs=1e-4)
        told = reward(model, head).score(clip, PROMPTS[:1])
        mean, std = {"VQ": (3.6757, 2.2476), "MQ": (1.1646, 1.3811), "TA": (2.8105, 2.5121)}[head]
        assert told.item() == pytest.approx((raw.item() - mean) / std, abs=1e-5)


def test_three_rewards_score_a_clip_once(model: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    own = VideoAlign._one

    def counted(self: VideoAlign, clip: torch.Tensor, prompt: str) -> torch.Tensor:
        seen.append(prompt)
        return own(self, clip, prompt)

    monkeypatch.setattr(VideoAlign, "_one", counted)
    rewards = {head: reward(model, head, rate=8.0) for head in ("VQ", "MQ", "TA", "overall")}
    scores = {head: own.score(clips(), PROMPTS) for head, own in rewards.items()}
    assert seen == ["a dog runs", "a dog"]
    total = scores["VQ"] + scores["MQ"] + scores["TA"]
    torch.testing.assert_close(scores["overall"], total)
    reward(model, "TA", rate=8.0).score(clips().flip(0), PROMPTS)  # other pairs of clip and prompt
    assert len(seen) == 4


def test_a_checkpoint_with_a_column_for_each_head(model: tuple[Path, Path], tmp_path: Path) -> None:
    """train.sh's output_dim 3: head h is column h at its own token."""
    make_video_reward(model[0], tmp_path, outputs=3)
    scores = [reward((model[0], tmp_path), head).score(clips(1), PROMPTS[:1]) for head in videoalign.HEADS]
    assert len({round(float(score), 4) for score in scores}) == 3


def test_the_recipe_names_the_head_as_of_any_reward(model: tuple[Path, Path]) -> None:
    base, folder = model
    options = {"model": str(folder), "base": str(base), "dtype": "float32"}

    def named(head: str | None) -> Reward:
        section = {"reward": "videoalign", "prompts": "p.txt", "eval_prompts": "p.txt", "head": head}
        config = parse_config({"rewards": {"mine": {**section, "options": options}}}, "x")
        return reward_of(config.rewards["mine"], "mine")

    quality = named("VQ")
    assert isinstance(quality, HeadReward)
    assert quality.name == "mine"
    told = quality.score(clips(1), PROMPTS[:1])
    assert torch.equal(told, reward(model, "VQ").score(clips(1), PROMPTS[:1]))
    usual, overall = (named(head).score(clips(1), PROMPTS[:1]) for head in (None, "overall"))
    assert torch.equal(usual, overall)
    assert not torch.equal(usual, told)
    with pytest.raises(ParetuneError, match="no head 'quality'; its heads: VQ, MQ, TA, overall"):
        named("quality")


def test_bad_input_is_one_line(model: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ParetuneError, match="no head 'quality'; its heads: VQ, MQ, TA, overall"):
        load_reward("videoalign", head="quality")
    with pytest.raises(RewardError, match="videoalign scores clips"):
        score_samples(reward(model), torch.rand(1, 3, 40, 64), PROMPTS[:1])
    with pytest.raises(ParetuneError, match=r"holds the token <\|TA_reward\|>"):
        VideoAlign.check([Prompt("a <|TA_reward|> dog")])
    make_video_reward(model[0], tmp_path)
    file = tmp_path / "model_config.json"
    settings = json.loads(file.read_text())
    settings["data_config"]["prompt_template_type"] = "simple"
    file.write_text(json.dumps(settings))
    with pytest.raises(ParetuneError, match="asks for another prompt"):
        reward((model[0], tmp_path))
    file.unlink()
    with pytest.raises(ParetuneError, match="no configuration of a VideoReward checkpoint"):
        reward((model[0], tmp_path))


def test_the_published_checkpoint_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path))
    with pytest.raises(ParetuneError, match=r"`paretune fetch videoalign` downloads KlingTeam/VideoReward"):
        load_reward("videoalign")
