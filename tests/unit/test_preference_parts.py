"""The parts of preference objectives: cells, levels, captions, patches, guided pairs, sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paretune.models.flow import Conditions, Schedule
from paretune.recipes import parse_config
from paretune.training.objectives.table import OBJECTIVES, find_objective
from paretune.training.preferences.candidates import decided
from paretune.training.preferences.captions import changed, changed_all
from paretune.training.preferences.cells import cell_errors
from paretune.training.preferences.compare import softened
from paretune.training.preferences.guided import first_level, redrawn, segments
from paretune.training.preferences.levels import drawn_sigmas
from paretune.training.preferences.options import PreferenceOptions
from paretune.training.preferences.patches import patch_quality, ranked, weighted
from paretune.training.preferences.presets import PRESETS
from paretune.training.preferences.sets import PreferenceSet, forget_sets, load_set, save_set
from paretune.training.preferences.watch import watched
from paretune.training.preferences.weights import by_meaning, soft_scores, widest_gaps
from paretune.types import ParetuneError

REWARD = {"reward": "pictures.ocr", "prompts": "a.txt", "eval_prompts": "b.txt"}
SCHEDULE = Schedule((1.0, 0.8, 0.5, 0.2, 0.0), (-0.2, -0.3, -0.3, -0.2))


def pairs(count: int, seed: int = 0, **more: torch.Tensor) -> PreferenceSet:
    clean = torch.randn(2 * count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return PreferenceSet(2, clean, torch.arange(count).repeat_interleave(2),
                         torch.tensor([1.0, 0.0]).repeat(count)[:, None], **more)  # fmt: skip


# ---------------------------------------------------------------- presets


def test_every_preset_is_an_objective_with_the_options_that_it_reads() -> None:
    assert PRESETS.keys() <= OBJECTIVES.keys()
    for name, preset in PRESETS.items():
        kind = find_objective(name)
        assert set(kind.options_kind.model_fields) == set(preset.all_reads), name
        assert find_objective(name) is kind
        own = PreferenceOptions.of(kind.options_kind(), preset.all_defaults)
        assert own.target == preset.targets[0]


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ({"name": "inversion_dpo", "options": {"target": "inverted_ref"}}, "inverted_ref has no gradient"),
        ({"name": "diffusion_dpo", "options": {"target": "step"}}, "has no step; choose of fresh, kept"),
        ({"name": "spo", "options": {"window": [2, 9]}}, "window is [first, last) within the 7 stoch"),
        ({"name": "diffusion_dpo", "options": {"reuse": 5}}, "reuse: 5 epochs do not divide the 12 of ocr"),
        ({"name": "dense_dpo", "options": {"eta": [0.8, 0.6]}}, "eta is [least, most]"),
        ({"name": "d3po", "options": {"sampler": "cps", "noise_level": 2}}, "noise_level is at most 1"),
        ({"name": "diffusion_dpo", "options": {"beta": 0}}, "beta: Input should be greater than 0 (got 0)"),
        ({"name": "rank_dpo", "options": {"losr": 1}}, "unknown key objective.options.losr"),
    ],
)  # fmt: skip
def test_options_that_cannot_be(objective: dict[str, object], told: str) -> None:
    with pytest.raises(ParetuneError) as caught:
        parse_config({"rewards": {"ocr": REWARD}, "objective": objective}, "x")
    assert told in str(caught.value)


# ---------------------------------------------------------------- cells, levels, gradients


def test_cells_are_means_over_their_elements() -> None:
    clip = torch.arange(2 * 3 * 2 * 2.0).view(1, 2, 3, 2, 2)
    zero = torch.zeros_like(clip)
    frames = cell_errors(clip, zero, "frames")
    assert frames.shape == (1, 3)
    assert frames[0, 1].item() == (clip[0, :, 1] ** 2).mean().item()
    assert frames.mean().item() == pytest.approx(cell_errors(clip, zero, "whole").item())
    one = clip[:, :, :1]
    assert torch.equal(cell_errors(one, 0 * one, "frames"), cell_errors(one, 0 * one, "whole"))
    picture = torch.arange(12.0).view(1, 3, 2, 2)
    patches = cell_errors(picture, 0 * picture, "patches")
    assert patches[0].tolist() == [(picture[0, :, i, j] ** 2).mean().item() for i in (0, 1) for j in (0, 1)]
    packed = picture.flatten(2).transpose(1, 2)
    assert torch.equal(cell_errors(packed, 0 * packed, "patches"), patches)


def test_levels_are_spread_evenly_over_lists_and_slots() -> None:
    options = PreferenceOptions(times=4)
    sigmas = drawn_sigmas(25, options, torch.Generator().manual_seed(0))
    assert sigmas.shape == (4, 25)
    counts = torch.histc(sigmas, 10, 0, 1)
    assert (counts == 10).all()
    def drawn(**change: object) -> torch.Tensor:
        return drawn_sigmas(25, options.model_copy(update=change), torch.Generator().manual_seed(0))

    shifted = drawn(time_shift=3.0)
    s = sigmas[sigmas > 0.1]
    torch.testing.assert_close(shifted[sigmas > 0.1], 3 * s / (1 + 2 * s))
    logit = drawn(levels="logit")
    assert ((logit > 0.27) & (logit < 0.73)).sum() == pytest.approx(68, abs=2)  # within one deviation


def test_the_losers_gradient_is_scaled_and_its_error_is_not() -> None:
    e = torch.tensor([[0.2, 0.7]], requires_grad=True)
    out = softened(e, torch.tensor([[1.0, 0.0]]), 0.25)
    assert torch.equal(out, e)
    out.sum().backward()
    assert e.grad is not None
    assert e.grad.tolist() == [[1.0, 0.25]]


# ---------------------------------------------------------------- guided pairs


def _redrawn(starts: list[int], noise: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    return redrawn(sources, noise, starts, SCHEDULE, lambda x, sigma, index: x.sin(), 2)


def test_guided_pairs_between_their_source_and_nothing_of_it() -> None:
    generator = torch.Generator().manual_seed(0)
    sources, noise, others = torch.randn(3, 2, 3, 4, 4, generator=generator)
    assert torch.equal(_redrawn([4, 4], noise, sources), sources)  # eta 0: the source itself
    assert torch.equal(_redrawn([0, 0], noise, sources), _redrawn([0, 0], noise, others))  # eta 1
    half = _redrawn([2, 2], noise, sources)
    assert not torch.equal(half, _redrawn([2, 2], noise, others))
    assert not torch.equal(half, _redrawn([2, 2], others, sources))
    both = _redrawn([1, 3], noise, sources)  # each from its own level
    for i, start in enumerate((1, 3)):
        alone = redrawn(sources[i : i + 1], noise[i : i + 1], [start], SCHEDULE, lambda x, s, _: x.sin(), 2)
        torch.testing.assert_close(both[i : i + 1], alone)


def test_the_first_level_that_is_low_enough() -> None:
    assert [first_level(SCHEDULE, eta) for eta in (1.0, 0.8, 0.79, 0.1, 0.0)] == [0, 1, 2, 4, 4]


def test_segments_lie_around_their_frames_and_within_the_clip() -> None:
    assert segments(9, 3, 3) == [(0, 3), (2, 5), (6, 9)]  # latent frames of 1, 4 and 4 frames
    assert segments(9, 3, 100) == [(0, 9)] * 3
    assert segments(1, 1, 8) == [(0, 1)]
    assert segments(8, 8, None) == [(0, 3), (0, 3), (1, 4), (2, 5), (3, 6), (4, 7), (5, 8), (5, 8)]
    assert {b - a for a, b in segments(129, 33, None)} == {26}


# ---------------------------------------------------------------- captions, patches, candidates, weights


@pytest.mark.parametrize(
    ("prompt", "wrong"),
    [
        ("a red circle", "a green circle"), ("two blue squares", "two yellow squares"),
        ('a sign saying "KITE"', 'a sign saying "ITEK"'), ("four stars", "five stars"),
        ("a cat left of a dog", "a cat right of a dog"), ("it moves up quickly", "it moves down quickly"),
        ("a heart", None),
    ],
)  # fmt: skip
def test_one_fact_of_a_prompt_is_changed(prompt: str, wrong: str | None) -> None:
    assert changed(prompt) == wrong


def test_a_prompt_without_known_facts_gets_another_one() -> None:
    assert changed_all(["a heart", "a heart", "a kite"]) == ["a kite", "a kite", "a heart"]
    assert changed_all(["a heart"]) == [""]


def test_patches_that_are_alike() -> None:
    a, b = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(patch_quality(a, a), torch.ones(1, 16))
    moved = a.roll(1, 3)
    inner = patch_quality(moved, a).view(4, 4)[1:3, 2:3]  # whose neighbourhood did not cross the border
    torch.testing.assert_close(inner, torch.ones(2, 1))
    assert patch_quality(a, b).max() < 0.95
    same = weighted(replace(pairs(1), clean=torch.cat([a, a])))
    assert same.quality is not None  # the best has its like everywhere: only the other sample is fitted
    torch.testing.assert_close(same.quality, torch.stack([torch.zeros(16), torch.ones(16)]))


def test_a_patchs_quality_is_its_rank_in_the_set() -> None:
    assert ranked(torch.tensor([[0.98, 0.99], [0.97, 0.99]])).tolist() == [[0.5, 1.0], [0.25, 1.0]]
    assert ranked(torch.ones(1, 3)).tolist() == [[1.0] * 3]


def test_candidates_count_where_their_scores_differ() -> None:
    score = torch.tensor([[0.9, 0.1, 0.5], [0.5, 0.51, 0.5]])
    assert decided(score, 0.3).tolist() == [0]
    assert decided(100 * score - 3, 0.3).tolist() == [0]  # the scale of the reward does not enter
    assert decided(score, 0.0).tolist() == [0, 1]
    assert decided(torch.ones(2, 3), 0.0).tolist() == []
    apart = score + torch.tensor([[0.0], [1000.0]])  # nor does how far prompts differ from each other
    assert decided(apart, 0.3).tolist() == [0]


def test_scores_on_the_scale_of_the_set() -> None:
    lists = replace(pairs(2), score=torch.tensor([[3.0], [1.0], [7.0], [1.0]]))
    assert widest_gaps(lists).tolist() == [2.0, 6.0]
    soft = soft_scores(lists, None)
    assert soft.flatten().tolist() == pytest.approx([1 / 3, 0, 1, 0])
    gap = soft_scores(lists, 2.0).view(2, 2)
    assert (gap[:, 0] - gap[:, 1]).tolist() == pytest.approx([4 / 20**0.5, 12 / 20**0.5])


def test_a_caption_far_from_its_prompt_weighs_less() -> None:
    pooled = torch.tensor([[1.0, 0.0], [0.5, 3**0.5 / 2]])  # their cosine is one half
    lists = replace(pairs(2), prompt=torch.tensor([0, 0]), caption=torch.tensor([0, 1, 1, 0]))
    weighed = by_meaning(lists, PreferenceOptions(alpha=1.0), Conditions(torch.zeros(2, 1, 2), pooled))
    assert weighed.weight is not None
    assert weighed.weight.tolist() == pytest.approx([1.0, 0.606531])


# ---------------------------------------------------------------- sets and what is watched


def test_a_set_is_written_and_read_and_selected(tmp_path: Path) -> None:
    lists = pairs(3, step=torch.tensor([4, 5, 6]), weight=torch.tensor([0.1, 0.2, 0.3]))
    save_set(lists, tmp_path, 2)
    read = load_set(tmp_path, 2)
    assert read is not None
    assert read.tensors().keys() == lists.tensors().keys()
    assert all(torch.equal(read.tensors()[name], value) for name, value in lists.tensors().items())
    part = lists.select(torch.tensor([2, 0]))
    assert len(part) == 2
    assert torch.equal(part.clean, lists.clean[[4, 5, 0, 1]])
    assert part.step is not None
    assert part.step.tolist() == [6, 4]
    save_set(None, tmp_path, 4)
    assert load_set(tmp_path, 4) is None
    forget_sets(tmp_path, 4)
    with pytest.raises(ParetuneError, match=r"set-00002.json is missing"):
        load_set(tmp_path, 2)


def test_winners_and_losers_are_watched_apart() -> None:
    r = torch.tensor([[-0.1, -0.4, -0.2], [0.0, 0.0, 0.0]])  # both errors have risen, the worst one's more
    score = torch.tensor([[3.0, 1.0, 2.0], [1.0, 2.0, 2.0]])
    found = watched(r, score)
    assert found == pytest.approx(
        {"accuracy": (1 + 0.5) / 2, "tau": 0.5, "w_diff": -0.05, "l_diff": -0.2, "margin": 0.6 / 6}
    )
    assert watched(r, torch.ones(2, 3)) == {}


def test_the_page_names_every_system() -> None:
    page = (Path(__file__).parents[2] / "docs" / "preferences.md").read_text()
    assert [name for name in (*PRESETS, "tree_grpo") if f"`{name}`" not in page] == []
