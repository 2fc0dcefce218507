"""ImageReward and MPS on tiny random models in the names of their published files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel, CLIPModel

from paretune.rewards import load_reward, score_samples
from paretune.rewards.hub import normalised
from paretune.rewards.photo.cross import CrossModel, Looks
from paretune.rewards.photo.imagereward import MEAN, PIXEL_MEAN, PIXEL_STD, STD, ImageReward
from paretune.rewards.photo.mps import MPS, condition_mask
from paretune.types import ParetuneError, Prompt
from tests.photo_models import make_clip, photographs

PROMPTS = [Prompt("a dog"), Prompt("cats")]
VISION = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 32}  # fmt: skip
TEXT: dict[str, Any] = {
    "vocab_size": 12, "hidden_size": 16, "encoder_hidden_size": 24, "intermediate_size": 24,
    "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 40, "bos_token_id": 1,
    "sep_token_id": 2, "eos_token_id": 2,
}  # fmt: skip


# ---------------------------------------------------------------- ImageReward


def blip_names(vision: BlipVisionModel, text: BlipTextModel) -> dict[str, torch.Tensor]:
    """BLIP's weights under the names of its own code: timm's vision transformer and BERT."""
    v, layer = dict(vision.state_dict()), "encoder.layers.0"
    named = {"cls_token": v["embeddings.class_embedding"], "pos_embed": v["embeddings.position_embedding"]}
    for kind in ("weight", "bias"):
        named |= {
            f"patch_embed.proj.{kind}": v[f"embeddings.patch_embedding.{kind}"],
            f"norm.{kind}": v[f"post_layernorm.{kind}"],
            f"blocks.0.norm1.{kind}": v[f"{layer}.layer_norm1.{kind}"],
            f"blocks.0.norm2.{kind}": v[f"{layer}.layer_norm2.{kind}"],
            f"blocks.0.attn.qkv.{kind}": v[f"{layer}.self_attn.qkv.{kind}"],
            f"blocks.0.attn.proj.{kind}": v[f"{layer}.self_attn.projection.{kind}"],
            f"blocks.0.mlp.fc1.{kind}": v[f"{layer}.mlp.fc1.{kind}"],
            f"blocks.0.mlp.fc2.{kind}": v[f"{layer}.mlp.fc2.{kind}"],
        }
    return {f"blip.visual_encoder.{n}": t for n, t in named.items()} | {
        f"blip.text_encoder.{n}": t for n, t in text.state_dict().items()
    }


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BlipVisionModel, BlipTextModel]:
    folder = tmp_path_factory.mktemp("imagereward")
    torch.manual_seed(0)
    vision = BlipVisionModel(BlipVisionConfig(**VISION, layer_norm_eps=1e-6)).eval()
    text = BlipTextModel(BlipTextConfig(**TEXT, is_decoder=True), add_pooling_layer=False).eval()
    tensors = blip_names(vision, text)
    tensors["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    tensors["blip.vision_proj.weight"] = torch.zeros(2, 24)  # of BLIP's training, not read
    for place, (i, o) in zip((0, 2, 4, 6, 7), [(16, 1024), (1024, 128), (128, 64), (64, 16), (16, 1)],
                             strict=True):  # fmt: skip
        tensors[f"mlp.layers.{place}.weight"] = torch.randn(o, i) / i**0.5
        tensors[f"mlp.layers.{place}.bias"] = torch.randn(o)
    save_file({n: t.clone() for n, t in tensors.items()}, folder / "model.safetensors")
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "a", "dog", "cats", "on", "mat", "##s"]
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return folder, vision, text


def test_imagereward_is_the_standardised_first_token(blip: Any) -> None:
    """ImageReward/ImageReward.py: (mlp(last_hidden_state[:, 0]) - mean) / std, 35 tokens with padding."""
    folder, vision, text = blip
    reward = load_reward(
        "imagereward", model=str(folder), tokenizer=str(folder), device="cpu", vision=VISION, text=TEXT
    )
    pictures = photographs(2, 32, 32)
    ids = torch.tensor([[1, 5, 6, 2] + [0] * 31, [1, 7, 2] + [0] * 32])  # [CLS] a dog [SEP]
    with torch.no_grad():
        seen = vision(normalised(pictures, PIXEL_MEAN, PIXEL_STD)).last_hidden_state
        values = text(
            input_ids=ids, attention_mask=(ids > 0).long(), encoder_hidden_states=seen
        ).last_hidden_state[:, 0]
    tensors = load_file(folder / "model.safetensors")
    for place in (0, 2, 4, 6, 7):
        values = values @ tensors[f"mlp.layers.{place}.weight"].T + tensors[f"mlp.layers.{place}.bias"]
    wanted = (values[:, 0] - 0.16717362830052426) / 1.0333394966054072
    assert torch.allclose(score_samples(reward, pictures, PROMPTS), wanted, atol=1e-4)
    assert (MEAN, STD) == (0.16717362830052426, 1.0333394966054072)


def test_imagereward_names_what_a_file_lacks(blip: Any, tmp_path: Path) -> None:
    folder, *_ = blip
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("blip.visual_encoder.blocks.0.attn.qkv.bias")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ParetuneError, match=r"vision\.encoder\.layers\.0\.self_attn\.qkv\.bias"):
        ImageReward(str(tmp_path), str(folder), vision=VISION, text=TEXT)


# ---------------------------------------------------------------- MPS


def test_tokens_count_that_are_like_the_condition() -> None:
    """Kwai-Kolors/MPS: the greatest likeness to a token of the condition, over .01 of the greatest of all."""
    named = torch.tensor([[[1.0, 0], [0, 2]]])
    words = torch.tensor([[[4.0, 0], [0.03, -1], [0.05, -1], [-1, -1], [0, 1]]])  # 4, .03, .05, -1, 2
    assert condition_mask(words, named).tolist() == [[0, -torch.inf, 0, -torch.inf, 0]]


def test_cross_attention_is_softmax_of_scaled_products() -> None:
    torch.manual_seed(0)
    looks = Looks(8, heads=2, head=4, wide=16)
    x, tokens = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    mask = torch.zeros(1, 3, 5)
    mask[..., 3:] = -torch.inf
    normed = functional.layer_norm(x, (8,))
    key, value = looks.to_kv(tokens).chunk(2, -1)
    query = looks.to_q(normed).view(1, 3, 2, 4).transpose(1, 2)
    seen = functional.scaled_dot_product_attention(
        query, key[:, None].expand(1, 2, 5, 4), value[:, None].expand(1, 2, 5, 4), attn_mask=mask[:, None]
    )
    wanted = looks.to_out(seen.transpose(1, 2).reshape(1, 3, 8)) + looks.ff(normed)
    assert torch.allclose(looks(x, tokens, mask), wanted, atol=1e-6)
    changed = tokens.clone()
    changed[:, 3:] += 1  # what the mask hides
    assert torch.equal(looks(x, changed, mask), looks(x, tokens, mask))


def test_mps_on_a_tiny_model(tmp_path: Path) -> None:
    base = make_clip(tmp_path / "base")
    torch.manual_seed(4)
    cross = CrossModel(8, layers=2, heads=2, head=4)
    own = CLIPModel.from_pretrained(make_clip(tmp_path / "own", seed=9))
    tensors = {f"mps.model.{n}": t for n, t in own.state_dict().items()}
    tensors |= {f"mps.cross_model.{n}": t for n, t in cross.state_dict().items()}
    assert "mps.cross_model.layers.0.1.fn.fused_attn_ff_proj.weight" in tensors  # as published
    save_file({n: t.clone() for n, t in tensors.items()}, tmp_path / "model.safetensors")
    options = {"base": base, "condition": "light, dog", "layers": 2, "heads": 2, "head": 4, "device": "cpu"}
    reward = load_reward("mps", model=str(tmp_path), **options)
    pictures = photographs(2)
    scores = score_samples(reward, pictures, PROMPTS)
    assert scores.abs().max() <= own.logit_scale.detach().exp() + 1e-4
    assert scores[0] != scores[1]
    alone = score_samples(reward, pictures[1:], PROMPTS[1:])
    assert torch.allclose(alone, scores[1:], atol=1e-5)
    other = MPS(str(tmp_path), **(options | {"condition": "zzz qqq"}))
    assert not torch.allclose(other.score(pictures, PROMPTS), scores)
    assert reward.range == (-float("inf"), float("inf"))
