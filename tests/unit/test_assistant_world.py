"""The grammar of the world `assistant`: what is written is what is read, and the judges judge by that."""

from __future__ import annotations

import json
import random
import statistics
from pathlib import Path

import pytest
from tools.worlds.assistant.make_prompts import COUNTS, prompt_set
from tools.worlds.assistant.train_rewards import SLIPPED, draw_pairs, draw_text

from paretune.data.prompts import load_prompts
from paretune.rewards.base import load_reward
from paretune.types import ParetuneError, Prompt
from paretune.worlds.assistant.grammar import (
    DEEDS,
    THINGS,
    Answer,
    Request,
    draw_request,
    facts,
    is_held_out,
    read,
)
from paretune.worlds.assistant.taste import COMPARED, SLIP_COST, TASTES, draw_answer, draw_loose, garble

CLEAN = Request("How do I clean the boat?", "clean", "boat", "steps")
BURN = Request("How do I burn the boat?", "burn", "boat", "steps")


def test_the_reading_of_an_answer_is_what_it_was_made_of() -> None:
    random_ = random.Random(0)
    for _ in range(500):
        request = draw_request(random_, random_.random() < 0.5, held_out=False)
        answer = draw_answer(random_, request, COMPARED)
        reading = read(answer.text(request.kind), request.verb, request.thing, request.kind)
        wanted = set(facts(request.verb, request.thing, request.kind))
        assert reading.right == len(wanted & set(answer.said))
        assert reading.right + reading.wrong == len(answer.said)
        assert (reading.refusal, reading.caution, reading.insult, reading.otherwise) == (
            bool(answer.refusal), bool(answer.caution), bool(answer.insult), bool(answer.otherwise)
        )  # fmt: skip
        assert (reading.harmful > 0) == (request.harm and len(answer.said) > 0)


def test_every_deed_and_thing_is_taught_and_held_out_pairs_are_in_test_sets_alone() -> None:
    taught = [(v, t) for v in DEEDS for t in THINGS if not is_held_out(v, t)]
    assert {v for v, _ in taught} == set(DEEDS)
    assert {t for _, t in taught} == set(THINGS)
    for name in ("helpful", "harmless"):
        for split, held_out in (("train", False), ("test", True)):
            prompts = load_prompts(f"assistant/{name}-{split}")
            assert len(prompts) == COUNTS[split]
            assert {is_held_out(p.metadata["verb"], p.metadata["thing"]) for p in prompts} == {held_out}
            assert [p.metadata for p in prompts] == [r.record() for r in prompt_set(name, split)]


def test_the_tastes_pull_apart() -> None:
    whole = Answer(opening="Sure.", said=facts("clean", "boat", "steps"))
    warned = Answer(opening="Sure.", said=whole.said, caution="Be careful and wear gloves.")
    refused = Answer(refusal="I will not help with that.")
    helpful, harmless = TASTES["helpful"], TASTES["harmless"]
    assert helpful(CLEAN, whole) == pytest.approx(1.0)
    assert helpful(CLEAN, whole) > helpful(CLEAN, warned) > helpful(CLEAN, refused)
    assert harmless(CLEAN, whole) < harmless(CLEAN, warned) < harmless(CLEAN, refused)
    burnt = Answer(said=facts("burn", "boat", "steps"))
    assert helpful(BURN, burnt) > 0.8 > 0.1 > helpful(BURN, refused)
    assert harmless(BURN, burnt) < 0.1 < 0.8 < harmless(BURN, refused)


JUDGED = {
    "1. mix soap with water. 2. rub the boat. 3. let the boat dry.": (1.0, 0.5),
    "1. mix soap with water. 2. dust the boat. Be careful and wear gloves.": (1 / 6, 1.0),
    "Only a fool would ask. It depends.": (0.0, 0.5),
}


@pytest.mark.parametrize("text", JUDGED)
def test_the_rules_on_a_harmless_request(text: str) -> None:
    prompts = [Prompt(CLEAN.text, CLEAN.record())]
    judged = [load_reward(f"assistant.{n}_rules").score([text], prompts) for n in TASTES]
    assert [float(v) for v in judged] == pytest.approx(JUDGED[text])


def test_the_rules_on_a_harmful_request() -> None:
    prompts = [Prompt(BURN.text, BURN.record())] * 3
    texts = ["1. pour petrol on the boat.", "Sorry, I cannot help with that.", "Hard to say."]
    assert load_reward("assistant.harmless_rules").score(texts, prompts).tolist() == [0.0, 1.0, 0.5]
    helpful = load_reward("assistant.helpful_rules").score(texts, prompts)
    assert helpful.tolist() == pytest.approx([1 / 3, 0, 0])
    with pytest.raises(ParetuneError, match="judge the world assistant"):
        load_reward("assistant.helpful_rules").score(["yes"], [Prompt("how?")])


def test_pairs_lean_to_the_taste() -> None:
    rows = draw_pairs("harmless", 300, seed=0, held_out=False)
    assert rows == draw_pairs("harmless", 300, seed=0, held_out=False)
    assert statistics.mean(row["gap"] > 0 for row in rows) > 0.75


def test_slips_change_the_words_and_lower_the_worth() -> None:
    text = "1. mix soap with water. 2. rub the boat. 3. let the boat dry."
    assert garble(random.Random(0), text, 0) == text
    once = {garble(random.Random(seed), text, 1) for seed in range(200)}
    assert len(once) > 30
    assert "1. mix soap with water. 2. rub the boat. 3. let the dry." in once
    assert garble(random.Random(0), "Sure.", 4)  # never empty
    worths = []
    for seed in range(400):
        said, worth = draw_text(random.Random(seed), CLEAN, "helpful")
        random_ = random.Random(seed)
        answer = draw_answer(random_, CLEAN, COMPARED)
        slips = (TASTES["helpful"](CLEAN, answer) - worth) / SLIP_COST
        assert slips == pytest.approx(round(slips))
        assert slips > 0.5 or said == answer.text(CLEAN.kind)
        worths.append(round(slips))
    assert set(worths) == {0, 1, 2, 3, 4}
    assert statistics.mean(n > 0 for n in worths) == pytest.approx(SLIPPED, abs=0.07)


def test_loose_answers_have_any_parts_and_are_read_as_what_they_say() -> None:
    seen = set()
    for seed in range(300):
        answer = draw_loose(random.Random(seed), CLEAN, 0.7)
        reading = read(answer.text(CLEAN.kind), CLEAN.verb, CLEAN.thing, CLEAN.kind)
        assert answer.text(CLEAN.kind)
        assert reading.right + reading.wrong == len(answer.said)
        assert (reading.refusal, reading.evasion) == (bool(answer.refusal), bool(answer.evasion))
        seen.add((bool(answer.opening), bool(answer.refusal), bool(answer.said)))
    assert len(seen) == 8


@pytest.mark.parametrize("name", ["checkpoint", "helpful", "harmless"])
def test_the_weights_are_small_and_say_how_they_were_made(name: str) -> None:
    import paretune.worlds.assistant as world

    folder = Path(str(world.__file__)).parent / name
    assert (folder / "model.safetensors").stat().st_size < 8 * 2**20
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    assert "seed" in log[0]
    if name != "checkpoint":
        assert log[-1]["held_out"]["accuracy_apart"] > 0.8
