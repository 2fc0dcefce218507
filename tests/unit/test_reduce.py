"""Reduce on hand-made experts: every method's numbers, what a round hands to the next, resume."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from paretune.adapters.store import WEIGHTS, load_delta, save_delta
from paretune.config import RunConfig
from paretune.models.lora import fold, folded
from paretune.ops.lowrank import LowRank
from paretune.ops.merging import REDUCERS
from paretune.planning.methods import mapreduce, rewarded_soup
from paretune.planning.plan import derive_seed
from paretune.recipes import parse_config
from paretune.stages.reduce import reduce_round, write_final
from paretune.types import ParetuneError

Rows = list[list[float]]
# Two experts that change different entries: orthogonal, of norms 1 and 2.
ONE: Rows = [[1.0, 0.0], [0.0, 0.0]]
TWO: Rows = [[0.0, 0.0], [0.0, 2.0]]


def config_of(rewards: int = 2, **reduce: Any) -> RunConfig:
    own = {"reward": "pictures.ocr", "prompts": "p", "eval_prompts": "q"}
    return parse_config({"reduce": reduce, "rewards": {"abc"[i]: dict(own) for i in range(rewards)}}, "test")


class Experts:
    """The rounds of a run whose experts are written by hand, as the module `m` alone."""

    def __init__(self, run: Path, **reduce: Any) -> None:
        self.run, self.config = run, config_of(**reduce)
        self.rounds = mapreduce(self.config).rounds

    def write(self, number: int, *changes: Rows | LowRank) -> None:
        for task, change in zip(self.rounds[number - 1].tasks, changes, strict=True):
            delta = change if isinstance(change, LowRank) else matrix(change)
            save_delta(self.run / task.folder, {"m": delta}, "base", {})

    def reduce(self, number: int = 1, **options: Any) -> torch.Tensor:
        """Reduce a round; the merged change, dense."""
        previous = self.folder(number - 1) if number > 1 else None
        reduce_round(self.config, self.rounds[number - 1], self.run, previous, **options)
        return load_delta([self.folder(number)])["m"].dense()

    def folder(self, number: int = 1) -> Path:
        return self.run / self.rounds[number - 1].merged

    def facts(self, number: int = 1, name: str = "diagnostics.json") -> Any:
        return json.loads((self.folder(number) / name).read_text())


def matrix(rows: Rows) -> LowRank:
    dense = torch.tensor(rows)
    return LowRank(dense, torch.eye(dense.shape[1]))


def noise(seed: int, rows: int = 12, columns: int = 10, rank: int = 2) -> LowRank:
    g = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(rows, rank, generator=g), torch.randn(rank, columns, generator=g))


def merged(run: Path, *changes: Rows | LowRank, **reduce: Any) -> torch.Tensor:
    """One round of a fresh run."""
    experts = Experts(run, rewards=len(changes), **reduce)
    experts.write(1, *changes)
    return experts.reduce()


# Options under which a method is the plain mean; the others have tests of their own.
MEANS = {
    "exact": {}, "compressed": {"rank": 2}, "factor": {}, "dare": {"options": {"density": 1}},
    "dare-q": {"options": {"density": 1}},
    "nesterov": {"options": {"momentum": 0, "outer_lr": 1}},
}  # fmt: skip


def test_every_method_is_tried_here() -> None:
    assert set(REDUCERS) == {*MEANS, "ties", "min-norm", "search", "slerp", "distil"}


@pytest.mark.parametrize("method", MEANS)
def test_a_method_that_is_the_mean(tmp_path: Path, method: str) -> None:
    found = merged(tmp_path, ONE, TWO, method=method, **MEANS[method])
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.0], [0.0, 1.0]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("cut", [{"rank": 1}, {"energy": 0.8}])
def test_compressed_keeps_the_greater_of_two(tmp_path: Path, cut: dict[str, float]) -> None:
    """The mean's singular values are 1 and 0.5: the first alone holds 1 / 1.25 of the energy."""
    experts = Experts(tmp_path, method="compressed", **cut)
    experts.write(1, ONE, TWO)
    torch.testing.assert_close(experts.reduce(), torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    assert load_delta([experts.folder()])["m"].rank == 1
    assert experts.facts()["compression_error"] == pytest.approx(0.2**0.5)


def test_factor_misses_the_mean_by_the_covariance(tmp_path: Path) -> None:
    """Rank 1: B = 2 and 4, A = 1 and 3. Factors average to 3 · 2 = 6, the changes to (2 + 12) / 2 = 7."""
    ones = [LowRank(torch.tensor([[b]]), torch.tensor([[a]])) for b, a in ((2.0, 1.0), (4.0, 3.0))]
    assert merged(tmp_path, *ones, method="factor").tolist() == [[6.0]]


def test_ties_on_literal_numbers(tmp_path: Path) -> None:
    """Top half of each: (5, -4) and (-3, 6); + - + are elected. See test_merging."""
    one, two = [[5.0, -4.0, 1.0, 0.5]], [[-3.0, 1.0, 0.5, 6.0]]
    found = merged(tmp_path, one, two, method="ties", options={"density": "0.5"})
    assert found.tolist() == [[5.0, -4.0, 0.0, 6.0]]


@pytest.mark.parametrize("method", ["dare", "dare-q"])
def test_masks_differ_by_run_and_by_round(tmp_path: Path, method: str) -> None:
    one, two = noise(1), noise(2)

    def masks(folder: str, seed: int = 0) -> list[torch.Tensor]:
        experts = Experts(tmp_path / folder, method=method, options={"density": 0.5})
        experts.config = experts.config.model_copy(update={"seed": seed})
        for number in (1, 2):
            experts.write(number, one, two)
        return [experts.reduce(1) != 0, experts.reduce(2) != 0]

    first, second = masks("run")
    assert 0.5 < float(first.float().mean()) < 0.95  # 3/4 of the entries are in one mask or both
    assert bool((first != second).any())
    assert bool((masks("other", seed=1)[0] != first).any())
    again = masks("again")
    assert bool((again[0] == first).all())
    assert bool((again[1] == second).all())


def test_a_seed_of_the_recipe_is_used_as_it_is(tmp_path: Path) -> None:
    derived = merged(tmp_path / "a", noise(1), noise(2), method="dare")
    seed = derive_seed(0, "reduce", 1)
    given = merged(tmp_path / "b", noise(1), noise(2), method="dare", options={"seed": seed})
    other = merged(tmp_path / "c", noise(1), noise(2), method="dare", options={"seed": 3})
    assert torch.equal(derived, given)
    assert not torch.equal(derived, other)


def test_dare_q_rescales_by_q(tmp_path: Path) -> None:
    """All entries are kept and divided by q = 0.5."""
    found = merged(tmp_path, ONE, TWO, method="dare-q", options={"density": 1, "q": 0.5})
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0], [0.0, 2.0]]))


def test_min_norm_balances_two_orthogonal_experts(tmp_path: Path) -> None:
    """Norms 1 and 2: weights 2/3 and 1/3, both parts of the sum 2/3 long. They are written down."""
    experts = Experts(tmp_path, method="min-norm")
    experts.write(1, ONE, TWO)
    torch.testing.assert_close(experts.reduce(), torch.tensor([[2 / 3, 0.0], [0.0, 2 / 3]]))
    for name in ("diagnostics.json", "manifest.json"):
        assert experts.facts(name=name)["weights"] == pytest.approx([2 / 3, 1 / 3])
    # The spread is about the mean that was used: ‖ΔW_2 - merged‖ = ‖(2/3, 4/3)‖.
    assert experts.facts()["spread"] == pytest.approx((4 / 9 + 16 / 9) ** 0.5)


class TestNesterov:
    """η((1 + μ) ΔW̄_k + μ² M_{k-1}), M handed from round to round in the folder."""

    @pytest.fixture
    def experts(self, tmp_path: Path) -> Experts:
        experts = Experts(tmp_path, method="nesterov", options={"momentum": 0.5, "outer_lr": 0.8})
        experts.write(1, ONE, ONE)
        experts.write(2, TWO, TWO)
        experts.write(3, ONE, ONE)
        return experts

    def test_three_rounds(self, experts: Experts) -> None:
        first, second = torch.tensor(ONE), torch.tensor(TWO)
        torch.testing.assert_close(experts.reduce(1), 0.8 * 1.5 * first)
        torch.testing.assert_close(experts.reduce(2), 0.8 * (1.5 * second + 0.25 * first))
        # M_2 = ½ M_1 + ΔW̄_2, and round 3 reads that one alone.
        state = load_delta([experts.folder(2) / "momentum"])["m"].dense()
        torch.testing.assert_close(state, 0.5 * first + second)
        torch.testing.assert_close(experts.reduce(3), 0.8 * (1.5 * first + 0.25 * state))

    def test_the_momentum_is_one_of_the_folders_files(self, experts: Experts) -> None:
        experts.reduce(1)
        assert f"momentum/{WEIGHTS}" in experts.facts(1, "manifest.json")["files"]
        victim = experts.folder(1) / "momentum" / WEIGHTS
        victim.write_bytes(victim.read_bytes()[:-1] + b"!")
        with pytest.raises(ParetuneError, match=r"momentum/adapter_model\.safetensors was changed"):
            experts.reduce(1)

    def test_another_momentum_is_another_input(self, experts: Experts) -> None:
        experts.reduce(1)
        experts.reduce(2)
        save_delta(experts.folder(1) / "momentum", {"m": matrix(TWO)}, "base", {})
        with pytest.raises(ParetuneError, match="made from other inputs"):
            experts.reduce(2)

    def test_a_round_done_again_gives_the_same_bits(self, experts: Experts) -> None:
        experts.reduce(1)
        experts.reduce(2)
        names = (WEIGHTS, f"momentum/{WEIGHTS}")
        before = [(experts.folder(2) / name).read_bytes() for name in names]
        (experts.folder(2) / "manifest.json").unlink()  # as a kill before the last write leaves it
        experts.reduce(2)
        assert [(experts.folder(2) / name).read_bytes() for name in names] == before

    def test_other_methods_leave_none(self, tmp_path: Path) -> None:
        merged(tmp_path / "exact", ONE, TWO)
        assert not list((tmp_path / "exact").rglob("momentum"))


class TestSearch:
    """The lattice's best point, by a value that is made up."""

    @staticmethod
    def prefer(candidates: Sequence[tuple[float, ...]]) -> list[float]:
        return [-abs(first - 0.25) for first, _ in candidates]

    @pytest.fixture
    def experts(self, tmp_path: Path) -> Experts:
        experts = Experts(tmp_path, method="search", options={"divisions": 4})
        experts.write(1, ONE, TWO)
        return experts

    def test_the_best_candidate_is_merged_and_all_are_written_down(self, experts: Experts) -> None:
        found = experts.reduce(evaluate=self.prefer)
        torch.testing.assert_close(found, torch.tensor([[0.25, 0.0], [0.0, 1.5]]))
        assert experts.facts()["weights"] == [0.25, 0.75]
        assert experts.facts(name="manifest.json")["weights"] == [0.25, 0.75]
        assert experts.facts()["search"] == [
            {"weights": [1.0, 0.0], "value": -0.75},
            {"weights": [0.75, 0.25], "value": -0.5},
            {"weights": [0.5, 0.5], "value": -0.25},
            {"weights": [0.25, 0.75], "value": 0.0},
            {"weights": [0.0, 1.0], "value": -0.25},
        ]

    def test_a_finished_round_asks_nothing(self, experts: Experts) -> None:
        asked: list[int] = []

        def counted(candidates: list[tuple[float, ...]]) -> list[float]:
            asked.append(len(candidates))
            return self.prefer(candidates)

        first = experts.reduce(evaluate=counted)
        again = experts.reduce(evaluate=counted)
        assert asked == [5]
        assert torch.equal(first, again)

    def test_a_value_that_is_no_number_is_one_line(self, experts: Experts) -> None:
        with pytest.raises(ParetuneError, match="is not a number") as caught:
            experts.reduce(evaluate=lambda candidates: [float("nan")] * len(candidates))
        assert "\n" not in str(caught.value)
        with pytest.raises(ParetuneError, match="search needs evaluate"):
            experts.reduce()


@pytest.mark.parametrize("method", ["ties", "dare", "dare-q"])
def test_full_rank_averages_fold_and_sum_exactly(tmp_path: Path, method: str) -> None:
    """Their factors have rank min(m, n) = 10, two rounds 20; nothing may be lost of that."""
    experts = Experts(tmp_path, method=method)
    experts.write(1, noise(1), noise(2))
    experts.write(2, noise(3), noise(4))
    dense = [experts.reduce(1), experts.reduce(2)]
    assert load_delta([experts.folder(1)])["m"].rank == 10
    write_final(experts.config, [experts.folder(1), experts.folder(2)], tmp_path / "final")
    final = load_delta([tmp_path / "final"])
    torch.testing.assert_close(final["m"].dense(), dense[0] + dense[1], atol=1e-6, rtol=1e-6)
    model = torch.nn.Module()
    model.m = torch.nn.Linear(10, 12)
    before = model.m.weight.detach().clone()
    with folded(model, final):
        torch.testing.assert_close(model.m.weight.detach(), before + dense[0] + dense[1])
    assert torch.equal(model.m.weight, before)
    fold(model, final)
    torch.testing.assert_close(model.m.weight.detach() - before, dense[0] + dense[1], atol=1e-5, rtol=1e-5)


def test_any_method_may_be_cut(tmp_path: Path) -> None:
    experts = Experts(tmp_path, method="ties", rank=3)
    experts.write(1, noise(1), noise(2))
    experts.reduce()
    assert load_delta([experts.folder()])["m"].rank == 3


def test_the_soup_is_the_mean_whatever_the_recipe_says(tmp_path: Path) -> None:
    config = config_of(method="ties", rank=1, options={"density": 0.1})
    (round_,) = rewarded_soup(config).rounds
    for task, change in zip(round_.tasks, (ONE, TWO), strict=True):
        save_delta(tmp_path / task.folder, {"m": matrix(change)}, "base", {})
    reduce_round(config, round_, tmp_path, None)
    found = load_delta([tmp_path / "soup" / "merged"])["m"].dense()
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.0], [0.0, 1.0]]))


def test_final_is_cut_to_a_rank_and_states_what_that_loses(tmp_path: Path) -> None:
    """diag(1, 2) cut to rank 1 keeps the 2: an error of 1 / sqrt(5)."""
    save_delta(tmp_path / "merged", {"m": matrix([[1.0, 0.0], [0.0, 2.0]])}, "base", {})
    write_final(config_of(final_rank=1), [tmp_path / "merged"], tmp_path / "final")
    kept = load_delta([tmp_path / "final"])["m"]
    assert kept.rank == 1
    assert torch.allclose(kept.dense(), torch.tensor([[0.0, 0.0], [0.0, 2.0]]), atol=1e-6)
    manifest = json.loads((tmp_path / "final" / "manifest.json").read_text())
    assert manifest["compression_error"] == pytest.approx(5**-0.5)
    assert manifest["rank"] == 1
