"""What the rewards give: literal scores, facts of GenEval's records, and what cannot be gamed."""

import random

import pytest
import torch

from paretune.rewards import load_reward, oriented, score_all, score_samples
from paretune.rewards.worlds.detector import Detection, detect_shapes
from paretune.rewards.worlds.geneval import GenEvalReward, score_record
from paretune.rewards.worlds.ocr import OcrReward, edit_score, levenshtein
from paretune.rewards.worlds.preference import PreferenceJudge, PreferenceReward
from paretune.rewards.worlds.towers import encode_words
from paretune.rewards.worlds.vqa import CaptionJudge
from paretune.types import Prompt
from paretune.worlds.pictures.render import BACKGROUNDS, Style, random_style, render
from paretune.worlds.pictures.scenes import (
    Group,
    Scene,
    caption,
    geneval_metadata,
    mislabel,
    random_scene,
    slip,
)

PLAIN = Style("cream", "white", large=True, outline=False)


def picture(scene: Scene, style: Style | None = None, seed: int = 0) -> torch.Tensor:
    """One rendering, float32 [3, 32, 32]; of a random style unless one is given."""
    rng = random.Random(seed)
    pixels = render(scene, style or random_style(rng), rng)
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def prompt(scene: Scene) -> Prompt:
    return Prompt(caption(scene), geneval_metadata(scene))


def many(kinds: tuple[str, ...], each: int, seed: int) -> tuple[list[Scene], torch.Tensor]:
    rng = random.Random(seed)
    scenes = [random_scene(rng, kind) for kind in kinds for _ in range(each)]
    return scenes, torch.stack([picture(s, seed=i) for i, s in enumerate(scenes)])


def wrong_in_shapes(scene: Scene, rng: random.Random) -> Scene:
    while True:
        other = mislabel(scene, rng)
        if other != scene and (other.word, other.sign_place) == (scene.word, scene.sign_place):
            return other


# ---------------------------------------------------------------- GenEval

RED_CIRCLE = Detection("circle", "red", 8, 8, 60)
BLUE_SQUARE = Detection("square", "blue", 24, 9, 60)
RELATION = geneval_metadata(
    Scene((Group("circle", "red"), Group("square", "blue")), relation="left of")
)


@pytest.mark.parametrize(
    ("found", "partial", "strict"),
    [
        # 7 facts: class, count and colour of two entries, and one position
        ([RED_CIRCLE, BLUE_SQUARE], 1.0, 1.0),
        ([RED_CIRCLE, Detection("square", "blue", 4, 24, 60)], 6 / 7, 0.0),
        ([RED_CIRCLE, Detection("square", "green", 24, 9, 60)], 6 / 7, 0.0),
        ([RED_CIRCLE], 3 / 7, 0.0),
        # a circle too many: its count is wrong, and one of three forbidden things is shown
        ([RED_CIRCLE, RED_CIRCLE, BLUE_SQUARE], 6 / 7 * 5 / 6, 0.0),
        # a cross that nobody asked for
        (
            [RED_CIRCLE, BLUE_SQUARE, Detection("cross", "red", 9, 9, 30)],
            5 / 6,
            0.0,
        ),
        ([], 0.0, 0.0),
    ],
)
def test_partial_and_strict_score_of_a_record(
    found: list[Detection], partial: float, strict: float
) -> None:
    assert score_record(RELATION, found) == pytest.approx(partial)
    assert score_record(RELATION, found, strict=True) == strict


@pytest.mark.parametrize("relation", ["left of", "right of", "above", "below"])
def test_each_relation_holds_in_its_own_picture_only(relation: str) -> None:
    scene = Scene((Group("circle", "red"), Group("cross", "green")), relation=relation)
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    other = Scene(scene.groups, relation=opposite[relation])
    scores = GenEvalReward(strict=True).score(
        torch.stack([picture(scene), picture(other)]), [prompt(scene)] * 2
    )
    assert scores.tolist() == [1.0, 0.0]


def test_detector_names_place_and_color() -> None:
    found = detect_shapes(picture(Scene((Group("triangle", "purple"),)), PLAIN))
    assert [(d.shape, d.color) for d in found] == [("triangle", "purple")]
    assert 8 < found[0].x < 24
    assert found[0].area > 40


def test_strict_is_right_on_renders_and_refuses_wrong_facts() -> None:
    scenes, right = many(("single", "pair", "relation", "mixed"), 75, seed=3)
    rng = random.Random(4)
    wrong = torch.stack([
        picture(wrong_in_shapes(s, rng), seed=1000 + i) for i, s in enumerate(scenes)
    ])
    reward, prompts = GenEvalReward(strict=True), [prompt(s) for s in scenes]
    assert float(reward.score(right, prompts).mean()) >= 0.99
    assert float(reward.score(wrong, prompts).mean()) < 0.03


def test_partial_bears_blur_and_noise() -> None:
    scenes, right = many(("pair", "relation"), 30, seed=5)
    noise = torch.randn(right.shape, generator=torch.Generator().manual_seed(0)) * 0.05
    soft = torch.nn.functional.avg_pool2d(right, 3, 1, 1) * 0.4 + right * 0.6
    prompts = [prompt(s) for s in scenes]
    for flawed in ((right + noise).clamp(0, 1), soft):
        assert float(GenEvalReward().score(flawed, prompts).mean()) > 0.95


def test_a_sign_alone_asks_for_no_shapes() -> None:
    sign = Scene(word="drum")
    shown = torch.stack([picture(sign), picture(Scene((Group("circle", "red"),)), PLAIN)])
    assert GenEvalReward().score(shown, [prompt(sign)] * 2).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("name", ["geneval", "preference", "preference_judge", "vqa"])
def test_a_blank_picture_loses(name: str) -> None:
    scenes, right = many(("single", "pair", "relation", "mixed"), 8, seed=6)
    reward, prompts = load_reward(f"pictures.{name}"), [prompt(s) for s in scenes]
    good = score_samples(reward, right, prompts)
    for color in BACKGROUNDS.values():
        blank = (torch.tensor(color) / 255)[None, :, None, None].expand_as(right)
        empty = score_samples(reward, blank, prompts)
        assert float((empty < good).float().mean()) > 0.95
        assert float(empty.mean()) < 0.1


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("drum", "drum", 0), ("", "drum", 4), ("drm", "drum", 1), ("drvm", "drum", 1),
     ("kitten", "sitting", 3), ("abcd", "dcba", 4)],
)  # fmt: skip
def test_levenshtein(a: str, b: str, distance: int) -> None:
    assert levenshtein(a, b) == levenshtein(b, a) == distance


@pytest.mark.parametrize(
    ("read", "score"), [("drum", 1.0), ("drm", 0.75), ("dxxm", 0.5), ("", 0.0), ("zzzzzzzzz", 0.0)]
)
def test_edit_score(read: str, score: float) -> None:
    assert edit_score(read, "drum") == score


def test_reader_reads_signs_in_every_place() -> None:
    scenes, right = many(("sign", "mixed"), 100, seed=7)
    exact = OcrReward().score(right, [prompt(s) for s in scenes]) == 1
    assert float(exact.float().mean()) > 0.97


def test_half_blended_words_are_not_read_generously() -> None:
    first = picture(Scene(word="quick"), PLAIN)
    second = picture(Scene(word="bench"), PLAIN)
    wanted = Prompt("a sign saying quick", {"text": "quick"})
    scores = OcrReward().score(torch.stack([first, (first + second) / 2]), [wanted] * 2)
    assert scores[0] == 1
    assert scores[1] <= 0.4


def test_rapidocr_agrees_on_clean_signs() -> None:
    pytest.importorskip("rapidocr_onnxruntime")
    scenes = [Scene(word="drum"), Scene((Group("circle", "red"),), None, "quiz", "below")]
    shown = torch.stack([picture(s, PLAIN) for s in scenes])
    scores = load_reward("pictures.rapidocr").score(shown, [prompt(s) for s in scenes])
    assert scores.min() >= 0.5


# ---------------------------------------------------------------- preference and captions


def test_unknown_words_and_endings_change_nothing() -> None:
    plain = encode_words(["a sign saying drum above a red circle"])
    ended = encode_words(["a sign saying quiz above a red circle fancy"])
    assert torch.equal(plain, ended)
    assert plain.tolist() == [[15, 27, 28, 25, 15, 1, 7, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize("make", [PreferenceReward, PreferenceJudge])
def test_preference_likes_the_nicer_style(make: type) -> None:
    scenes, _ = many(("pair", "relation", "mixed"), 20, seed=8)
    prompts, reward = [prompt(s) for s in scenes], make()

    def mean(style: Style) -> float:
        return float(reward.score(torch.stack([picture(s, style) for s in scenes]), prompts).mean())

    nice, dull = Style("navy", "sand", True, True), Style("grey", "white", False, False)
    assert mean(nice) > mean(dull) + 0.3


@pytest.mark.parametrize("make", [PreferenceReward, PreferenceJudge])
def test_preference_likes_the_faithful_picture(make: type) -> None:
    scenes, _ = many(("pair", "relation", "mixed"), 20, seed=8)
    prompts, reward, rng = [prompt(s) for s in scenes], make(), random.Random(9)
    nice = Style("navy", "sand", True, True)

    def mean(shown: list[Scene], style: Style) -> float:
        return float(reward.score(torch.stack([picture(s, style) for s in shown]), prompts).mean())

    wrong = [wrong_in_shapes(s, rng) for s in scenes]
    assert mean(scenes, nice) > mean(wrong, nice) + 0.15


def test_preference_of_faithful_pictures_of_any_style_is_above_a_half() -> None:
    scenes, right = many(("sign", "mixed", "single", "pair", "relation"), 30, seed=10)
    value = PreferenceReward().score(right, [prompt(s) for s in scenes])
    assert 0.65 < float(value.mean()) < 0.85


def test_caption_judge_tells_right_from_one_fact_wrong() -> None:
    scenes, right = many(("single", "pair", "relation", "mixed"), 40, seed=11)
    rng = random.Random(12)
    wrong = torch.stack([picture(wrong_in_shapes(s, rng), seed=i) for i, s in enumerate(scenes)])
    judge, prompts = CaptionJudge(), [prompt(s) for s in scenes]
    yes = (judge.score(right, prompts) > 0.5).float().mean()
    no = (judge.score(wrong, prompts) < 0.5).float().mean()
    assert float(yes + no) / 2 > 0.85


# ---------------------------------------------------------------- scoring


def test_score_all_scores_each_distinct_reward_once() -> None:
    calls: list[int] = []

    class Cost:
        name, range, higher_is_better = "cost", (0.0, 9.0), False

        def score(self, samples: torch.Tensor, prompts: list[Prompt]) -> torch.Tensor:
            calls.append(len(prompts))
            return torch.arange(len(prompts)).float()

    cost = Cost()
    scores = score_all([cost, cost], torch.zeros(5, 3, 32, 32), [Prompt("x")] * 5, batch_size=3)
    assert calls == [3, 2]
    assert scores["cost"].tolist() == [0, 1, 2, 0, 1]
    assert oriented(cost, scores["cost"]).tolist() == [0, -1, -2, 0, -1]


def test_strict_geneval_counts_all_facts_or_nothing() -> None:
    strict, partial = load_reward("pictures.geneval_strict"), load_reward("pictures.geneval")
    told = Scene((Group("circle", "red"), Group("square", "blue")))
    pictures = torch.stack([picture(told, PLAIN), picture(Scene((Group("circle", "red"),)), PLAIN)])
    prompts = [prompt(told)] * 2
    assert strict.score(pictures, prompts).tolist() == [1.0, 0.0]
    assert 0 < partial.score(pictures, prompts)[1] < 1


# ---------------------------------------------------------------- scenes with a mistake


@pytest.mark.parametrize("kind", ["single", "pair", "relation", "sign", "mixed"])
def test_a_slip_changes_one_fact_and_stays_drawable(kind: str) -> None:
    rng = random.Random(3)
    for _ in range(200):
        told = random_scene(rng, kind)
        shown = slip(told, rng)
        facts = [(a.shape != b.shape) + (a.color != b.color) + (a.count != b.count)
                 for a, b in zip(told.groups, shown.groups, strict=True)]  # fmt: skip
        assert sum(facts) + (told.word != shown.word) + (told.relation != shown.relation) == 1
        assert sum(g.count for g in shown.groups) <= (3 if shown.word else 4)


def test_a_slip_lets_a_colour_leak() -> None:
    told = Scene((Group("circle", "red", 2), Group("square", "blue", 2)))
    colors = {tuple(g.color for g in slip(told, random.Random(seed)).groups) for seed in range(40)}
    assert colors == {("red", "blue"), ("red", "red"), ("blue", "blue")}
