"""Recipes: what is read, what is refused and in which words."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from paretune.config import RunConfig
from paretune.ops.merging import REDUCERS
from paretune.recipes import changed_keys, count_keys, find_recipe, load_config, parse_config, shipped_recipes
from paretune.training.objectives.settings import needs_whole_batches
from paretune.types import ParetuneError

REWARD = {"reward": "pictures.ocr", "prompts": "a.txt", "eval_prompts": "b.txt"}


def raw(**sections: Any) -> dict[str, Any]:
    """The shortest recipe, and some more keys."""
    return {"rewards": {"ocr": dict(REWARD)}, **sections}


def uneven(method: str) -> dict[str, Any]:
    """A recipe of two rewards, one of which weighs twice as much."""
    return {"reduce": {"method": method}, "rewards": {"a": REWARD, "b": {**REWARD, "weight": 2}}}


def refusal(recipe: dict[str, Any]) -> str:
    """The one line that refuses a recipe."""
    with pytest.raises(ParetuneError) as caught:
        parse_config(recipe, "mine.yaml")
    (line,) = str(caught.value).splitlines()
    return line


def window(steps: list[int]) -> dict[str, Any]:
    return {"objective": {"name": "flow_grpo", "options": {"window": steps}}}


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_loads_under_its_own_name(name: str) -> None:
    assert load_config(find_recipe(name)).name == name


def test_the_recipes_that_make_runs_ship() -> None:
    assert {"quickstart", "smoke"} <= set(shipped_recipes())


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(ParetuneError, match=r"no recipe quikstart; .*quickstart"):
        find_recipe("quikstart")


def test_at_most_96_keys() -> None:
    """A key of every section, of one reward, and of the run itself; spelled out, they are as many."""
    spelled = parse_config(raw(tokens={}, stop_when={"kl": 1}), "x").model_dump()
    sections = [v for k, v in spelled.items() if isinstance(v, dict) and k != "rewards"]
    own = len(spelled) - len(sections)
    assert count_keys() == own + sum(map(len, sections)) + len(spelled["rewards"]["ocr"])
    # 79 until a run could leave one device. Since then: eight keys for where and how experts run (executor,
    # trackers, samples_every), train.decay, three of a reward (head, normalise, and
    # learning_rate: at the rate of one objective another breaks), and the five of stop_when.
    assert count_keys() <= 96


def test_tokens_are_off_unless_the_section_is_there() -> None:
    assert parse_config(raw(), "x").tokens is None
    on = parse_config(raw(tokens={"options": {"patience": 2}}), "x").tokens
    assert on is not None
    assert (on.loss, on.options.patience) == ("flow", 2)
    with pytest.raises(ParetuneError, match="tokens are trained from experts"):
        parse_config(raw(tokens={}, methods=["morl_d"]), "x")
    with pytest.raises(ParetuneError, match=r"unknown key tokens.stepz; did you mean steps"):
        parse_config(raw(tokens={"stepz": 3}), "x")
    with pytest.raises(ParetuneError, match=r"unknown key tokens.options.patiense; did you mean patience"):
        parse_config(raw(tokens={"options": {"patiense": 3}}), "x")


def test_a_token_of_each_reward_may_start_at_words_of_its_own() -> None:
    made = parse_config(raw(tokens={"options": {"init": {"ocr": "ok"}}}), "x").tokens
    assert made is not None
    assert (made.options.words_of("ocr"), made.options.words_of("other")) == ("ok", "")
    made = parse_config(raw(tokens={"options": {"init": "ok"}}), "x").tokens
    assert made is not None
    assert made.options.words_of("other") == "ok"
    with pytest.raises(ParetuneError, match=r"tokens.options.init: there is no reward ocrr; there are ocr"):
        parse_config(raw(tokens={"options": {"init": {"ocrr": "ok"}}}), "x")
    for wrong, told in ((3, "start is words.*not 3"), ({"ocr": False}, "start of ocr is words.*not False")):
        with pytest.raises(ParetuneError, match=rf"tokens.options.init: the {told}"):
            parse_config(raw(tokens={"options": {"init": wrong}}), "x")
    with pytest.raises(ParetuneError, match=r"blanks alone are no word"):
        parse_config(raw(tokens={"options": {"init": " "}}), "x")


def test_set_opens_a_section_that_a_resolved_recipe_leaves_null(tmp_path: Path) -> None:
    path = write(tmp_path, parse_config(raw(), "x").to_yaml())
    tokens = load_config(path, ["tokens.steps=7", "tokens.options.init=here"]).tokens
    assert tokens is not None
    assert (tokens.steps, tokens.options.init) == (7, "here")


def test_set_reaches_a_reward_whose_name_has_dots(tmp_path: Path) -> None:
    own = raw()
    own["rewards"] = {"a.v2": own["rewards"]["ocr"], "a": own["rewards"]["ocr"]}
    path = write(tmp_path, yaml.safe_dump(own))
    made = load_config(path, ["rewards.a.v2.weight=3", "rewards.a.weight=2", "rewards.a.v2.epochs=5"])
    assert (made.rewards["a.v2"].weight, made.rewards["a"].weight, made.rewards["a.v2"].epochs) == (3, 2, 5)


def test_set_overrides_keys_in_sections(tmp_path: Path) -> None:
    path = write(tmp_path, yaml.safe_dump(raw(train={"epochs": 9, "group_size": 4})))
    config = load_config(path, ["train.epochs=4", "rewards.ocr.weight=2.5", "objective.options.times=3"])
    assert (config.train.epochs, config.train.group_size) == (4, 4)
    assert config.rewards["ocr"].weight == 2.5
    assert config.objective.options["times"] == 3


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("train.epochs", "--set wants key=value, not 'train.epochs'"),
        ("=3", "--set wants key=value, not '=3'"),
        ("rounds.more=3", "--set rounds.more=3: rounds is a value, not a section"),
        ("rounds=[1", "--set rounds=[1: the value is not YAML"),
        ("train.epoch=3", "unknown key train.epoch; did you mean epochs?"),
        ("train.epochs=many", "train.epochs: Input should be a valid integer"),
    ],
)
def test_a_bad_set_is_one_line(tmp_path: Path, item: str, told: str) -> None:
    path = write(tmp_path, yaml.safe_dump(raw(rounds=2)))
    with pytest.raises(ParetuneError) as caught:
        load_config(path, [item])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (raw(round=3), "unknown key round; did you mean rounds?"),
        (raw(zzz=3), "unknown key zzz; known: name, seed, methods"),
        (raw(train={"epochz": 3}), "unknown key train.epochz; did you mean epochs?"),
        ({"rewards": {"ocr": {**REWARD, "wieght": 1}}}, "rewards.ocr.wieght; did you mean weight?"),
        ({"rewards": {"ocr": {"reward": "a.py:F", "prompts": "a"}}}, "rewards.ocr.eval_prompts is missing"),
        ({"rewards": {"ocr": {**REWARD, "weight": -1}}}, "rewards.ocr.weight: Input should be greater"),
        ({"rewards": {"ocr": {**REWARD, "weight": 0}}}, "the weights of the rewards are all zero"),
        ({"rewards": {"a/../b": REWARD}}, "rewards.a/../b"),
        ({"rewards": {"..": REWARD}}, "rewards..."),
        ({"rewards": {}}, "rewards is empty: name at least one reward"),
        ({"rewards": None}, "rewards: Input should be a valid dictionary"),
        ({}, "the key rewards is missing"),
        (raw(train={"group_size": 1}), "train.group_size: Input should be greater than or equal to 2"),
        (raw(train={"updates_per_epoch": 999}), "train: updates_per_epoch is more than prompts_per_epoch"),
        (raw(model={"steps": 4}, **window([0, 4])), "options.window must end by model.steps - 1 = 3"),
        (raw(**window([2, 2])), "objective.options: window must be [first, last)"),
        (raw(**window([-1, 2])), "objective.options: window must be [first, last)"),
        (raw(methods=["selma", "selma"]), "methods names the same method twice"),
        (raw(methods=["soup"]), "methods.0: Input should be 'mapreduce', 'rewarded_soup'"),
        (raw(reduce={"method": "compressed"}), "reduce: method: compressed needs a rank or an energy"),
        (raw(reduce={"rank": 4}), "rank and energy go with method: compressed"),
        (raw(reduce={"energy": 0.9}), "rank and energy go with method: compressed"),
        (raw(reduce={"method": "ties", "energy": 0.9, "rank": 4}), "reduce: give either rank or energy"),
        (raw(reduce={"method": "compressed", "energy": 1.5}), "reduce.energy: Input should be less"),
        (raw(reduce={"method": "tie"}), "reduce.method: unknown merge method tie; there are exact, "),
        (raw(reduce={"method": "tie"}), "distil (did you mean ties?)"),
        (
            raw(reduce={"method": "ties", "options": {"densty": 1}}),
            "reduce.options: the method ties has no option densty; it takes: density (did you mean density?)",
        ),
        (raw(reduce={"options": {"density": 1}}), "the method exact has no option density; it takes: none"),
        (raw(reduce={"method": "nesterov", "options": {"state": "x"}}), "it takes: momentum, outer_lr"),
        (raw(reduce={"method": "search", "options": {"evaluate": 1}}), "it takes: divisions, prompts"),
        (raw(reduce={"method": "tie", "options": {"densty": 1}}), "unknown merge method tie"),
        (raw(reduce={"method": "ties", "options": [1]}), "reduce.options: Input should be a valid dict"),
        (uneven("min-norm"), "reduce.method: min-norm finds the weights itself; leave those of the rewards"),
        (uneven("search"), "reduce.method: search finds the weights itself"),
        (raw(rounds=0), "rounds: Input should be greater than 0 (got 0)"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(recipe: dict[str, Any], told: str) -> None:
    line = refusal(recipe)
    assert line.startswith("mine.yaml: ")
    assert told in line


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("ties", "density", 0), ("dare", "density", 1.1), ("dare-q", "q", -1), ("dare", "seed", 0.5),
        ("dare", "seed", -1), ("nesterov", "momentum", 1), ("nesterov", "outer_lr", 0),
        ("nesterov", "outer_lr", float("inf")), ("search", "divisions", 0), ("search", "prompts", "2.5"),
        ("ties", "density", float("nan")), ("ties", "density", True), ("ties", "density", None),
        ("ties", "density", "much"), ("dare", "seed", float("inf")), ("dare", "seed", 10**400),
    ],
)  # fmt: skip
def test_an_option_of_a_reducer_out_of_range(method: str, name: str, value: Any) -> None:
    line = refusal(raw(reduce={"method": method, "options": {name: value}}))
    assert f"reduce.options: {name} {value} cannot be used; it " in line


def test_options_of_a_reducer_are_read_as_numbers() -> None:
    """YAML takes 5e-1 for text."""
    options = yaml.safe_load("{density: 5e-1, seed: 3, q: 1}")
    config = parse_config(raw(reduce={"method": "dare-q", "options": options}), "x")
    assert config.reduce.options == {"density": 0.5, "seed": 3, "q": 1.0}


@pytest.mark.parametrize("method", sorted(set(REDUCERS) - {"exact"}))
def test_every_reducer_may_be_named_and_cut(method: str) -> None:
    config = parse_config(raw(reduce={"method": method, "energy": 0.9}), "x")
    assert (config.reduce.method, config.reduce.energy) == (method, 0.9)


def test_the_widest_window_is_taken() -> None:
    config = parse_config(raw(model={"steps": 4}, **window([0, 3])), "x")
    assert config.objective.options["window"] == [0, 3]


REALS = [
    "model.guidance_scale", "lora.alpha", "objective.kl", "objective.advantage_clip",
    "objective.options.beta", "objective.options.old_decay", "objective.options.time_shift",
    "train.learning_rate", "train.weight_decay", "train.max_grad_norm", "train.ema_decay",
    "rewards.ocr.weight", "rewards.ocr.kl", "evaluate.guidance_scale", "reduce.energy",
    "executor.reward_timeout",
]  # fmt: skip


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize("key", REALS)
def test_not_a_number_is_refused_everywhere(tmp_path: Path, key: str, value: str) -> None:
    path = write(tmp_path, yaml.safe_dump(raw()))
    with pytest.raises(ParetuneError, match=key):
        load_config(path, [f"{key}={value}"])


@pytest.mark.parametrize(
    ("text", "told"),
    [("a: [1", "cannot be read as a YAML recipe"), ("- a", "must be a mapping"), ("", "must be a mapping")],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ParetuneError) as caught:
        load_config(write(tmp_path, text))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ParetuneError, match="no recipe at"):
        load_config(tmp_path / "none.yaml")


def test_weights_are_normalised() -> None:
    rewards = {"a": {**REWARD, "weight": 3}, "b": {**REWARD, "weight": 1}, "c": {**REWARD, "weight": 0}}
    assert parse_config({"rewards": rewards}, "x").weights() == {"a": 0.75, "b": 0.25, "c": 0.0}


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_the_resolved_recipe_reads_back_equal(name: str) -> None:
    config = load_config(find_recipe(name), ["objective.advantage_clip=4", "rewards.mine.reward=a.py:F",
                                             "rewards.mine.prompts=p", "rewards.mine.eval_prompts=q",
                                             "rewards.mine.options={deep: {x: [1, 2]}}"])  # fmt: skip
    again = parse_config(yaml.safe_load(config.to_yaml()), "again")
    assert again == config
    assert changed_keys(config, again) == []


def test_changed_keys_are_named_in_full() -> None:
    old = parse_config(raw(), "x")
    new = parse_config(
        {**raw(seed=3, train={"epochs": 99}), "rewards": {"ocr": {**REWARD, "options": {"a": 1}}}}, "x"
    )
    assert changed_keys(old, new) == ["rewards.ocr.options", "rewards.ocr.options.a", "seed", "train.epochs"]


def test_keys_that_cannot_change_a_result_may_change() -> None:
    old, new = parse_config(raw(), "x"), parse_config(raw(name="other", executor={"workers": 1}), "x")
    assert changed_keys(old, new) == []


def test_what_changes_only_rounding_may_change() -> None:
    less = raw(train={"micro_batch": 2}, model={"gradient_checkpointing": True})
    old, new = parse_config(raw(), "x"), parse_config(less, "x")
    assert changed_keys(old, new) == []
    assert new.without_rounding() == old
    kto = [parse_config({**r, "objective": {"name": "kto"}}, "x") for r in (raw(), less)]
    assert changed_keys(*kto) == ["train.micro_batch"]  # its loss looks at a whole micro-batch
    assert kto[1].without_rounding(needs_whole_batches(kto[1].objective)).train.micro_batch == 2


def test_a_config_is_frozen() -> None:
    config: RunConfig = parse_config(raw(), "x")
    with pytest.raises(ValueError, match="frozen"):
        config.train.epochs = 3


def test_a_window_may_say_how_many_of_its_steps_are_trained_on() -> None:
    model = {"steps": 16}
    config = parse_config(raw(model=model, **window([0, 15, 9])), "x")
    assert config.objective.options["window"] == [0, 15, 9]
    with pytest.raises(ParetuneError, match="window: 4 steps cannot be drawn of the 3 in it"):
        parse_config(raw(model=model, **window([1, 4, 4])), "x")
