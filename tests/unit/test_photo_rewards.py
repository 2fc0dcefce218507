"""The rewards for photographs: literal rules, and the real code on tiny random models in folders."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import (
    CLIPModel,
    CLIPTokenizer,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    SwinConfig,
)

from paretune.rewards import RewardError, load_reward, score_samples
from paretune.rewards.base import applies_to
from paretune.rewards.hub import normalised
from paretune.rewards.photo.clip import Clip, squared
from paretune.rewards.photo.geneval import (
    ColorNamer,
    GenEvalPhoto,
    detector_size,
    instances,
    mask_box,
    masked_crop,
)
from paretune.rewards.photo.geneval_rules import COLORS, Found, class_name, kept, photo_score, relations
from paretune.rewards.photo.pickscore import PickScore
from paretune.samples.files import save_sample
from paretune.types import ParetuneError, Prompt
from tests.photo_models import MEAN, STD, make_clip, photographs

LABELS = ("diningtable", "dog", "mouse")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random CLIP of 32 pixels, with a tokenizer of single letters."""
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Mask2Former of three classes, five queries and 64 pixels."""
    folder = tmp_path_factory.mktemp("detector")
    backbone = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, num_queries=5,
        encoder_feedforward_dim=8, dim_feedforward=8, encoder_layers=1, decoder_layers=2,
        num_attention_heads=2, id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)},
    )  # fmt: skip
    torch.manual_seed(2)
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    settings = {"size": {"height": 64, "width": 64}, "image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return str(folder)


# ---------------------------------------------------------------- PickScore


def test_pickscore_is_the_clips_logit_over_26(clip: str) -> None:
    texts, pictures = ["a dog", "cats and mice on a mat forever"], photographs(2, 32, 32)
    reward = load_reward("pickscore", model=clip, processor=clip, device="cpu")
    assert isinstance(reward, PickScore)
    scores = score_samples(reward, pictures, [Prompt(text) for text in texts])
    tokens = CLIPTokenizer.from_pretrained(clip)(
        texts, padding=True, truncation=True, max_length=12, return_tensors="pt"
    )
    with torch.no_grad():
        logits = CLIPModel.from_pretrained(clip).eval()(
            **tokens, pixel_values=normalised(pictures, MEAN, STD)
        ).logits_per_image
    assert torch.allclose(scores, logits.diag() / 26, atol=1e-5)
    assert scores[0] != scores[1]


def test_pickscore_bears_any_size_and_repeats(clip: str) -> None:
    reward, prompts = PickScore(clip, clip), [Prompt("a dog")] * 3
    first = reward.score(photographs(3), prompts)
    assert first.shape == (3,)
    assert first.dtype == torch.float32
    assert torch.equal(first, reward.score(photographs(3), prompts))
    assert float(first.abs().max()) <= math.exp(2.6592) / 26 + 1e-6


def test_pictures_are_resized_and_cropped_as_clip_does() -> None:
    ramp = torch.linspace(0, 1, 80).expand(1, 3, 40, 80)
    small = squared(ramp, 20)
    assert small.shape == (1, 3, 20, 20)
    # the middle half of the ramp, half as fine
    assert torch.allclose(small[0, 0, 5], ramp[0, 0, 0].view(40, 2).mean(1)[10:30], atol=1e-3)
    assert squared(torch.ones(1, 3, 2, 5000), 224).shape == (1, 3, 224, 224)
    assert torch.equal(squared(photographs(1, 32, 32), 32), photographs(1, 32, 32))
    pixel = normalised(torch.tensor(MEAN).view(1, 3, 1, 1) + 0.1, MEAN, [0.1, 0.2, 0.5])
    assert pixel.flatten().tolist() == pytest.approx([1.0, 0.5, 0.2])


# ---------------------------------------------------------------- text


def test_scene_ocr_reads_a_picture() -> None:
    pytest.importorskip("rapidocr_onnxruntime")
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("RGB", (160, 96), "white")
    ImageDraw.Draw(page).text((20, 30), "PARIS", fill="black", font=ImageFont.load_default(32))
    picture = torch.tensor(list(page.tobytes())).view(96, 160, 3).permute(2, 0, 1).float() / 255
    shown = torch.stack([picture, torch.ones_like(picture)])
    reward = load_reward("ocr")
    prompts = [Prompt('a sign that says "Paris"')] * 2
    assert score_samples(reward, shown, prompts).tolist() == [1.0, 0.0]
    with pytest.raises(RewardError, match="MissingTextError: ocr needs the wanted text"):
        score_samples(reward, shown[:1], [Prompt("a red dog")])


# ---------------------------------------------------------------- GenEval


def box(name: str, x: float, y: float, color: str | None = None, side: float = 20) -> Found:
    half = side / 2
    return Found(name, 0.9, (x - half, y - half, x + half, y + half), color)


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (0, 50, {"left of"}), (100, 50, {"right of"}), (50, 0, {"above"}), (50, 100, {"below"}),
        (0, 0, {"left of", "above"}),
        # a tenth of 20 + 20 pixels does not count, and what is left must be half of the offset
        (46, 50, set()), (43, 50, set()), (41, 50, {"left of"}), (50, 50, set()),
        (0, 30, {"left of"}),
    ],
)  # fmt: skip
def test_positions_by_centres_with_the_overlap_rule(x: float, y: float, told: set[str]) -> None:
    assert relations(box("dog", x, y), box("cat", 50, 50)) == told


DOG_LEFT = {"include": [{"class": "cat", "count": 1},
                        {"class": "dog", "count": 1, "position": ["left of", 0]}]}  # fmt: skip
RED_DOG = {"include": [{"class": "dog", "count": 1, "color": "red"}]}
THREE = {"tag": "counting", "include": [{"class": "dog", "count": 3}],
         "exclude": [{"class": "dog", "count": 4}]}  # fmt: skip
NO_CAT = {"include": [{"class": "dog", "count": 1}], "exclude": [{"class": "cat", "count": 1}]}
CAT, DOG, FAR = box("cat", 50, 50), box("dog", 10, 50), box("dog", 90, 50)


@pytest.mark.parametrize(
    ("record", "found", "partial", "strict"),
    [
        (DOG_LEFT, [CAT, DOG], 1, 1),
        (DOG_LEFT, [CAT, FAR], 2 / 3, 0),
        (DOG_LEFT, [DOG], 1 / 3, 0),  # the dog is counted, the cat and the position are not
        (DOG_LEFT, [CAT], 1 / 3, 0),
        (DOG_LEFT, [CAT, DOG, box("person", 0, 0)], 1, 1),
        (DOG_LEFT, [CAT, DOG, FAR], 1 / 3, 1),  # GenEval looks at the surest dog
        (RED_DOG, [box("dog", 0, 0, "red")], 1, 1),
        (RED_DOG, [box("dog", 0, 0, "blue")], 1 / 2, 0),
        (RED_DOG, [], 0, 0),
        (THREE, [DOG] * 3, 1, 1),
        (THREE, [DOG] * 2, 2 / 3, 0),
        (THREE, [DOG] * 4, 2 / 3, 0),
        (THREE, [DOG] * 9, 0, 0),
        (NO_CAT, [DOG, CAT], 1 / 2, 0),
    ],
)
def test_score_of_a_record(record: dict, found: list[Found], partial: float, strict: float) -> None:
    assert photo_score(record, found) == pytest.approx(partial)
    assert photo_score(record, found, strict=True) == strict


def test_instances_from_logits() -> None:
    masks = torch.full((3, 4, 4), -20.0)
    masks[0, :, :2] = masks[1, 1:3, 1:3] = 20.0  # the third mask is empty
    classes = torch.tensor([[0.0, 4, 0], [3, 0, 0], [9, 0, 0]])
    found = instances(classes, masks, ("cat", "dog"), (4, 4), 0.3)
    assert [(o.name, o.box) for o in found] == [("dog", (0, 0, 2, 4)), ("cat", (1, 1, 3, 3))]
    assert found[0].score == pytest.approx(math.exp(4) / (math.exp(4) + 2))
    assert instances(classes, masks, ("cat", "dog"), (4, 4), 0.95)[0].name == "dog"
    assert instances(classes, masks, ("cat", "dog"), (4, 4), 0.99) == []
    many = instances(torch.tensor([[5.0, 0]]).repeat(30, 1), masks[:1].repeat(30, 1, 1), ("cat",), (4, 4), 0)
    assert len(many) == 30
    assert len(kept(many, 0)) == 16


def test_masked_crop_is_grey_outside_of_the_mask() -> None:
    mask = torch.zeros(5, 6, dtype=torch.bool)
    mask[1, 2] = mask[2, 3] = True
    assert mask_box(mask) == (2, 1, 4, 3)
    crop = masked_crop(torch.zeros(3, 5, 6), Found("dog", 1, mask_box(mask), mask=mask))
    assert crop.shape == (3, 2, 2)
    assert crop[0].flatten().tolist() == pytest.approx([0, 0.6, 0.6, 0])


def test_names_and_sizes() -> None:
    assert [class_name(n) for n in LABELS] == ["dining table", "dog", "computer mouse"]
    long = {"size": {"shortest_edge": 800, "longest_edge": 1333}, "size_divisor": 32}
    assert detector_size(512, 512, long) == (800, 800)
    assert detector_size(512, 1024, long) == (672, 1344)
    assert detector_size(512, 100, {"size": {"height": 384, "width": 384}}) == (384, 384)


def test_geneval_photo_on_tiny_models(clip: str, detector: str) -> None:
    records = [
        {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}]},
        {"tag": "counting", "include": [{"class": "computer mouse", "count": 2}]},
        {"tag": "two_object", "include": [{"class": n, "count": 1} for n in ("dog", "dining table")]},
    ]
    prompts = [Prompt("a photo", record) for record in records]
    options = {"threshold": 0.05, "counting_threshold": 1.0}
    reward = load_reward("geneval", detector=detector, clip=clip, **options)
    assert isinstance(reward, GenEvalPhoto)
    found = reward.find(photographs(3), prompts)
    assert found[0]
    assert found[2]
    assert found[1] == []  # nobody is as sure as that
    for item in found[0] + found[2]:
        left, top, right, bottom = item.box
        assert 0 <= left < right <= 52
        assert 0 <= top < bottom <= 40
        assert 0.05 < item.score < 1
    assert all((o.color is not None) == (o.name == "dog") for o in found[0])
    assert {o.name for o in found[0]} <= {"dog", "computer mouse", "dining table"}
    scores = score_samples(reward, photographs(3), prompts)
    assert scores.tolist() == [photo_score(r, f) for r, f in zip(records, found, strict=True)]
    assert torch.equal(scores, score_samples(reward, photographs(3), prompts))


def test_colors_are_those_of_the_nearest_text(clip: str) -> None:
    model = Clip(clip, clip)
    namer, picture = ColorNamer(model), photographs(1)[0]
    item = Found("dog", 1, (3, 4, 30, 20))
    texts = [
        [f"a photo of a {c} dog", f"a photo of a {c}-colored dog", f"a photo of a {c} object"] for c in COLORS
    ]
    means = torch.stack([model.texts(three).mean(0) for three in texts])
    crop = model.pictures(picture[None, :, 4:20, 3:30])
    best = torch.nn.functional.cosine_similarity(crop, means).argmax()
    assert namer.color(picture, item) == COLORS[best]
    colored = namer.colored(picture, [item, replace(item, name="cat")], RED_DOG["include"])
    assert [o.color for o in colored] == [COLORS[best], None]


def test_geneval_photo_names_what_it_lacks(clip: str, detector: str) -> None:
    reward = GenEvalPhoto(detector, clip, strict=True)
    for prompt, told in (
        (Prompt("a dog"), "a GenEval record with 'include'"),
        (Prompt("a", {"include": [{"class": "unicorn", "count": 1}]}), "knows no 'unicorn'"),
        (Prompt("a", {"include": [{"class": "dog", "count": 1, "color": "mauve"}]}), "knows no 'mauve'"),
    ):
        with pytest.raises(ParetuneError, match=told):
            reward.score(photographs(1), [prompt])


def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParetuneError, match="there is no folder") as caught:
        load_reward("pickscore", model=str(tmp_path / "none"), processor=str(tmp_path / "none"))
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- likeness


def test_likeness_is_the_cosine_with_the_input_picture(clip: str, tmp_path: Path) -> None:
    pictures = (photographs(2) * 255).round() / 255
    for number, picture in enumerate(pictures):
        save_sample(picture, tmp_path / str(number))
    prompts = [Prompt("make it red", {"image": str(tmp_path / f"{n}.png")}) for n in (0, 0)]
    reward = load_reward("likeness", model=clip, device="cpu")
    scores = score_samples(reward, pictures, prompts)
    features = Clip(clip, clip).pictures(pictures)
    assert scores.tolist() == pytest.approx([1.0, float(features[0] @ features[1])], abs=1e-5)
    assert scores[1] < 0.999
    assert not applies_to(reward, Prompt("make it red"))
