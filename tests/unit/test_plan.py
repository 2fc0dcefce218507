"""Plans: equal budgets, seeds that depend on names alone, plain data."""

import json

import pytest

from paretune.config import BaselinesConfig, RunConfig
from paretune.planning.methods import build_plan, mapreduce, morl_d, morl_dr, rewarded_soup, sequential
from paretune.planning.plan import ExpertTask, MethodPlan, derive_seed
from paretune.recipes import parse_config

LONG = BaselinesConfig(joint="long")


def config(rewards: str = "ab", rounds: int = 3, seed: int = 0) -> RunConfig:
    """Five epochs an expert (`a`: seven) of 2 x 4 samples and 2 updates."""
    own = {name: {"reward": "pictures.ocr", "prompts": "p", "eval_prompts": "q"} for name in rewards}
    if "a" in own:
        own["a"]["epochs"] = 7
    train = {"epochs": 5, "prompts_per_epoch": 2, "group_size": 4, "updates_per_epoch": 2}
    return parse_config({"rounds": rounds, "seed": seed, "train": train, "rewards": own}, "test")


def tasks(method: MethodPlan) -> dict[tuple[int, str], ExpertTask]:
    return {(task.round, task.reward): task for r in method.rounds for task in r.tasks}


def test_samples_and_updates_of_mapreduce() -> None:
    method = mapreduce(config())
    assert method.samples == 3 * (7 + 5) * 8
    assert method.updates == 3 * (7 + 5) * 2


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_the_soup_has_the_budget_of_mapreduce(rounds: int) -> None:
    both, soup = mapreduce(config(rounds=rounds)), rewarded_soup(config(rounds=rounds))
    assert (soup.samples, soup.updates) == (both.samples, both.updates)


def test_each_round_trains_on_all_the_averages_before_it() -> None:
    method = mapreduce(config())
    assert [r.merged for r in method.rounds] == ["round-1/merged", "round-2/merged", "round-3/merged"]
    assert tasks(method)[3, "b"] == ExpertTask(
        folder="round-3/experts/b",
        rewards=("b",),
        round=3,
        seed=derive_seed(0, "round", 3, "b"),
        epochs=5,
        parents=("round-1/merged", "round-2/merged"),
    )
    assert tasks(method)[1, "b"].parents == ()


def test_every_expert_has_a_seed_and_a_folder_of_its_own() -> None:
    found = tasks(mapreduce(config("abc", rounds=4))).values()
    assert len({task.seed for task in found}) == 12
    assert len({task.folder for task in found}) == 12


def test_another_run_seed_changes_every_expert() -> None:
    one, other = tasks(mapreduce(config(seed=0))), tasks(mapreduce(config(seed=1)))
    assert all(one[key].seed != other[key].seed for key in one)


def test_adding_a_reward_changes_no_other_expert() -> None:
    for method in (mapreduce, rewarded_soup):
        few, more = tasks(method(config("ab"))), tasks(method(config("cab")))
        assert {key: more[key] for key in few} == few


def test_adding_a_round_changes_no_earlier_one() -> None:
    few, more = tasks(mapreduce(config(rounds=2))), tasks(mapreduce(config(rounds=3)))
    assert {key: more[key] for key in few} == few


def test_the_soup_goes_on_with_the_first_round() -> None:
    first, soup = tasks(mapreduce(config())), tasks(rewarded_soup(config()))
    assert set(soup) == {(1, "a"), (1, "b")}
    for key, task in soup.items():
        assert task.continues == first[key].folder
        assert task.seed == first[key].seed
        assert task.epochs == 3 * first[key].epochs
        assert task.parents == ()


def test_at_one_round_the_soup_is_mapreduce() -> None:
    first, soup = tasks(mapreduce(config(rounds=1))), tasks(rewarded_soup(config(rounds=1)))
    for key, task in soup.items():
        assert (task.seed, task.epochs, task.parents) == (
            first[key].seed, first[key].epochs, first[key].parents
        )  # fmt: skip


def test_a_plan_is_plain_data() -> None:
    plan = build_plan(config())
    again = json.loads(json.dumps(plan.to_json()))
    assert [m["name"] for m in again["methods"]] == ["mapreduce", "rewarded_soup"]
    assert again["methods"][0]["rounds"][1]["tasks"][0]["parents"] == ["round-1/merged"]
    assert again["methods"][1]["rounds"][0]["tasks"][1]["continues"] == "round-1/experts/b"


def test_seeds_are_the_same_on_every_machine() -> None:
    """The first 8 bytes of sha256("0/round/1/ocr"), halved."""
    assert derive_seed(0, "round", 1, "ocr") == 1176388423765183101
    assert derive_seed("a", "b") != derive_seed("b", "a")
    assert all(0 <= derive_seed(i) < 2**63 for i in range(100))


ALL = ("mapreduce", "rewarded_soup", "morl_d", "morl_dr", "sequential", "selma")


def test_every_method_has_the_same_budget() -> None:
    made = config("abc", rounds=4).model_copy(update={"methods": ALL, "baselines": LONG})
    plan = build_plan(made)
    assert [m.name for m in plan.methods] == list(ALL)
    assert {(m.samples, m.updates) for m in plan.methods} == {(4 * 17 * 8, 4 * 17 * 2)}
    folders = [task.folder for m in plan.methods for r in m.rounds for task in r.tasks]
    assert len(set(folders)) == len(folders)


def test_the_joint_methods_are_one_expert_of_all_rewards() -> None:
    for method, scoring in ((morl_d, "own"), (morl_dr, "all")):
        long = config("abc").model_copy(update={"baselines": LONG})
        (task,) = (t for r in method(long).rounds for t in r.tasks)
        assert (task.rewards, task.scoring, task.reward) == (("a", "b", "c"), scoring, "joint")
        assert task.epochs == 3 * (7 + 5 + 5)


def test_a_joint_policy_is_trained_as_the_same_devices_would_train_it() -> None:
    """N times the batch and as many updates as an expert; experts of 7, 5 and 5 epochs count as 17 / 3."""
    even = config("bcd", rounds=4).model_copy(update={"methods": ALL})
    plans = {m.name: m for m in build_plan(even).methods}
    (task,) = plans["morl_dr"].rounds[0].tasks
    assert (task.epochs, task.width) == (4 * 5, 3)
    assert plans["morl_dr"].samples == plans["morl_d"].samples == plans["mapreduce"].samples
    assert 3 * plans["morl_dr"].updates == plans["mapreduce"].updates
    assert plans["morl_dr"].scores == 3 * plans["morl_d"].scores
    (uneven,) = morl_dr(config("abc", rounds=2)).rounds[0].tasks
    assert uneven.epochs == 12  # 2 (7 + 5 + 5) / 3, rounded up


def test_sequential_goes_on_with_one_adapter() -> None:
    method = sequential(config("abc"))
    chain = [r.tasks[0] for r in method.rounds]
    assert [t.epochs for t in chain] == [21, 36, 51]
    assert [t.continues for t in chain] == [None, chain[0].folder, chain[1].folder]
    assert [t.rate_epochs for t in chain] == [(0, 21), (21, 36), (36, 51)]
    assert method.model == ("sequential/merged-3",)


def test_the_learning_rate_falls_over_all_rounds_as_over_the_soup() -> None:
    falling = parse_config(config().model_dump() | {"train": {"lr_scheduler": "linear"}}, "test")
    spans = [[(t.epochs, *t.rate_epochs) for t in r.tasks] for r in mapreduce(falling).rounds]
    soups = tasks(rewarded_soup(falling))
    for rounds, soup in zip(zip(*spans, strict=True), soups.values(), strict=True):
        epochs, whole = rounds[0][0], soup.rate_epochs[1]
        assert (*soup.rate_epochs, soup.epochs) == (0, whole, len(rounds) * epochs)
        # round k's first epoch is epoch (k - 1) E of K E, and so it lies before round k began
        assert list(rounds) == [(epochs, -k * epochs, whole - k * epochs) for k in range(len(rounds))]
    assert {task.continues for task in soups.values()} == {f"round-1/experts/{r}" for r in falling.rewards}


@pytest.mark.parametrize("methods", [("rewarded_soup",), ("rewarded_soup", "mapreduce")])
def test_a_soup_without_mapreduce_before_it_trains_its_own_experts(methods: tuple[str, ...]) -> None:
    alone = config().model_copy(update={"methods": methods})
    assert {task.continues for task in tasks(rewarded_soup(alone)).values()} == {None}


def test_the_recipe_s_reducer_is_mapreduce_s_alone() -> None:
    changed = parse_config(config().model_dump() | {"reduce": {"method": "factor"}}, "test")
    assert {r.reduce for r in mapreduce(changed).rounds} == {"factor"}
    assert {r.reduce for r in rewarded_soup(changed).rounds} == {"exact"}
