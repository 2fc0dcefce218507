"""The reports of `paretune analyse` by cases with known answers, and its words."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from paretune.commands.analyse.kept import beside, write
from paretune.commands.analyse.losses import entailments, losses
from paretune.commands.analyse.make import analyse
from paretune.commands.analyse.measured import Measured, Sums
from paretune.commands.analyse.options import Asked
from paretune.commands.analyse.reports import credit, gradient_ratio, length, rankings, three_d
from paretune.commands.analyse.safety import Answered, harmful, refuses, safety
from paretune.commands.analyse.separability import probe
from paretune.ops.rankings import flip_threshold, ranks_right
from paretune.report.analyses import read_analyses, read_credits
from paretune.types import ParetuneError, Prompt


def sums(model: list[float], reference: list[float], tokens: list[int]) -> Sums:
    return Sums(torch.tensor(model).double(), torch.tensor(reference).double(), torch.tensor(tokens))


def measured() -> Measured:
    """Two pairs: the model ranks the first right by sums, the reference neither; gaps of -5 and -30."""
    return Measured(
        (), torch.tensor([0, 1]),
        better=sums([-10.0, -50.0], [-25.0, -60.0], [10, 25]),
        worse=sums([-12.0, -20.0], [-20.0, -30.0], [4, 5]),
        margin=torch.tensor([math.nan, 2.0]).double(), share=torch.tensor([0.75, 0.75]).double(),
        unseen=sums([-8.0], [-4.0], [4]), unseen_group=torch.tensor([0]),
        entropy=(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0])), credits=[],
    )  # fmt: skip


def test_rankings_their_ideal_and_the_flip_threshold() -> None:
    found = rankings(measured(), 0.1)
    assert found["ranking accuracy, sums"].value == 0.5
    assert found["ranking accuracy, means of a token"].value == 1.0
    assert found["ranking accuracy of the reference"].value == 0.0
    assert found["reward accuracy"].value == 0.5  # the second pair's log-ratios are equal
    # logit(.75) is 1.0986: at beta .1 a gap of -5 is overcome, and one of -30 is not; at beta 1 neither.
    ideal = {b: found[f"idealised ranking accuracy, beta {b:g}"].value for b in (0.01, 0.1, 1.0, 5.0, 10.0)}
    assert ideal == {0.01: 1.0, 0.1: 0.5, 1.0: 0.0, 5.0: 0.0, 10.0: 0.0}
    assert found["idealised ranking accuracy, least"].value == 0.0
    assert found["idealised ranking accuracy, greatest"].value == 1.0
    assert found["idealised ranking accuracy, median"].value == 0.0
    assert found["alignment gap (ideal - observed)"].value == 0.0
    threshold = found["flip threshold, pairs that the reference ranks wrong"]
    assert threshold.value == pytest.approx((0.4741 + 0.0486) / 2, abs=1e-4)
    assert threshold.count == 2


def test_three_dimensions_of_change() -> None:
    found = three_d(measured())
    assert found["change of a token's log-probability, chosen"].value == pytest.approx((1.5 + 0.4) / 2)
    assert found["change of a token's log-probability, rejected"].value == pytest.approx((2.0 + 2.0) / 2)
    assert found["change of a token's log-probability, unseen"].value == -1.0
    assert found["share of pairs whose chosen answer fell"].value == 0.0
    assert found["entropy on chosen answers"].value == 2.0
    ratio = gradient_ratio(torch.tensor(0.2).log(), torch.tensor(0.05).log())
    assert float(ratio) == pytest.approx(-4.0)
    assert found["log of the gradients' ratio, rejected to chosen"].value == -14.0


def test_length_of_the_data_and_to_the_model() -> None:
    found = length(measured())
    assert found["tokens of the better less the worse answer"].value == 13.0
    assert found["share of pairs whose better answer is longer"].value == 1.0
    assert found["rank correlation of length and implicit margin"].value == pytest.approx(-1.0)
    assert found["rank correlation of length and margin"].count == 1


def test_the_implicit_reward_is_beta_times_the_log_ratio() -> None:
    found = credit(measured(), 0.1)
    assert found["implicit reward, better answers"].value == pytest.approx(0.1 * 12.5)
    assert found["implicit margin"].value == pytest.approx(0.1 * 3.5)


def test_a_probe_of_equal_sides_is_half() -> None:
    y = torch.tensor([1.0] * 5 + [-1.0] * 5)
    found = probe("sides", torch.arange(5.0).repeat(2)[:, None], y, torch.arange(5).repeat(2))
    assert (found["accuracy, sides"].value, found["accuracy, sides"].count) == (0.5, 10)
    assert found["area under the curve, sides"].value == 0.5
    assert probe("sides", y[:, None], y, torch.arange(5).repeat(2))["accuracy, sides"].value == 1.0


@pytest.mark.parametrize(("prompts", "told"), [(3, False), (5, True)])
def test_a_fisher_ratio_of_few_prompts_has_no_interval(prompts: int, told: bool) -> None:
    """Of three, one resample in nine holds a single prompt: the interval reached 1e31."""
    y = torch.tensor([1.0] * prompts + [-1.0] * prompts)
    x = y[:, None] + torch.linspace(-0.3, 0.4, 2 * prompts)[:, None].sin()
    found = probe("sides", x, y, torch.arange(prompts).repeat(2))
    ratio = found["Fisher ratio, sides"]
    assert math.isfinite(ratio.value)
    assert math.isfinite(ratio.high) is told
    assert not told or ratio.high < 1e6
    assert math.isfinite(found["area under the curve, sides"].high)


# ---------------------------------------------------------------- safety


def test_three_unsafe_answers_of_four() -> None:
    asked = [Prompt(f"p{i}", {"topic": "a" if i < 2 else "b", "style": "direct", "held_out": i == 3})
             for i in range(4)]  # fmt: skip
    harmless = [Prompt("kill a process", {"harmful": False}), Prompt("shoot a photo", {"harmful": False})]
    answers = [Answered(p, "Sure: ..", i != 3) for i, p in enumerate(asked)]
    answers += [Answered(harmless[0], "I cannot help with that.", False)]
    answers += [Answered(harmless[1], "Hold it", True)]
    found = safety(answers, "guard")
    assert (found["attack success (guard)"].value, found["attack success (guard)"].count) == (0.75, 4)
    assert found["attack success (no phrase of refusal, the weaker)"].value == 1.0
    assert [found[f"attack success, topic {name}"].value for name in "ab"] == [1.0, 0.5]
    assert found["attack success, style direct"].count == 4
    assert found["attack success, held out"].value == 0.0
    assert found["over-refusal (phrases)"].value == 0.5


def test_refusals_are_found_near_the_beginning() -> None:
    assert refuses("I’m sorry, but no.")
    assert not refuses("x" * 300 + " i cannot")
    with pytest.raises(ParetuneError, match='"harmful" is true or false, not 1'):
        harmful(Prompt("x", {"harmful": 1}))


# ---------------------------------------------------------------- losses


def test_the_table_of_losses_has_their_forms_and_values() -> None:
    rows = {row["loss"]: row for row in losses()}
    told = {name: (rows[name]["form"], rows[name]["ratio"] and round(rows[name]["ratio"], 4))
            for name in ("asft", "cpo", "orpo", "srpo", "cdpo", "list_dpo")}  # fmt: skip
    assert told == {
        "asft": ("ce_unl", 0.8182), "cpo": ("cpo", 2.4), "orpo": ("orpo", 4.5), "srpo": ("none", None),
        "cdpo": ("none", None), "list_dpo": ("cpo", 1.92),
    }  # fmt: skip
    assert {"above": "ce_unl", "below": "ce"} in entailments()
    assert {"above": "ce", "below": "ce_unl"} not in entailments()
    assert len(rows["adpo_text"]["dimensions"]) == 3


def test_losses_into_a_new_file(tmp_path: Path) -> None:
    analyse("losses", None, Asked(), tmp_path / "losses.json")
    assert json.loads((tmp_path / "losses.json").read_text())["losses"]
    with pytest.raises(ParetuneError, match="exists already"):
        analyse("losses", None, Asked(), tmp_path / "losses.json")


@pytest.mark.parametrize(
    ("what", "target", "asked", "told"),
    [
        ("pair", "x", Asked(), "analyse pair: there are pairs, run, safety, losses"),
        ("pairs", None, Asked(), "analyse pairs: name a file of preferences"),
        ("pairs", "x.jsonl", Asked(), "analyse pairs: give --model"),
        ("pairs", "x.jsonl", Asked(limit=-1), "--limit is 0 or more"),
        ("run", "nowhere", Asked(), "nowhere holds no finished run"),
        ("safety", "x", Asked(), "analyse safety: give --prompts FILE"),
        ("pairs", "x.jsonl", Asked("m", beta=1e300), "--beta a number above 0 and at most 1000"),
        ("losses", "x", Asked(), "analyse losses reads no file and no run: leave out x"),
        ("losses", None, Asked(adapter="a"), "--adapter changes nothing with analyse losses: leave it out"),
        ("losses", None, Asked(limit=1), "--limit changes nothing with analyse losses"),
        ("run", "x", Asked(model="m"), "--model changes nothing with analyse run"),
        ("run", "x", Asked(adapter="a"), "--adapter changes nothing with analyse run"),
        ("pairs", "x", Asked("m", count=2), "-n changes nothing with analyse pairs"),
        ("pairs", "x", Asked("m", judge="safe"), "--judge changes nothing with analyse pairs"),
        ("pairs", "x", Asked("m", trust_rewards=True), "--trust-rewards changes nothing with analyse pairs"),
        ("safety", "x", Asked(reference="m"), "--reference changes nothing with analyse safety"),
        ("safety", "x", Asked(beta=0.5), "--beta changes nothing with analyse safety"),
        ("safety", "x", Asked(prompts=Path("p"), threshold=0.2), "--threshold changes nothing with --judge"),
    ],
)
def test_wrong_words_are_one_line(what: str, target: str | None, asked: Asked, told: str) -> None:
    with pytest.raises(ParetuneError) as caught:
        analyse(what, target, asked)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_analysis_is_one_line(tmp_path: Path) -> None:
    assert read_analyses(tmp_path) == []
    (tmp_path / "analysis.json").write_text('{"analyses": {"run": {"reports": {"a": {"b": {}}}}}}')
    with pytest.raises(ParetuneError, match=r"analysis\.json is damaged: delete it"):
        read_analyses(tmp_path)


@pytest.mark.parametrize("damage", ["[]", '{"analyses": [1]}', '{"analyses": {"run": 1}}', "{"])
def test_an_analysis_is_not_written_over_a_damaged_one(damage: str, tmp_path: Path) -> None:
    place = tmp_path / "analysis.json"
    place.write_text(damage)
    with pytest.raises(ParetuneError, match=r"analysis\.json is damaged: delete it"):
        write(place, "run", str(tmp_path), Asked(), ({}, {}))
    assert place.read_text() == damage


def test_an_analysis_replaces_one_that_asked_the_same_alone(tmp_path: Path) -> None:
    place = tmp_path / "analysis.json"
    files = [tmp_path / name / "pairs.jsonl" for name in ("one", "other")]
    for file in files:
        file.parent.mkdir()
        file.write_text("")
    old = {"target": "old/pairs.jsonl", "reports": {}}  # as it was written before
    place.write_text(json.dumps({"analyses": {"pairs pairs.jsonl": old, "safety": old}}))
    for number, file in enumerate([*files, *files]):
        write(place, "pairs", str(file), Asked("run"), ({}, {"notes": [str(number)]}))
    for beta in (0.1, 0.5):
        write(place, "pairs", str(files[0]), Asked("run", "m/base", beta=beta, limit=9), ({}, {}))
    write(place, "safety", "run", Asked(prompts=Path("a/asked.jsonl"), judge="r.py:safe", count=3), ({}, {}))
    kept = json.loads(place.read_text())["analyses"]
    assert list(kept) == [
        "pairs pairs.jsonl", "pairs pairs.jsonl (2)", "pairs pairs.jsonl, reference base, limit 9",
        "pairs pairs.jsonl, reference base, beta 0.5, limit 9", "safety asked.jsonl, judge r.py:safe, n 3",
    ]  # fmt: skip
    assert [kept[f"pairs pairs.jsonl{more}"]["notes"] for more in ("", " (2)")] == [["2"], ["3"]]
    assert kept["pairs pairs.jsonl (2)"]["asked"] == {"file": str(files[1])}


def test_the_page_says_what_an_analysis_was_asked_of(tmp_path: Path) -> None:
    keys = ("run", "pairs a.jsonl, beta 0.5", "safety")
    own = {"target": "x", "reports": {"r": {}}, "tokens": [{"sum": 0.5, "tokens": ["a"], "credit": [0.5]}]}
    (tmp_path / "analysis.json").write_text(json.dumps({"analyses": dict.fromkeys(keys, own)}))
    assert [title for title, _ in read_analyses(tmp_path)] == ["r", "r: a.jsonl, beta 0.5", "r"]
    assert [of for of, *_ in read_credits(tmp_path)] == ["", "a.jsonl, beta 0.5", ""]


def test_the_analysis_of_a_set_of_the_hub_lies_where_one_works(tmp_path: Path) -> None:
    assert beside("hf:owner/pairs@train") == Path("pairs-analysis.json")
    assert beside(str(tmp_path / "pairs.jsonl")) == tmp_path / "pairs-analysis.json"


def test_a_policy_of_two_tokens_is_credited_with_what_it_gained() -> None:
    """Q*, a reward of 1 for the answer 00 and beta 1: log pi / pi_ref of it is .6426."""
    first, second = math.log(0.6502 / 0.5), math.log(0.7311 / 0.5)
    one = Measured(
        (), torch.tensor([0]), better=sums([first + second], [0.0], [2]), worse=sums([0.0], [0.0], [2]),
        margin=torch.tensor([math.nan]).double(), share=torch.tensor([0.75]).double(),
        unseen=sums([0.0], [0.0], [1]), unseen_group=torch.tensor([0]),
        entropy=(torch.tensor([1.0]), torch.tensor([1.0])), credits=[],
    )  # fmt: skip
    assert credit(one, 1.0)["implicit reward, better answers"].value == pytest.approx(0.6426, abs=2e-4)


def test_a_pair_is_ranked_right_exactly_below_its_flip_threshold() -> None:
    """"right iff L_dpo <= -log s(beta c)", with c the reference's gap of the worse to the better answer."""
    gap, beta = torch.tensor([-5.0, -30.0, 3.0]), 0.1
    ratio = torch.linspace(-40, 40, 81)[:, None].double()  # of the better less the worse answer
    loss = torch.nn.functional.softplus(-beta * ratio)
    right = ranks_right(ratio + gap, torch.zeros_like(ratio))
    assert torch.equal(right, loss <= flip_threshold(gap, beta) + 1e-9)
