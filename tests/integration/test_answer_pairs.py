"""`paretune pairs` on a tiny language model, and a run that learns from what it wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
import yaml

from paretune.adapters.store import load_delta, save_delta
from paretune.cli import app as cli
from paretune.cli.pair_summary import pair_lines
from paretune.cli.printing import now_and_then
from paretune.commands.answer_pairs.make import make_answer_pairs
from paretune.commands.answer_pairs.numbers import order_by_reference
from paretune.commands.answer_pairs.options import AnswerOptions, objective_for
from paretune.commands.guest_adapters import guest_changes
from paretune.commands.make_pairs import Drawing
from paretune.config import ModelConfig
from paretune.data.answer_forms import FORMS, Judging, Scored
from paretune.data.answer_lists import read_answers
from paretune.models.causal_lm.given_answers import given_answer, log_probs
from paretune.models.causal_lm.policy import CausalLMPolicy
from paretune.models.lora import folded
from paretune.ops.lowrank import LowRank
from paretune.recipes import load_config
from paretune.training.language.supervised import supervise
from paretune.training.trainers import check_objective
from paretune.types import ParetuneError, Prompt
from tests.conftest import tiny_recipe
from tests.language import language_recipe, make_llama

from .commands import call
from .test_text_encoder import TEXT, saved


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def recipe(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_recipe(tmp_path_factory.mktemp("answers"), tiny_llama)


def made(recipe: Path, out: Path, drawing: Drawing, **options: Any) -> list[dict[str, Any]]:
    make_answer_pairs(load_config(recipe), drawing, AnswerOptions(**options), out)
    return rows(out)


def opened(model: Path) -> CausalLMPolicy:
    return CausalLMPolicy(ModelConfig.model_validate({"path": str(model), "options": {"max_tokens": 6}}))


def adapter(folder: Path, base: str, seed: int, size: float = 0.5, layer: int = 0) -> str:
    """A LoRA on one layer of the tiny model."""
    generator = torch.Generator().manual_seed(seed)
    b, a = torch.randn(16, 2, generator=generator) * size, torch.randn(2, 16, generator=generator) * size
    folder.mkdir(parents=True)
    save_delta(folder, {f"model.layers.{layer}.self_attn.q_proj": LowRank(b, a)}, base, {}, None)
    return str(folder)


def test_lists_are_ordered_and_hold_every_score(recipe: Path, tmp_path: Path) -> None:
    found = made(recipe, tmp_path / "list.jsonl", Drawing("yes", 24, "list"))
    prompts = ["how do i clean the window", "fix the table", "tell me please"]
    assert [row["prompt"] for row in found] == prompts
    for row in found:
        scores = [answer["score"] for answer in row["answers"]]
        assert scores == sorted(scores, reverse=True)
        assert all(a["scores"].keys() == {"yes", "no"} for a in row["answers"])
        for a in row["answers"]:
            words = a["text"].split()
            assert a["scores"]["yes"] == pytest.approx(words.count("yes") / len(words), abs=1e-6)


def test_a_part_is_as_in_the_whole_and_wins_count_all_rewards(recipe: Path, tmp_path: Path) -> None:
    whole = made(recipe, tmp_path / "whole.jsonl", Drawing("yes", 24, "list"))
    assert made(recipe, tmp_path / "part.jsonl", Drawing("yes", 24, "list", limit=1)) == whole[:1]
    for row in made(recipe, tmp_path / "wins.jsonl", Drawing("yes", 24, "wins")):
        assert all(0 <= answer["score"] <= 1 for answer in row["answers"])


def test_other_models_answers_are_scored_and_keep_their_source(recipe: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.jsonl"
    theirs.write_text(
        '{"prompt": "fix the table", "text": "yes yes", "source": "larger"}\n'
        '{"prompt": "tell me please", "chosen": "yes", "rejected": "no"}\n'
    )
    found = made(recipe, tmp_path / "a.jsonl", Drawing("yes", 24, "extremes"), answers=theirs)
    best = {row["prompt"]: row["answers"][0] for row in found}
    assert (best["fix the table"]["text"], best["fix the table"]["source"]) == ("yes yes", "larger")
    assert best["tell me please"]["source"] == "theirs"
    pairs = made(recipe, tmp_path / "b.jsonl", Drawing("yes", 0, "given"), answers=theirs)
    assert [(row["chosen"], row["rejected"]) for row in pairs] == [("yes", "no")]
    turned = made(recipe, tmp_path / "t.jsonl", Drawing("no", 0, "given"), answers=theirs)
    assert [(row["chosen"], row["rejected"]) for row in turned] == [("yes", "no")]  # though this likes "no"
    summary = make_answer_pairs(load_config(recipe), Drawing("yes", 24, "given"),
                                AnswerOptions(answers=theirs), tmp_path / "c.jsonl")  # fmt: skip
    assert summary["sources"] == [{"larger": 1, "theirs": 1}, {"base": 2}]


def test_a_guide_writes_beta_times_its_log_ratio(recipe: Path, tiny_llama: Path, tmp_path: Path) -> None:
    guide = adapter(tmp_path / "guide", str(tiny_llama), 1)
    found = made(recipe, tmp_path / "g.jsonl", Drawing("yes", 24), guide=guide, guide_beta=0.5)
    policy = opened(tiny_llama)
    answer = found[0]["answers"][0]
    given = [given_answer(policy, found[0]["prompt"], [answer["text"]], answer["ends"])]
    (plain,) = log_probs(policy, given)
    with folded(policy.transformer, load_delta([Path(guide)])):
        (guided,) = log_probs(policy, given)
    assert answer["token_weights"] == pytest.approx((0.5 * (guided - plain)).tolist(), abs=1e-5)


def test_a_contrast_of_one_model_with_itself_is_its_probability(
    recipe: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    one = adapter(tmp_path / "one", str(tiny_llama), 1)
    (row, *_) = made(recipe, tmp_path / "c.jsonl", Drawing("yes", 24), contrast=(one, one))
    policy = opened(tiny_llama)
    answer = row["answers"][1]
    with folded(policy.transformer, load_delta([Path(one)])):
        (plain,) = log_probs(policy, [given_answer(policy, row["prompt"], [answer["text"]], answer["ends"])])
    assert answer["token_weights"] == pytest.approx(plain.exp().tolist(), abs=1e-5)
    assert len(row["tokenizer"]) == 16


def test_steps_like_the_best_answers_weigh_two(recipe: Path, tmp_path: Path) -> None:
    options = {"steps_like_best": True, "step_mark": " "}
    for row in made(recipe, tmp_path / "s.jsonl", Drawing("yes", 24, "list"), **options):
        best = row["answers"][0]
        assert best["step_weights"] == pytest.approx([2.0] * len(best["steps"]), abs=1e-5)
        for answer in row["answers"]:
            assert "".join(answer["steps"]) == answer["text"]
            assert len(answer["steps"]) == len(answer["step_weights"])
            assert all(-1e-5 <= weight <= 2 + 1e-5 for weight in answer["step_weights"])


def test_a_text_encoder_measures_the_drift(recipe: Path, tiny_llama: Path, tmp_path: Path) -> None:
    for row in made(recipe, tmp_path / "d.jsonl", Drawing("yes", 24), embed=str(tiny_llama)):
        assert 0 < row["drift"] < 2


def test_what_the_encoder_cannot_read_is_left_out_and_told(recipe: Path, tmp_path: Path) -> None:
    """An encoder of eight tokens reads every prompt, and one of the two better answers."""
    config = transformers.CLIPTextConfig(**{**TEXT, "max_position_embeddings": 8})
    saved(tmp_path / "encoder", transformers.CLIPTextModel, config)
    theirs = tmp_path / "theirs.jsonl"
    texts = {"fix the table": " ".join(["yes"] * 9), "tell me please": "yes"}
    theirs.write_text("".join(json.dumps({"prompt": p, "text": t}) + "\n" for p, t in texts.items()))
    options = AnswerOptions(answers=theirs, embed=str(tmp_path / "encoder"))
    loaded = load_config(recipe)
    told = make_answer_pairs(loaded, Drawing("yes", 8, "given"), options, tmp_path / "e.jsonl")
    (row,) = rows(tmp_path / "e.jsonl")
    assert (row["chosen"], 0 <= row["drift"] <= 2) == ("yes", True)
    first, second = told["notes"]
    assert first.startswith("--embed: the records count 0.")
    assert second.startswith("--embed: 1 of 2 records were left out: their better answers have more than")
    saved(tmp_path / "short", transformers.CLIPTextModel,
          transformers.CLIPTextConfig(**{**TEXT, "max_position_embeddings": 4}))  # fmt: skip
    with pytest.raises(ParetuneError, match=r"the text 'how do i clean the window' has 8 tokens"):
        made(recipe, tmp_path / "s.jsonl", Drawing("yes", 8), embed=str(tmp_path / "short"))


def test_a_ladder_by_the_reference(recipe: Path, tiny_llama: Path, tmp_path: Path) -> None:
    """Stage 1 has the greatest log-probability gap under the start, whatever the scores say."""
    found = made(recipe, tmp_path / "l.jsonl", Drawing("yes", 24, "ladder"), ladder_by="reference")
    policy = opened(tiny_llama)

    def gap(row: dict[str, Any]) -> float:
        answers = [given_answer(policy, row["prompt"], [a["text"]], a["ends"]) for a in row["answers"]]
        better, worse = (float(one.sum()) for one in log_probs(policy, answers))
        return better - worse

    ladders = [[row for row in found if row["prompt"] == text] for text in {row["prompt"] for row in found}]
    assert max(map(len, ladders)) > 2
    for ladder in ladders:
        by_stage = sorted(ladder, key=lambda row: row["stage"])
        assert [row["stage"] for row in by_stage] == list(range(1, len(ladder) + 1))
        gaps = [gap(row) for row in by_stage]
        assert gaps == sorted(gaps, reverse=True)
    by_score = made(recipe, tmp_path / "s.jsonl", Drawing("yes", 24, "ladder"))
    assert [row["rejected"] for row in by_score] == [row["rejected"] for row in found]
    assert [row["stage"] for row in by_score] != [row["stage"] for row in found]


def test_single_steps_go_on_a_prefix(recipe: Path, tmp_path: Path) -> None:
    """Right is an answer with a yes. The tiny model says it often enough after any word."""
    options: dict[str, Any] = {"threshold": 0.05, "rollouts": 8, "step_mark": " "}
    found = made(recipe, tmp_path / "steps.jsonl", Drawing("yes", 24, "steps"), **options)
    for row in found:
        right, wrong = row["answers"]
        assert right["text"] != wrong["text"]
        assert "yes" not in row["prefix"]
        assert "chosen" not in row  # TRL's losses would train on the prefix


def test_a_step_of_another_models_answer_keeps_its_source(recipe: Path, tmp_path: Path) -> None:
    """Nothing is drawn: the wrong answer is the smaller model's, and the right one the larger one's."""
    theirs = tmp_path / "theirs.jsonl"
    theirs.write_text(
        '{"prompt": "fix the table", "text": "no", "source": "smaller"}\n'
        '{"prompt": "fix the table", "text": "yes yes", "source": "larger"}\n'
    )
    options: dict[str, Any] = {"answers": theirs, "step_mark": " "}
    (row,) = made(recipe, tmp_path / "s.jsonl", Drawing("yes", 0, "steps"), **options)
    assert [(a["text"], a["source"]) for a in row["answers"]] == [("yes ", "larger"), ("no", "smaller")]


def test_prompts_are_rewritten_for_a_recipe_of_pictures(
    recipe: Path, tiny_sd3: Path, tmp_path: Path
) -> None:
    through = load_config(tiny_recipe(tmp_path / "pictures", tiny_sd3))
    found = made(recipe, tmp_path / "r.jsonl", Drawing("yes", 3, "rewrite", limit=1), through=through)
    (row,) = found
    assert row["answers"][0]["scores"].keys() == {"red", "dark"}
    assert row["answers"][0]["score"] > row["answers"][1]["score"]


def test_a_safety_prompt_asks_again(recipe: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"threshold": 0.1, "safety_prompt": "yes yes yes"}
    for row in made(recipe, tmp_path / "safe.jsonl", Drawing("yes", 24, "safety"), **options):
        better, worse = row["answers"]
        assert better["score"] >= 0.1 > worse["score"]
        assert better["source"] in {"base", "safety-prompt"}
        assert worse["source"] == "base"


@pytest.mark.parametrize(
    ("drawing", "options", "told"),
    [
        (Drawing("yess"), {}, "--reward: there is no reward yess; did you mean yes?"),
        (Drawing("yes", form="best"), {}, "--form: best is none of extremes, ladder, list, triple"),
        (Drawing("yes", 1), {}, "-n: a prompt gets 2 to 1000 answers, not 1"),
        (Drawing("yes", form="given"), {}, "--form given takes the better answers from a file"),
        (Drawing("yes", form="rewrite"), {}, "--form rewrite and --through RECIPE"),
        (Drawing("yes"), {"contrast": ("a", "b"), "guide": "c"}, "--contrast and --guide both write"),
        (Drawing("yes"), {"steps_like_best": True}, "add --form list"),
        (Drawing("yes", form="ladder"), {"ladder_by": "x"}, "--ladder-by: x is none of score, reference"),
        (Drawing("yes"), {"ladder_by": "reference"}, "--ladder-by orders the stages of a ladder"),
        (Drawing("yes"), {"step_mark": ""}, "--step-mark: the text that ends a step is empty"),
        (Drawing("yes"), {"step_mark": ";"}, "--step-mark changes nothing without --form steps or"),
        (Drawing("yes", 0, "given"), {"answers": Path("none.jsonl"), "safety_prompt": "x"},
         "--safety-prompt changes nothing with -n 0"),
        (Drawing("yes", 2, "given"), {"answers": Path("none.jsonl"), "safety_prompt": "x"},
         "--safety-prompt changes nothing with --form given"),
        (Drawing("yes"), {"judge": "x"}, "--judge: there is no reward x; the recipe has yes, no"),
        (Drawing("yes"), {"answers": Path("none.jsonl")}, "prompt file none.jsonl does not exist"),
        (Drawing("yes", limit=1), {"threshold": 2.0}, None),
    ],
)
def test_wrong_words_are_one_line(
    recipe: Path, tmp_path: Path, drawing: Drawing, options: dict[str, Any], told: str | None
) -> None:
    if told is None:
        drawing, told = Drawing("yes", 4, "correct", limit=1), "none of 1 prompts gives a record of the form"
    with pytest.raises(ParetuneError) as caught:
        made(recipe, tmp_path / "a.jsonl", drawing, **options)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["guide", "contrast", "adapter"])
@pytest.mark.parametrize(
    ("base", "layer", "told"),
    [
        ("{other}", 0, r"was trained on .*other, and the base here is"),
        ("nobody/other-model", 9, r"changes model\.layers\.9\.self_attn\.q_proj, which .* does not have"),
        ("assistant", 0, None),
    ],
)  # fmt: skip
def test_an_adapter_of_another_base_is_one_line_before_anything_is_drawn(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, base: str, layer: int,
    told: str | None,
) -> None:  # fmt: skip
    """By its name where that can tell, and otherwise by its shapes: a hub id may be the recipe's folder."""
    monkeypatch.setattr(CausalLMPolicy, "answer_ids", lambda *_: pytest.fail("it has drawn"))
    if base == "{other}":
        base = str(make_llama(tmp_path / "other"))
    name = adapter(tmp_path / "g", base, 1, layer=layer)
    given: dict[str, Any] = {"guide": {"guide": name}, "contrast": {"contrast": (name, name)}}.get(option, {})
    drawing = Drawing("yes", adapter=name) if option == "adapter" else Drawing("yes")
    with pytest.raises(ParetuneError) as caught:
        made(recipe, tmp_path / "a.jsonl", drawing, **given)
    assert re.search(told or "was trained on assistant, and the base here is", str(caught.value))
    assert str(caught.value).startswith(f"--{option} ")
    assert "\n" not in str(caught.value)


def test_a_guide_of_another_hub_model_is_refused_by_its_name(tmp_path: Path, tiny_llama: Path) -> None:
    policy, guide = opened(tiny_llama), adapter(tmp_path / "g", "owner/one", 1)
    with pytest.raises(ParetuneError, match=r"was trained on owner/one, and the base here is owner/two"):
        guest_changes("--guide", guide, "owner/two", policy.transformer, tmp_path)
    assert guest_changes("--guide", guide, "owner/one", policy.transformer, tmp_path)
    assert guest_changes("--guide", guide, str(tiny_llama), policy.transformer, tmp_path)


def test_answers_to_no_prompt_are_one_line(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.jsonl").write_text('{"prompt": "unknown", "text": "yes"}\n')
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"prompt": "fix the table", "text": "yes " * 600}) + "\n")
    with pytest.raises(ParetuneError, match=r"--answers: the prompt 'fix the table' and its longest answer"):
        made(recipe, tmp_path / "a.jsonl", Drawing("yes"), answers=long)
    with pytest.raises(ParetuneError, match=r"--answers .*: it answers none of the 3 prompts"):
        made(recipe, tmp_path / "a.jsonl", Drawing("yes"), answers=tmp_path / "theirs.jsonl")
    (tmp_path / "theirs.jsonl").write_text('{"prompt": "fix the table"}\n')
    with pytest.raises(ParetuneError, match=r'--answers: .*fix the table.*nor a "text"'):
        made(recipe, tmp_path / "a.jsonl", Drawing("yes"), answers=tmp_path / "theirs.jsonl")


def test_an_option_for_answers_is_refused_for_pictures(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_recipe(tmp_path, tiny_sd3)
    words = ["pairs", path, "--reward", "red", "--out", tmp_path / "a.jsonl", "--guide", "x"]
    monkeypatch.setattr("sys.argv", ["paretune", *map(str, words)])
    with pytest.raises(SystemExit):
        cli.main()
    assert "--guide is for language models" in capsys.readouterr().err


@pytest.mark.parametrize("quiet", [False, True])
def test_the_command_tells_its_progress_and_what_it_wrote(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    quiet: bool,
) -> None:  # fmt: skip
    theirs, out = tmp_path / "theirs.jsonl", tmp_path / "a.jsonl"
    theirs.write_text('{"prompt": "fix the table", "text": "yes yes", "source": "larger"}\n')
    words = ["pairs", recipe, "--reward", "yes", "--out", out, "-n", "8", "--answers", theirs,
             "--form", "given", *(["--quiet"] if quiet else [])]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["paretune", *map(str, words)])
    monkeypatch.setattr("paretune.cli.printing.EVERY", 0.0)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in {0, None}
    told = capsys.readouterr()
    assert ("1 of 3 prompts\n2 of 3 prompts\n3 of 3 prompts\n" in told.err) is not quiet
    (record,) = rows(out)
    length = len(record["answers"][1]["text"])
    gap = f"{1 - record['answers'][1]['score']:.4g}"
    line = f"mean gap {gap}; mean length 7 and {length} characters; from larger (1) against base (1)\n"
    assert (f"best and worst: {line}" in told.out) is not quiet
    assert "pairs: " in told.out


def test_progress_is_told_at_most_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 3.0, 5.9, 6.0, 6.0])
    monkeypatch.setattr("paretune.cli.printing.time", SimpleNamespace(monotonic=lambda: next(clock)))
    told: list[str] = []
    say = now_and_then(told.append)
    for number in range(1, 5):
        say(str(number))
    assert told == ["2", "4"]


def test_a_run_learns_from_what_pairs_wrote(tiny_llama: Path, tmp_path: Path) -> None:
    """The whole: draw and score lists, then a run whose expert learns from them by a loss on lists."""
    path = language_recipe(tmp_path, tiny_llama, rounds=1, train={"epochs": 1}, evaluate={"prompts": 1})
    raw = yaml.safe_load(path.read_text())
    raw["objective"] = {"name": "adpo_text", "options": {"score": "yes"}}
    made(path, tmp_path / "yes.jsonl", Drawing("yes", 24, "list"))
    raw["rewards"] = {"yes": {**raw["rewards"]["yes"], "prompts": str(tmp_path / "yes.jsonl")}}
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    done = call("run", path, "--out", tmp_path / "run", "--quiet")
    assert done.returncode == 0, done.stderr
    metrics = rows(tmp_path / "run" / "round-1" / "experts" / "yes" / "metrics.jsonl")
    assert metrics[-1]["grad_norm"] > 0
    assert "expert:yes" in json.loads((tmp_path / "run" / "summary.json").read_text())["methods"]


def test_two_adapters_of_supervised_answers_make_a_contrast(
    recipe: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    """The whole of cDPO: pairs, an adapter of each side, contrasts of their tokens."""
    made(recipe, tmp_path / "pairs.jsonl", Drawing("yes", 24))
    words = [f"rewards.{name}.prompts={tmp_path / 'pairs.jsonl'}" for name in ("yes", "no")]
    config = load_config(recipe, words)
    for side in ("chosen", "rejected"):
        assert supervise(config, tmp_path / side, 1.0, side=side, adapter_alone=True) > 0
        assert (tmp_path / side / "adapter_config.json").exists()
    sides = str(tmp_path / "chosen"), str(tmp_path / "rejected")
    for row in made(recipe, tmp_path / "c.jsonl", Drawing("yes", 24), contrast=sides):
        for answer in row["answers"]:
            assert all(0 <= weight <= 1 for weight in answer["token_weights"])
    with pytest.raises(ParetuneError, match="--answers: best is none of chosen, rejected"):
        supervise(config, tmp_path / "more", side="best")


def test_a_written_margin_serves_a_loss_that_needs_log_odds(recipe: Path, tmp_path: Path) -> None:
    made(recipe, tmp_path / "pairs.jsonl", Drawing("yes", 24))
    words = [f"rewards.{name}.prompts={tmp_path / 'pairs.jsonl'}" for name in ("yes", "no")]
    words += ['objective={"name": "madpo_text", "options": {}}', "rewards.yes.options.squash=true"]
    check_objective(load_config(recipe, words))
    with pytest.raises(ParetuneError, match=r"rewards\.yes\.options\.squash: madpo_text reads margins"):
        check_objective(load_config(recipe, words[1:]))


def test_a_cost_is_named_and_a_share_of_rivals_is_a_score(recipe: Path, tmp_path: Path) -> None:
    short = load_config(recipe, ["rewards.yes.reward=length", "rewards.yes.options={}"])
    make_answer_pairs(short, Drawing("yes", 24, "list"), AnswerOptions(), tmp_path / "short.jsonl")
    for row in rows(tmp_path / "short.jsonl"):
        raw = [answer["scores"]["yes"] for answer in row["answers"]]
        assert row["costs"] == ["yes"]
        assert raw == sorted(raw)
        values = [answer.score("yes") for answer in read_answers(Prompt(row["prompt"], row)).answers]
        assert values == sorted(values, reverse=True)
    for row in made(recipe, tmp_path / "wins.jsonl", Drawing("yes", 24, "wins")):
        assert "costs" not in row
        assert [a["scores"]["wins"] for a in row["answers"]] == [a["score"] for a in row["answers"]]
    assert objective_for("wins", AnswerOptions()) == "adpo_text with objective.options.score: wins"


def test_what_is_not_known_of_lists_is_left_out_of_their_summary() -> None:
    row = {"rewards": ["a", "b"], "alike": 0.5, "pairs": 4}
    assert pair_lines({"mean_gap": 0.25, "agreement": [row]}) == [
        "best and worst: mean gap 0.25", "a and b order 50% of 4 pairs alike",
    ]  # fmt: skip
    told = {"mean_gap": None, "mean_characters": [10.4, 8.0], "sources": [{"x": 1, "y": 2}, {"": 3}]}
    assert pair_lines({**told, "agreement": []}) == [
        "best and worst: mean length 10 and 8 characters; from y (2), x (1) against unnamed (3)"
    ]


def test_nothing_is_drawn_where_nothing_can_be_written(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ParetuneError, match="cannot write"):
        make_answer_pairs(load_config(recipe), Drawing("yes", 4), AnswerOptions(),
                          tmp_path / "file" / "x.jsonl")  # fmt: skip


@pytest.mark.parametrize(
    ("drawing", "options", "long"),
    [
        (Drawing("yes", 4), {}, True),
        (Drawing("yes", 4, "safety"), {"safety_prompt": "yes " * 25}, False),
    ],
)
def test_a_prompt_that_is_too_long_is_told_before_anything_is_drawn(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawing: Drawing,
    options: dict[str, Any], long: bool,
) -> None:  # fmt: skip
    """The model reads 32 tokens, and its answers have up to 6."""
    monkeypatch.setattr(CausalLMPolicy, "answer_ids", lambda *_: pytest.fail("it has drawn"))
    asked = ["fix the table", "clean the window please " + "a " * 24 * long]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in asked))
    path = language_recipe(tmp_path, tiny_llama)
    raw = yaml.safe_load(path.read_text())
    raw["rewards"]["yes"]["prompts"] = str(tmp_path / "long.jsonl")
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(ParetuneError, match=r"the prompt '.*' has \d+ tokens; .*: shorten it"):
        made(path, tmp_path / "a.jsonl", drawing, **options)


def test_a_prompt_whose_steps_cannot_be_judged_is_told_before_anything_is_drawn(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CausalLMPolicy, "answer_ids", lambda *_: pytest.fail("it has drawn"))
    path = language_recipe(tmp_path, tiny_llama)
    raw = yaml.safe_load(path.read_text())
    raw["rewards"]["rules"] = {"reward": "instructions", "prompts": raw["rewards"]["yes"]["prompts"]}
    (tmp_path / "rules.jsonl").write_text('{"prompt": "fix", "checks": [{"kind": "lowercase"}]}\n')
    raw["rewards"]["rules"] |= dict.fromkeys(("prompts", "eval_prompts"), str(tmp_path / "rules.jsonl"))
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(ParetuneError, match="--judge rules does not apply to the prompt 'how do i clean"):
        made(path, tmp_path / "a.jsonl", Drawing("yes", 4, "steps"), judge="rules")


def test_a_prompt_that_stands_twice_has_two_ladders(tiny_llama: Path) -> None:
    answers = [Scored(text, value) for text, value in (("yes", 3.0), ("no", 2.0), ("fix the", 1.0))]
    found = [record for _ in range(2) for record in FORMS["ladder"](answers, Judging())]
    order_by_reference(opened(tiny_llama), ["fix the table"] * 4, found)
    assert sorted(record["stage"] for record in found) == [1, 1, 2, 2]
