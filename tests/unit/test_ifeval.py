"""IFEval's rules, literally: what follows an instruction and what does not, and records that are unfit."""

from __future__ import annotations

import time
from typing import Any

import pytest

from paretune.rewards.base import applies_to, load_reward
from paretune.rewards.text.ifeval import RULES, IFEval, sentences
from paretune.types import ParetuneError, Prompt

# id, arguments, an answer that follows, one that does not: after instructions.py and instructions_test.py.
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["Romans", "river"]}, "romans crossed the River", "the romans"),
    ("keywords:frequency", {"keyword": "keyword", "frequency": 2, "relation": "at least"},
     "Keyword keywords", "keyword"),
    ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "less than"}, "a bee", "banana"),
    ("keywords:forbidden_words", {"forbidden_words": ["fate"]}, "fateful", "their FATE"),
    ("keywords:letter_frequency", {"letter": "t", "let_frequency": 3, "let_relation": "at least"},
     "Test it", "toast"[:4]),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"},
     "One. ", "One. Two."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\ntwo", "one\n***\n***\ntwo"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "it's fine", "two words"),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "haha"}, "one\n\n\"Haha, two", "haha\n\ntwo"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] and [b]", "[a]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "text\np. s. more", "text P.S"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "P. P. S more", "P.S. more"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n- two", "** one\n- two"),
    ("detectable_format:constrained_response", {}, "well: My answer is no. ok", "my answer is no"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "a *word*", "a ** **"),
    ("detectable_format:multiple_sections", {"section_spliter": "SECTION", "num_sections": 2},
     "SECTION 1 a SECTION 2 b", "Section 1 a Section 2"),
    ("detectable_format:json_format", {}, "```json\n{\"a\": 1}\n```", "{a: 1}"),
    ("detectable_format:title", {}, "<<poem>>\ntext", "<< >>"),
    ("combination:two_responses", {}, "one ****** two", "one ****** one"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it"}, " say it. done", "I say it"),
    ("startend:end_checker", {"end_phrase": "Any other questions?"}, "x Any other questions?\"", "questions"),
    ("startend:quotation", {}, ' "all" ', '"all'),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"},
     "WELL-DONE AND so", "WELL done"),
    ("change_case:english_capital", {}, "ALL OF IT", "All of it"),
    ("change_case:english_lowercase", {}, "all of it.", "All of it"),
    ("punctuation:no_comma", {}, "none; here", "one, here"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "own", "follows", "breaks"), CASES)
def test_a_rule(name: str, own: dict[str, Any], follows: str, breaks: str) -> None:
    rule = RULES[name][1]
    assert (rule(follows, **own), rule(breaks, **own)) == (True, False)
    record = Prompt("Do it", {"instruction_id_list": [name], "kwargs": [own], "prompt": "Do it"})
    assert IFEval().score([follows, breaks], [record] * 2).tolist() == [1.0, 0.0]


def test_every_rule_but_the_language_has_a_case() -> None:
    assert {name for name, *_ in CASES} == RULES.keys() - {"language:response_language"}
    assert len(RULES) == 25


def test_sentences() -> None:
    texts = ("One. Two! Three?", "3.5 percent", "He said \"no.\" Then.", "", "no end")
    assert [sentences(text) for text in texts] == [3, 1, 2, 0, 1]


# Rows without what would end a match, followed by what makes it none.
ROWS = ["word " * 349 + "3.5", "word " * 4000 + "$3.50 more", " " * 20000 + ".5", "." * 20000 + "x",
        "\n" * 20000 + "x", "[" * 20000, "word\n" * 4000, "<" * 200000]  # fmt: skip


@pytest.mark.parametrize("text", ROWS, ids=range(len(ROWS)))
def test_no_rule_takes_long_for_a_long_answer(text: str) -> None:
    """The first row, of 1,748 characters, took 25 s; a row of 20,000 takes milliseconds."""
    start = time.process_time()
    for name, own, *_ in CASES:
        RULES[name][1](text, **own)
    assert time.process_time() - start < 3


def test_a_title_stands_between_double_brackets_of_one_line() -> None:
    title = RULES["detectable_format:title"][1]
    yes = ("<<a>>", "x <<a b>> y", "<<<a>>", "<<>\n<<b>>", "<<a>> and >>")
    no = ("<<>>", "<<<>>", "<< >>", "<<a\nb>>", ">>a<<", "<a>", "<<")
    assert [title(text) for text in (*yes, *no)] == [True] * len(yes) + [False] * len(no)


def test_what_is_passed_over_hides_nothing_after_it() -> None:
    texts = ("cost $3.50. Then it rose", "see a.b/c?d=e. Good.", " .\"' a.", "... Well... \nyes", " \n")
    assert [sentences(text) for text in texts] == [2, 2, 1, 2, 0]
    placeholders = RULES["detectable_content:number_placeholders"][1]
    text = "[a\n[b] [[c] [d"
    assert [placeholders(text, num_placeholders=n) for n in (2, 3)] == [True, False]
    bullets = RULES["detectable_format:number_bullet_lists"][1]
    assert bullets("\n\n  * a\n \n\t- b\n** c\n", num_bullets=2)
    postscript = RULES["detectable_content:postscript"][1]
    assert postscript("a\n\n see: ps", postscript_marker="PS|P.T.")


def _prompt(names: Any, given: Any) -> Prompt:
    return Prompt("Do it", {"instruction_id_list": names, "kwargs": given})


def test_the_share_of_instructions_and_all_or_nothing() -> None:
    prompt = _prompt(
        ["punctuation:no_comma", "length_constraints:number_words"],
        # As the hub's dataset has them: every argument for every row.
        [{"num_words": None, "relation": None}, {"num_words": 2, "relation": "at least", "keywords": None}],
    )
    answers = ["two words", "one, two", "one", "", "  "]
    prompts = [prompt] * len(answers)
    assert IFEval().score(answers, prompts).tolist() == [1.0, 0.5, 0.5, 0.0, 0.0]
    assert load_reward("ifeval", whole=True).score(answers, prompts).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("names", "given", "told"),
    [
        (None, None, "has no instruction_id_list"),
        (["punctuation:no_comma"], [], "has no instruction_id_list with as many kwargs"),
        (["punctuation:no_dots"], [{}], "'punctuation:no_dots', which is no instruction of IFEval"),
        (["length_constraints:number_words"], [{"num_words": 3}], "has no relation that fits, but None"),
        (["detectable_format:number_bullet_lists"], [{"num_bullets": "3"}], "has no num_bullets that fits"),
        (["keywords:existence"], [{"keywords": ["a", "("]}], "'\\(', which is no regular expression"),
        (["keywords:forbidden_words"], [{"forbidden_words": ["(?i)a"]}], "which is no regular expression"),
        (["detectable_content:postscript"], [{"postscript_marker": r"P.S.\Z"}], "which is no regular"),
    ],
)
def test_a_record_that_cannot_be_checked_is_one_line(names: Any, given: Any, told: str) -> None:
    with pytest.raises(ParetuneError, match=told):
        IFEval.check([_prompt(names, given)])
    assert not applies_to(IFEval(), _prompt(names, given))
