"""Files of preferences: their forms, what is refused and in which words, and training on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from paretune.data.preferences import load_preferences
from paretune.planning.budget import counted, set_sizes
from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.stages.claim import missing_files
from paretune.stages.map import MapJob, expert_inputs, mixture_of
from paretune.training.expert import ExpertTrainer
from paretune.training.objectives.preference import PreferenceObjective
from paretune.training.trainers import check_experts, check_objective
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe
from tests.integration.test_preference_objectives import accumulated, begun, counting, moved
from tests.preference_files import (
    CAPTIONS,
    make_hpd,
    make_pairs,
    make_pickapic,
    make_pictures,
    make_ranked,
    picture,
    write_records,
)


def recipe(
    folder: Path, pipeline: Path, pairs: Path | str, name: str = "diffusion_dpo", **changes: Any
) -> Path:
    """The expert of `red` learns from a file by a preference objective, that of `dark` by NFT."""
    made = tiny_recipe(folder, pipeline)
    raw = yaml.safe_load(made.read_text())
    raw["rewards"]["red"] |= {"objective": name, "pairs": str(pairs)}
    raw["objective"] = {"others": {name: changes.pop("options", {})}}
    made.write_text(yaml.safe_dump({**raw, **changes}, sort_keys=False))
    return made


def trainer(folder: Path, path: Path) -> ExpertTrainer:
    config = load_config(path)
    check_objective(config)
    check_experts(config)
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    return ExpertTrainer(config, task, folder, mixture_of(config, task), None, "cpu")


def refused(path: Path) -> str:
    def check() -> None:
        config = load_config(path)
        check_objective(config)
        check_experts(config)

    with pytest.raises(ParetuneError) as caught:
        check()
    (line,) = str(caught.value).splitlines()
    return line


# ---------------------------------------------------------------- forms


def test_the_forms_of_a_record(tmp_path: Path) -> None:
    names = make_pictures(tmp_path, 3)
    a, b, c = (tmp_path / name for name in names)
    path = write_records(tmp_path / "all.jsonl", [
        {"prompt": "p", "chosen": names[0], "rejected": names[1]},
        {"prompt": "p", "samples": names},
        {"prompt": "p", "samples": names, "scores": [0.5, 1, 0.5]},
        {"prompt": "p", "samples": names, "ranks": [2, 1, 3], "captions": ["x", "y", "z"]},
        {"prompt": "p", "answers": [{"file": names[0], "score": 1.5, "scores": {"r": 3}},
                                    {"file": names[2], "score": 1}]},
        {"prompt": "p", "image_path": names[:2], "human_preference": [0, 1]},
        {"prompt": "p", "image_path": names, "rank": [3, 1, 2]},
    ])  # fmt: skip
    found = load_preferences(str(path))
    assert [f.samples for f in found] == [(a, b), (a, b, c), (a, b, c), (a, b, c), (a, c), (a, b), (a, b, c)]
    assert [f.scores for f in found] == [
        (2, 1), (3, 2, 1), (0.5, 1, 0.5), (-2, -1, -3), (1.5, 1), (0, 1), (-3, -1, -2)
    ]  # fmt: skip
    assert found[3].captions == ("x", "y", "z")
    assert {f.captions for i, f in enumerate(found) if i != 3} == {None}
    assert found[3].where == f"{path}:4"


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"chosen": "p0.png", "rejected": "p1.png"}, '"prompt" is missing'),
        ({"prompt": "p", "samples": ["p0.png"]}, "a list has at least two samples, and this one has 1"),
        ({"prompt": "p", "chosen": "p0.png", "rejected": "p0.png"}, "the same file is on two sides: p0.png"),
        ({"prompt": "p", "samples": ["p0.png", "p1.png"], "scores": [1]}, "2 samples, but 1 scores"),
        ({"prompt": "p", "samples": ["p0.png", "p1.png"], "scores": [1, "x"]}, "finite numbers, not 'x'"),
        ({"prompt": "p", "samples": ["p0.png", 3]}, "a sample is the name of a file, not 3"),
        ({"prompt": "p"}, 'give "answers", "samples", or "chosen" and "rejected"'),
        ({"prompt": "p", "answers": [{"text": "a"}, {"text": "b"}]}, 'every entry of "answers" has a "file"'),
        ({"caption": "p", "jpg_0": "p0.png", "jpg_1": "p1.png", "label_0": 2}, "between 0 and 1, not 2"),
    ],
)  # fmt: skip
def test_a_wrong_record_is_refused_by_its_line(tmp_path: Path, record: dict[str, Any], told: str) -> None:
    make_pictures(tmp_path, 2)
    good = {"prompt": "p", "chosen": "p0.png", "rejected": "p1.png"}
    path = write_records(tmp_path / "pairs.jsonl", [good, record])
    with pytest.raises(ParetuneError) as caught:
        load_preferences(str(path))
    assert str(caught.value).startswith(f"{path}:2: ")
    assert told in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name, text, told in (
        ("a.csv", "x", "expected a .jsonl file"), ("b.jsonl", "", "is empty"),
        ("c.jsonl", "{", ":1: malformed JSON"), ("d.jsonl", "[1]", "expected a JSON object"),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
        with pytest.raises(ParetuneError, match=told):
            load_preferences(str(tmp_path / name))
    with pytest.raises(ParetuneError, match="No such file"):
        load_preferences(str(tmp_path / "e.jsonl"))


def test_published_layouts_are_read_as_they_are(tmp_path: Path) -> None:
    found = load_preferences(f"hf:{make_pickapic(tmp_path / 'pick')}@train")
    assert [f.scores for f in found] == [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]
    assert [f.prompt for f in found] == list(CAPTIONS[:3])
    assert found[1].samples == (picture(20), picture(120))
    hpd = make_hpd(tmp_path / "hpd")
    found = load_preferences(f"hf:{hpd}@train")
    assert [f.scores for f in found] == [(0.0, 1.0), (1.0, 0.0)]
    assert found[0].samples == (hpd / "p0.png", hpd / "p1.png")
    with pytest.raises(ParetuneError, match="write it as hf:OWNER/NAME@SPLIT"):
        load_preferences("hf:somewhere")


# ---------------------------------------------------------------- checks before training


def test_pictures_are_refused_by_their_line(tiny_sd3: Path, tmp_path: Path) -> None:
    path = make_pairs(tmp_path)
    made = recipe(tmp_path / "run", tiny_sd3, path)
    check_experts(load_config(made))
    (tmp_path / "p3.png").unlink()
    assert refused(made) == f"{path}:2: {tmp_path / 'p3.png'} does not exist"
    (tmp_path / "p3.png").write_bytes(picture(60)[:-30])
    assert refused(made) == f"{path}:2: p3.png cannot be read as a picture"
    (tmp_path / "p3.png").write_bytes(picture(60, 24))
    assert refused(made) == (
        f"{path}:2: p3.png has 24x24 pixels, and the model draws 16x16 (model.width, model.height)"
    )
    (tmp_path / "p3.png").write_bytes((tmp_path / "p2.png").read_bytes())
    assert refused(made) == f"{path}:2: two sides are the same picture"


def test_captions_that_no_tokenizer_of_the_model_knows(tmp_path: Path) -> None:
    make_pictures(tmp_path, 4)
    path = write_records(tmp_path / "pairs.jsonl", [
        {"prompt": "a red circle 红", "chosen": "p0.png", "rejected": "p1.png"},
        {"prompt": "红色的圆", "chosen": "p2.png", "rejected": "p3.png"},
    ])  # fmt: skip
    made = recipe(tmp_path / "run", Path("pictures"), path)
    assert refused(made) == (
        f"{path}:2: the model's tokenizers do not know '红色的圆', nor at least half of the words of the "
        "caption '红色的圆'; leave the record out or translate it"
    )


def test_files_that_do_not_fit_the_objective_are_refused(tiny_sd3: Path, tmp_path: Path) -> None:
    pairs, ranked = make_pairs(tmp_path / "a"), make_ranked(tmp_path / "b")
    tied = write_records(tmp_path / "a" / "tied.jsonl", [
        {"prompt": "p", "samples": ["p0.png", "p1.png"], "scores": [1, 1]}] * 3)  # fmt: skip
    mixed = write_records(tmp_path / "b" / "mixed.jsonl", [
        {"prompt": "p", "samples": ["p0.png", "p1.png"]},
        {"prompt": "p", "samples": ["p2.png", "p3.png", "p4.png"]}])  # fmt: skip
    cases = {
        ("spo", pairs): "rewards.red.pairs: spo trains on samples that the run draws; leave the file out",
        ("nft", pairs): "rewards.red.pairs: objective nft draws its samples; give the reward a preference",
        ("diffusion_dpo", tied): "tied.jsonl: all 3 lists tie, so there is nothing to learn",
        ("adpo", mixed): "mixed.jsonl: lists of 2 and of 3 samples; with objective.options.pairs: all",
        ("sem_dpo", ranked): 'sem_dpo weighs a list by its "captions", and no record has them',
        ("dense_dpo", pairs): "rewards.red.objective: dense_dpo does not train this model; choose one of nft",
        ("difusion_dpo", pairs): "there is no objective difusion_dpo; did you mean diffusion_dpo?",
    }  # fmt: skip
    for number, ((name, file), told) in enumerate(cases.items()):
        assert told in refused(recipe(tmp_path / str(number), tiny_sd3, file, name)), name
    kept = recipe(tmp_path / "kept", tiny_sd3, pairs, options={"target": "kept"})
    assert "kept needs the noise that a sample came from" in refused(kept)
    joint = recipe(tmp_path / "joint", tiny_sd3, pairs, methods=["mapreduce", "morl_d"])
    assert refused(joint) == (
        "rewards.red.objective: morl_d trains one model on all rewards; leave the key out, or the method"
    )
    gone = recipe(tmp_path / "gone", tiny_sd3, tmp_path / "none.jsonl")
    assert missing_files(load_config(gone)) == [str(tmp_path / "none.jsonl")]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"beta": 0}, "beta: Input should be greater than 0 (got 0)"),
        ({"bta": 1}, "bta; did you mean beta?"),
        ({"margin": 1}, "unknown key objective.others.diffusion_dpo.margin"),
        ({"pairs": "some"}, "pairs: Input should be 'best_worst' or 'all'"),
        ({"loser": 2}, "loser: Input should be less than or equal to 1"),
    ],
)
def test_wrong_options(tiny_sd3: Path, tmp_path: Path, options: dict[str, Any], told: str) -> None:
    assert told in refused(recipe(tmp_path, tiny_sd3, make_pairs(tmp_path / "a"), options=options))


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("diffusion_dpo", {}), ("rank_dpo", {}), ("smpo", {}), ("dcpo", {}), ("dro", {}), ("adpo", {}),
        ("mapo", {}), ("diffusion_kto", {}), ("lpo_list", {"pairs": "best_worst"}),
    ],
)  # fmt: skip
def test_an_expert_learns_from_a_file(
    tiny_sd3: Path, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    made = recipe(tmp_path, tiny_sd3, make_ranked(tmp_path / "data"), name, options=options)
    of = trainer(tmp_path / "run", made)
    rows = [of.epoch() for _ in range(2)]
    assert rows[0]["kept_groups"] == 2
    assert rows[0]["grad_norm"] > 0
    assert all(torch.isfinite(p).all() for p in of.state.parameters.values())
    assert isinstance(of.objective, PreferenceObjective)
    lists = of.objective.lists
    whole = PREFERS_ALL.get(name, False) and not options
    assert lists.size == (3 if whole else 2)
    if name != "dro":
        score = lists.lists(lists.score)[..., 0]
        assert (score[:, 0] >= score[:, -1]).all()


PREFERS_ALL = {"rank_dpo": True, "adpo": True, "diffusion_kto": True}


def test_captions_a_side_are_read_and_weigh_the_list(tiny_sd3: Path, tmp_path: Path) -> None:
    near, far = ["a red circle", "a blue circle"], ["three green triangles", "a red circle"]
    names = make_pictures(tmp_path / "data", 4)
    path = write_records(tmp_path / "data" / "pairs.jsonl", [
        {"prompt": "a red circle", "chosen": names[2 * i], "rejected": names[2 * i + 1], "captions": captions}
        for i, captions in enumerate((near, far))
    ])  # fmt: skip
    of = trainer(tmp_path / "run", recipe(tmp_path, tiny_sd3, path, "sem_dpo"))
    batch = of.objective.collect(of, torch.Generator().manual_seed(0)).batch  # type: ignore[arg-type]
    assert batch is not None
    assert isinstance(of.objective, PreferenceObjective)
    weight, caption = of.objective.lists.weight, of.objective.lists.caption.view(-1, 2)
    assert weight is not None
    first = 0 if caption[0, 0] == of.objective.lists.prompt[0] else 1  # type: ignore[index]
    assert weight[first].item() == pytest.approx(1.0)  # the winner's caption is the prompt
    assert 0 < weight[1 - first] < 1
    of.objective.begin_epoch(batch, torch.Generator().manual_seed(0))
    count, whole = counting(of), torch.arange(4)
    weighed, _ = accumulated(of, whole, 96)
    assert 3 * count["learned"] + count["looked"] == 8 * 2 * of.objective.slots
    of.objective.lists = replace(of.objective.lists, weight=torch.ones(2))
    assert (accumulated(of, whole, 96)[0] - weighed).norm() > 0.05 * weighed.norm()


def test_where_meaning_does_not_count_sem_dpo_is_plain(tiny_sd3: Path, tmp_path: Path) -> None:
    """At alpha 0 all weights are 1: Diffusion-DPO with a caption a side."""
    path = make_pairs(tmp_path / "data", captions=["a red circle", "two blue squares"])
    found = []
    for name, options in (("sem_dpo", {"alpha": 0.0}), ("dcpo", {})):
        made = recipe(tmp_path / f"{name}-recipe", tiny_sd3, path, name, options=options)
        of = trainer(tmp_path / name, made)
        part = begun(of)
        moved(of)
        found.append(accumulated(of, part, 96)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_pictures_are_encoded_once(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    made = recipe(tmp_path, tiny_sd3, make_pairs(tmp_path / "data"))
    encoded = []
    for number in (1, 2, 3):
        of = trainer(tmp_path / str(number), made)
        plain = of.policy.encode_media
        of.policy.encode_media = lambda pixels, plain=plain: encoded.append(len(pixels)) or plain(pixels)  # type: ignore[method-assign]
        of.epoch()
        of.epoch()
        assert sum(encoded) == (8 if number < 3 else 16)
        if number == 2:  # a damaged file is made again
            (file,) = (tmp_path / "cache" / "latents").iterdir()
            file.write_bytes(file.read_bytes()[:-1] + b"x")


def test_what_a_file_holds_is_among_the_inputs(tiny_sd3: Path, tmp_path: Path) -> None:
    made = recipe(tmp_path, tiny_sd3, make_pairs(tmp_path / "data"))
    config = load_config(made)
    tasks = build_plan(config).methods[0].rounds[0].tasks
    assert [task.objective for task in tasks] == ["diffusion_dpo", None]
    before = [expert_inputs(MapJob(config, task, tmp_path, "model")) for task in tasks]
    (tmp_path / "data" / "p0.png").write_bytes(picture(77))
    after = [expert_inputs(MapJob(config, task, tmp_path, "model")) for task in tasks]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True]


def test_the_budget_counts_lists_and_samples(tiny_sd3: Path, tmp_path: Path) -> None:
    """Two rounds of two epochs: 2 lists an epoch from the file, and 2 groups of 3 samples."""
    config = load_config(recipe(tmp_path, tiny_sd3, make_pairs(tmp_path / "data")))
    assert set_sizes(config) == {"red": 4, "dark": 3}
    plan = counted(config, build_plan(config), set_sizes(config))
    assert plan.methods[0].samples == 2 * 2 * (2 + 2 * 3)
