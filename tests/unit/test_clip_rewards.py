"""The rewards on CLIPs: published formulas on tiny random models, and what they share."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from paretune.rewards import load_reward, score_samples
from paretune.rewards.hub import normalised
from paretune.rewards.photo.aesthetic import Aesthetic
from paretune.rewards.photo.clip import Clip, padded, shared_clip, squared
from paretune.rewards.photo.hpsv2 import HPSv2
from paretune.rewards.photo.memo import Memo, digest
from paretune.rewards.photo.pickscore import PickScore
from paretune.types import ParetuneError, Prompt
from tests.photo_models import MEAN, STD, make_clip, photographs

PROMPTS = [Prompt("a dog"), Prompt("cats")]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_clip(tmp_path_factory.mktemp("clip"))


def as_open_clip(model: CLIPModel) -> dict[str, torch.Tensor]:
    """A CLIP's weights under open_clip's names, as in its src/open_clip/transformer.py and model.py."""
    own = dict(model.state_dict())
    named = {"logit_scale": own["logit_scale"], "visual.proj": own["visual_projection.weight"].T,
             "text_projection": own["text_projection.weight"].T}  # fmt: skip
    for tower, before in (("vision_model", "visual."), ("text_model", "")):
        for kind in ("weight", "bias"):
            layer, block = f"{tower}.encoder.layers.0", f"{before}transformer.resblocks.0"
            three = [own[f"{layer}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
            named[f"{block}.attn.in_proj_{kind}"] = torch.cat(three)
            named[f"{block}.attn.out_proj.{kind}"] = own[f"{layer}.self_attn.out_proj.{kind}"]
            named[f"{block}.mlp.c_fc.{kind}"] = own[f"{layer}.mlp.fc1.{kind}"]
            named[f"{block}.mlp.c_proj.{kind}"] = own[f"{layer}.mlp.fc2.{kind}"]
            named[f"{block}.ln_1.{kind}"] = own[f"{layer}.layer_norm1.{kind}"]
            named[f"{block}.ln_2.{kind}"] = own[f"{layer}.layer_norm2.{kind}"]
    for kind in ("weight", "bias"):
        named[f"visual.ln_pre.{kind}"] = own[f"vision_model.pre_layrnorm.{kind}"]
        named[f"visual.ln_post.{kind}"] = own[f"vision_model.post_layernorm.{kind}"]
        named[f"ln_final.{kind}"] = own[f"text_model.final_layer_norm.{kind}"]
    named["visual.class_embedding"] = own["vision_model.embeddings.class_embedding"]
    named["visual.positional_embedding"] = own["vision_model.embeddings.position_embedding.weight"]
    named["visual.conv1.weight"] = own["vision_model.embeddings.patch_embedding.weight"]
    named["token_embedding.weight"] = own["text_model.embeddings.token_embedding.weight"]
    named["positional_embedding"] = own["text_model.embeddings.position_embedding.weight"]
    return {f"model.{name}": value.contiguous() for name, value in named.items()}


@pytest.fixture(scope="module")
def hps(clip: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Other weights than the CLIP's, in a file like imscore's."""
    folder = tmp_path_factory.mktemp("hps")
    other = CLIPModel.from_pretrained(make_clip(folder / "own", seed=5))
    save_file(as_open_clip(other), folder / "model.safetensors")
    return str(folder)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LAION's layers for features of 8, as imscore saved them beside a CLIP."""
    torch.manual_seed(3)
    widths = [(8, 1024), (1024, 128), (128, 64), (64, 16), (16, 1)]
    tensors = {"clip.vision_model.encoder.layers.0.layer_norm1.bias": torch.zeros(3)}
    for place, (i, o) in zip((0, 2, 4, 6, 7), widths, strict=True):
        tensors[f"mlp.layers.{place}.weight"] = torch.randn(o, i) / i**0.5
        tensors[f"mlp.layers.{place}.bias"] = torch.randn(o)
    file = tmp_path_factory.mktemp("head") / "model.safetensors"
    save_file(tensors, file)
    return file


# ---------------------------------------------------------------- formulas


def test_hpsv2_is_the_cosine_of_a_clip_in_open_clips_names(clip: str, hps: str) -> None:
    """hpsv2/img_score.py: the diagonal of image_features @ text_features.T, both of length 1."""
    pictures = photographs(2, 32, 32)
    reward = load_reward("hpsv2", model=hps, base=clip, device="cpu")
    network = CLIPModel.from_pretrained(f"{hps}/own").eval()
    tokens = Clip(clip, clip).tokenizer([p.text for p in PROMPTS], padding=True, return_tensors="pt")
    with torch.no_grad():
        out = network(**tokens, pixel_values=normalised(pictures, MEAN, STD))
    wanted = out.logits_per_image.diag() / network.logit_scale.exp()
    assert torch.allclose(score_samples(reward, pictures, PROMPTS), wanted.detach(), atol=1e-6)


def test_hpsv2_sees_a_whole_picture_that_is_not_square(clip: str, hps: str) -> None:
    """ResizeMaxSize of hpsv2/src/open_clip/transform.py: the longer side to the size, black on both sides."""
    shown = padded(torch.ones(1, 3, 20, 40), 32)
    assert shown.shape == (1, 3, 32, 32)
    assert shown[0, 0, :, 0].tolist() == pytest.approx([0.0] * 8 + [1.0] * 16 + [0.0] * 8)
    odd = padded(torch.ones(1, 3, 32, 31), 32)  # the odd pixel is on the right
    assert odd[0, 0, 0].tolist() == [1.0] * 31 + [0.0]
    picture, reward = photographs(1, 32, 64), HPSv2(hps, clip)
    edge = picture.clone()
    edge[..., :8] = 0  # PickScore crops this away
    assert not torch.equal(reward.score(picture, PROMPTS[:1]), reward.score(edge, PROMPTS[:1]))
    other = PickScore(clip, clip)
    assert torch.equal(other.score(picture, PROMPTS[:1]), other.score(edge, PROMPTS[:1]))


def test_clipscore_is_the_papers(clip: str) -> None:
    """Hessel et al. 2021, section 3: 2.5 * max(cos, 0), the prompt after "A photo depicts"."""
    pictures = photographs(2)
    reward = load_reward("clipscore", model=clip, device="cpu")
    own = Clip(clip, clip)
    texts = own.texts([f"A photo depicts {p.text}" for p in PROMPTS])
    cosines = (own.pictures(pictures) * texts).sum(-1)
    assert torch.allclose(score_samples(reward, pictures, PROMPTS), 2.5 * cosines.clamp(min=0))
    assert reward.range == (0.0, 2.5)
    assert float(cosines.min()) < 0  # so that the clamp is seen


def test_aesthetic_is_laions_layers_on_unit_features(clip: str, head: Path) -> None:
    pictures = photographs(2)
    reward = load_reward("aesthetic", head=str(head), clip=clip, device="cpu")
    tensors = load_file(head)
    values = Clip(clip, clip).pictures(pictures)
    for place in (0, 2, 4, 6, 7):  # simple_inference.py: no activation between the layers
        values = values @ tensors[f"mlp.layers.{place}.weight"].T + tensors[f"mlp.layers.{place}.bias"]
    assert torch.allclose(score_samples(reward, pictures, PROMPTS), values[:, 0], atol=1e-5)


# ---------------------------------------------------------------- shared work


def counted(clip: Clip) -> list[int]:
    """How many pictures each forward pass of a CLIP's vision network is shown from now on."""
    passes: list[int] = []
    clip.network.vision_model.register_forward_hook(
        lambda module, given, keywords, out: passes.append(len(out.pooler_output)), with_kwargs=True
    )
    return passes


def test_rewards_on_one_network_run_it_once(clip: str, head: Path) -> None:
    own = shared_clip(clip, clip, "cpu")  # kept: what nobody holds is loaded again
    passes = counted(own)
    rewards = [
        load_reward("pickscore", model=clip, processor=clip, device="cpu"),
        load_reward("clipscore", model=clip, device="cpu"),
        load_reward("aesthetic", head=str(head), clip=clip, device="cpu"),
    ]
    pictures = photographs(4) * 0.5
    for reward in rewards:
        score_samples(reward, pictures, PROMPTS * 2, batch_size=2)
    assert passes == [2, 2]
    score_samples(rewards[0], pictures * 0.5, PROMPTS * 2, batch_size=2)
    assert passes == [2, 2, 2, 2]


def test_other_weights_share_the_prepared_pictures(
    clip: str, hps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    monkeypatch.setattr(
        "paretune.rewards.photo.clip.squared", lambda p, size: made.append(len(p)) or squared(p, size)
    )
    pictures = photographs(2, 32, 32) * 0.25
    scores = [
        PickScore(clip, clip, "cpu").score(pictures, PROMPTS),
        HPSv2(hps, clip, "cpu").score(pictures, PROMPTS),
    ]
    assert made == [2]
    assert not torch.equal(*scores)


def test_a_score_does_not_depend_on_who_asked_first(clip: str) -> None:
    pictures = photographs(3)
    alone = Clip(clip, clip).pictures(pictures)
    shared_clip(clip, clip).pictures(pictures[:1])
    assert torch.equal(shared_clip(clip, clip).pictures(pictures), alone)


def test_what_is_remembered_is_bounded() -> None:
    memo, made = Memo(most=32), []

    def make(value: int) -> torch.Tensor:
        made.append(value)
        return torch.full((4,), float(value))  # 16 bytes

    for value in (1, 2, 1, 3, 1, 2):
        assert memo.get(value, lambda value=value: make(value)).tolist() == [value] * 4
    assert made == [1, 2, 3, 2]  # 2 was the oldest when 3 came
    memo.get("large", lambda: torch.zeros(100))
    assert digest(torch.zeros(2, 3)) != digest(torch.zeros(3, 2))
    assert digest(torch.zeros(2)) == digest(torch.zeros(2))


# ---------------------------------------------------------------- what does not fit


def test_weights_that_do_not_fit_are_named(clip: str, hps: str, tmp_path: Path) -> None:
    with pytest.raises(ParetuneError, match=r"has no model\.safetensors"):
        load_reward("hpsv2", model=str(tmp_path), base=clip)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ParetuneError, match="never from a pickle"):
        load_reward("hpsv2", model=str(tmp_path), base=clip)
    save_file({"model.logit_scale": torch.zeros(())}, tmp_path / "model.safetensors")
    with pytest.raises(ParetuneError, match="is incomplete: its files lack"):
        load_reward("hpsv2", model=str(tmp_path), base=clip)
    with pytest.raises(ParetuneError, match="holds no layers of LAION's predictor"):
        Aesthetic(str(tmp_path), clip)


def test_a_file_that_the_hub_does_not_give_is_one_line(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gated model, a revision that is gone, no network: the library's own first line, and which reward."""

    def gone(model: str, file: str, revision: str) -> str:
        raise OSError(f"{revision} is not a valid git identifier\nfor {model}, {file}")

    monkeypatch.setattr("transformers.utils.hub.cached_file", gone)
    with pytest.raises(ParetuneError) as told:
        load_reward("hpsv2", model="RE-N-Y/hpsv21", base=clip, revision="0" * 40)
    assert "\n" not in str(told.value)
    assert "RE-N-Y/hpsv21: model.safetensors cannot be read: 0000" in str(told.value)
