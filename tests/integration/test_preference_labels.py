"""Labels of segments of clips and of patches of pictures, in files of preferences."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from paretune.data.preferences import load_preferences
from paretune.models.shapes import Shape
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.samples.files import write_clip
from paretune.stages.map import mixture_of
from paretune.stages.summarise import file_orders
from paretune.training.expert import ExpertTrainer
from paretune.training.objectives.preference import PreferenceObjective
from paretune.training.preferences.labels import patch_weights, segment_scores
from paretune.training.trainers import check_experts, check_objective
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe
from tests.integration.test_preference_data import recipe, refused, trainer
from tests.preference_files import CAPTIONS, make_pairs, make_pictures, write_records

CLIPS = {"height": 16, "width": 16, "options": {"frames": 9}}


def test_a_latent_frame_has_the_label_of_most_of_its_frames() -> None:
    """9 frames in 3 latent frames: frame 0, 1 to 4, 5 to 8; segments of 3 frames, or of 4.5."""
    assert segment_scores([[1, 2, 3], [0, 0, 4]], 9, 3).tolist() == [[1, 0, 3], [0, 0, 4]]  # 2 and 2: a tie
    assert segment_scores([[1, 0], [0, 1]], 9, 3).tolist() == [[1, 1, 0], [0, 0, 1]]
    assert segment_scores([[7], [5]], 9, 3).tolist() == [[7] * 3, [5] * 3]
    assert segment_scores([list(range(9))], 9, 9).tolist() == [list(range(9))]


def test_patch_labels_are_pooled_to_the_latents() -> None:
    grid = [[1, 1, 0, 0], [1, 1, 0, 0]]
    assert patch_weights([grid, None], torch.zeros(3, 2, 2), None).tolist() == [[1, 0, 1, 0], [1] * 4]
    packed = torch.zeros(8, 12)  # 2 rows of 4
    assert patch_weights([grid], packed, Shape(32, 64, (8, 12), 8)).tolist() == [[1, 1, 0, 0] * 2]


PAIR = {"prompt": "p", "chosen": "p0.png", "rejected": "p1.png"}


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ({"segments": [[1, 0]]}, '"segments" has one entry for each of the 2 samples'),
        ({"segments": [[1, 0], [1]]}, '"segments" has the same number of scores for every sample'),
        ({"segments": [[], []]}, '"segments" has the same number of scores for every sample'),
        ({"segments": [[1, "x"], [0, 1]]}, "\"segments\" holds finite numbers, not 'x'"),
        ({"segments": [[1, math.nan], [0, 1]]}, '"segments" holds finite numbers, not nan'),
        ({"patches": "all"}, '"patches" has one entry for each of the 2 samples'),
        ({"patches": [None, None]}, '"patches" has no grid for any sample'),
        ({"patches": [[[1, 0], [1]], None]}, 'a grid of "patches" is rows of equally many numbers'),
        ({"patches": [3, None]}, 'a grid of "patches" is rows of equally many numbers'),
        ({"patches": [[[1, 2]], None]}, 'weights of "patches" are from 0 to 1'),
        ({"patches": [[[1, True]], None]}, '"patches" holds finite numbers, not True'),
    ],
)
def test_wrong_labels_are_refused_by_their_line(tmp_path: Path, field: dict[str, Any], told: str) -> None:
    path = write_records(tmp_path / "pairs.jsonl", [PAIR, {**PAIR, **field}])
    with pytest.raises(ParetuneError) as caught:
        load_preferences(str(path))
    assert str(caught.value) == f"{path}:2: {told}"


def test_labels_of_the_other_medium_are_refused(tiny_sd3: Path, tmp_path: Path) -> None:
    path = make_pairs(tmp_path / "a", segments=[[1, 0], [0, 1]])
    assert refused(recipe(tmp_path, tiny_sd3, path)) == \
        f'{path}:1: "segments" are of clips, and the model draws pictures'  # fmt: skip


def test_patch_labels_weigh_the_fit(tiny_sd3: Path, tmp_path: Path) -> None:
    """Of the first record the left half of the loser alone is fitted; the others go by likeness."""
    names = make_pictures(tmp_path / "data", 4)
    path = write_records(tmp_path / "data" / "pairs.jsonl", [
        {"prompt": CAPTIONS[0], "chosen": names[0], "rejected": names[1],
         "patches": [[[0]], [[1, 0]]]},
        {"prompt": CAPTIONS[1], "chosen": names[2], "rejected": names[3]},
    ])  # fmt: skip
    of = trainer(tmp_path / "run", recipe(tmp_path, tiny_sd3, path, "patch_dpo"))
    row = of.epoch()
    assert row["grad_norm"] > 0
    objective = of.objective
    assert isinstance(objective, PreferenceObjective)
    quality = objective.lists.quality
    assert quality is not None
    h, w = objective.lists.clean.shape[-2:]
    pairs = quality.view(2, 2, h, w)
    (first,) = [p for p in pairs if (p[0] == 0).all()]
    assert (first[1, :, : w // 2] == 1).all()
    assert (first[1, :, w // 2 :] == 0).all()


def _clips(folder: Path, pipeline: Path, *labels: object, **more: Any) -> Path:
    """A recipe whose expert of `late` learns by DenseDPO from pairs of clips with segment labels."""
    pytest.importorskip("av")
    generator = torch.Generator().manual_seed(0)
    records = []
    for i, label in enumerate(labels):
        for side in "ab":
            place = folder / f"{side}{i}.mp4"
            place.parent.mkdir(parents=True, exist_ok=True)
            write_clip(torch.rand(9, 3, 16, 16, generator=generator).round(), place)
        record = {"prompt": CAPTIONS[i], "chosen": f"a{i}.mp4", "rejected": f"b{i}.mp4"}
        records.append(record if label is None else {**record, "segments": label})
    pairs = write_records(folder / "pairs.jsonl", records)
    made = tiny_recipe(folder / "recipe", pipeline, model=CLIPS, train={"updates_per_epoch": 1})
    raw = yaml.safe_load(made.read_text())
    raw["rewards"]["red"] |= {"objective": "dense_dpo", "pairs": str(pairs)}
    made.write_text(yaml.safe_dump(raw, sort_keys=False))
    return made


def test_dense_dpo_learns_from_segment_labels(tiny_hunyuan: Path, tmp_path: Path) -> None:
    made = _clips(tmp_path, tiny_hunyuan, [[1, 0], [0, 1]], [[0.5, 0.5], [0.5, 0.5]], [[1, 1], [0, 1]])
    config = load_config(made)
    check_objective(config)
    check_experts(config)
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    of = ExpertTrainer(config, task, tmp_path / "run", mixture_of(config, task), None, "cpu")
    row = of.epoch()
    assert row["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert (row["tied"], row["kept_groups"]) == (1, 2)
    assert 0 <= row["still_winners"] <= 1
    assert isinstance(of.objective, PreferenceObjective)
    score = of.objective.lists.lists(of.objective.lists.score)
    assert sorted(score.flatten(1).tolist()) == [[1, 1, 0, 0, 0, 1], [1, 1, 1, 0, 0, 1]]
    assert of.epoch()["grad_norm"] > 0


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([[[1, 0], [0, 1]], None], ':2: this objective compares frames; give "segments", a list of scores'),
        ([[[1], [1]]], ": all 1 lists tie, so there is nothing to learn"),
        ([[[1] * 10, [0] * 10]], ":1: 10 segments, but a clip has 9 frames"),
    ],
)
def test_labels_that_do_not_fit_are_refused_before_training(
    tiny_hunyuan: Path, tmp_path: Path, labels: list[Any], told: str
) -> None:
    assert told in refused(_clips(tmp_path, tiny_hunyuan, *labels))


def test_scores_in_a_file_tell_how_rewards_agree(tiny_sd3: Path, tmp_path: Path) -> None:
    names = make_pictures(tmp_path / "data", 3)
    path = write_records(tmp_path / "data" / "pairs.jsonl", [{"prompt": "p", "answers": [
        {"file": name, "score": 3 - i, "scores": {"red": red, "dark": dark, "gone": 0}}
        for i, (name, red, dark) in enumerate(zip(names, (3, 1, 2), (1, 2, 3), strict=True))
    ]}])  # fmt: skip
    config = load_config(recipe(tmp_path, tiny_sd3, path))
    found = file_orders(config, {"red": True, "dark": False})
    assert json.loads(json.dumps(found)) == {"red": {
        "names": ["file", "red", "dark"],
        "alike": [[1, 2 / 3, 1], [2 / 3, 1, 2 / 3], [1, 2 / 3, 1]], "pairs": [[3, 3, 3]] * 3,
    }}  # fmt: skip
    plain = load_config(recipe(tmp_path / "plain", tiny_sd3, make_pairs(tmp_path / "pairs")))
    assert file_orders(plain, {}) == {}


def test_frames_of_the_clips_world_have_scores_of_their_own(tmp_path: Path) -> None:
    """Where half of a clip is better and the other half worse, the labels say both."""
    small = ["train.prompts_per_epoch=2", "train.group_size=2", "train.updates_per_epoch=1"]
    config = load_config(find_recipe("clips"), ["objective.name=dense_dpo", *small])
    task = next(t for t in build_plan(config).methods[0].rounds[0].tasks if t.reward == "motion_quality")
    of = ExpertTrainer(config, task, tmp_path, mixture_of(config, task), None, "cpu")
    row = of.epoch()
    assert row["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert isinstance(of.objective, PreferenceObjective)
    score = of.objective.lists.lists(of.objective.lists.score)  # [2, 2, 8]
    sign = (score[:, 0] - score[:, 1]).sign()
    assert score.shape == (2, 2, 8)
    assert (sign.amax(1) > 0).any()
    assert (sign.amin(1) < 0).any()
