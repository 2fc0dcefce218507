"""IFEval's verifiable instructions (arXiv 2311.07911), for any prompt set whose records have its form:

    {"prompt": .., "instruction_id_list": ["punctuation:no_comma", ..], "kwargs": [{}, ..]}

The rules are those of its authors' code (github google-research/google-research, instruction_following_eval,
Apache-2.0), in the strict form: the answer is checked as it is, and an empty one follows nothing. They differ
from it in three places, since nltk's data and langdetect are no part of paretune: sentences and capital words
are found by a plain rule, and the two rules about English capitals do not ask which language it is.
`language:response_language` needs the package langdetect. As there, key words are regular expressions; a
pattern that is none is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from paretune.types import ParetuneError, Prompt

from ..checks import Checked

# Answers may be long and of any form. The patterns take linear time: what cannot begin a match is passed over
# at once, in a match whose last group is absent.
_SENTENCE = re.compile(r"[^\s.!?][^.!?]*+([.!?]+[\"'”’)]*(?=\s|$)|$)?")
_PLACEHOLDER = re.compile(r"\[[^\]\n]*+(\])?")
_WORD = re.compile(r"\w+(?:[-'’]\w+)*")
_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_POSTSCRIPTS = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}


def compared(found: int, relation: str, count: int) -> bool:
    """IFEval's two relations."""
    return found < count if relation == "less than" else found >= count


def sentences(text: str) -> int:
    """How many sentences a text has: parts that end with . ! or ? before a space, or with the text."""
    return _whole(_SENTENCE, text)


def _whole(pattern: re.Pattern[str], text: str) -> int:
    """How many matches have the last group."""
    return sum(1 for found in pattern.finditer(text) if found[1] is not None)


def _paragraphs(text: str, num_paragraphs: int) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    if any(not part.strip() for part in parts[1:-1]):
        return False
    return sum(1 for part in parts if part.strip()) == num_paragraphs


def _first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = text.split("\n\n")
    count = sum(1 for part in parts if part.strip())
    if nth_paragraph > count or not parts[nth_paragraph - 1].strip():
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return count == num_paragraphs and re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()


def _bullets(text: str, num_bullets: int) -> bool:
    stars = re.findall(r"^[^\S\n]*\*[^\*].*$", text, re.MULTILINE)
    return len(stars) + len(re.findall(r"^[^\S\n]*-.*$", text, re.MULTILINE)) == num_bullets


def _highlights(text: str, num_highlights: int) -> bool:
    single = [part.strip("*") for part in re.findall(r"\*[^\n\*]*\*", text)]
    double = [part[2:-2] for part in re.findall(r"\*\*[^\n\*]*\*\*", text)]
    return sum(1 for part in [*single, *double] if part.strip()) >= num_highlights


def _postscript(text: str, postscript_marker: str) -> bool:
    pattern = _POSTSCRIPTS.get(postscript_marker, postscript_marker.lower())
    return re.search(pattern, text.lower(), re.MULTILINE) is not None


def _title(line: str) -> str:
    """From the first << to the last >> of a line; "" where nothing stands between them."""
    start, end = line.find("<<"), line.rfind(">>")
    return line[start : end + 2] if 0 <= start < end - 2 else ""


def _json(text: str) -> bool:
    inner = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        inner = inner.removeprefix(fence)
    try:
        json.loads(inner.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _two(text: str) -> bool:
    parts = text.split("******")
    own = [part.strip() for part in parts if part.strip()]
    return all(part.strip() for part in parts[1:-1]) and len(own) == 2 and own[0] != own[1]


def _language(text: str, language: str) -> bool:
    import langdetect  # type: ignore[import-not-found]  # optional

    try:
        return langdetect.detect(text) == language
    except langdetect.LangDetectException:  # as IFEval counts it
        return True


def _count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text, re.IGNORECASE))


# id -> (its arguments, the check). What an argument's name ends with tells its type; see `_wrong`.
RULES: dict[str, tuple[tuple[str, ...], Callable[..., bool]]] = {
    "keywords:existence": (("keywords",), lambda t, keywords: all(_count(k, t) for k in keywords)),
    "keywords:frequency": (
        ("keyword", "frequency", "relation"),
        lambda t, keyword, frequency, relation: compared(_count(keyword, t), relation, frequency),
    ),
    "keywords:forbidden_words": (
        ("forbidden_words",),
        lambda t, forbidden_words: not any(_count(rf"\b{word}\b", t) for word in forbidden_words),
    ),
    "keywords:letter_frequency": (
        ("letter", "let_frequency", "let_relation"),
        lambda t, letter, let_frequency, let_relation: compared(
            t.lower().count(letter.lower()), let_relation, let_frequency
        ),
    ),
    "language:response_language": (("language",), _language),
    "length_constraints:number_sentences": (
        ("num_sentences", "relation"),
        lambda t, num_sentences, relation: compared(sentences(t), relation, num_sentences),
    ),
    "length_constraints:number_paragraphs": (("num_paragraphs",), _paragraphs),
    "length_constraints:number_words": (
        ("num_words", "relation"),
        lambda t, num_words, relation: compared(len(re.findall(r"\w+", t)), relation, num_words),
    ),
    "length_constraints:nth_paragraph_first_word": (
        ("num_paragraphs", "nth_paragraph", "first_word"), _first_word
    ),
    "detectable_content:number_placeholders": (
        ("num_placeholders",), lambda t, num_placeholders: _whole(_PLACEHOLDER, t) >= num_placeholders
    ),
    "detectable_content:postscript": (("postscript_marker",), _postscript),
    "detectable_format:number_bullet_lists": (("num_bullets",), _bullets),
    "detectable_format:constrained_response": ((), lambda t: any(answer in t for answer in _ANSWERS)),
    "detectable_format:number_highlighted_sections": (("num_highlights",), _highlights),
    "detectable_format:multiple_sections": (
        ("section_spliter", "num_sections"),
        lambda t, section_spliter, num_sections: len(
            re.findall(rf"\s?{section_spliter.strip()}\s?\d+\s?", t)
        ) >= num_sections,
    ),
    "detectable_format:json_format": ((), _json),
    "detectable_format:title": (
        (), lambda t: any(_title(line).strip("<>").strip() for line in t.split("\n"))
    ),
    "combination:two_responses": ((), _two),
    "combination:repeat_prompt": (
        ("prompt_to_repeat",),
        lambda t, prompt_to_repeat: t.strip().lower().startswith(prompt_to_repeat.strip().lower()),
    ),
    "startend:end_checker": (
        ("end_phrase",),
        lambda t, end_phrase: t.strip().strip('"').lower().endswith(end_phrase.strip().lower()),
    ),
    "startend:quotation": (
        (), lambda t: len(t.strip()) > 1 and t.strip()[0] == t.strip()[-1] == '"'
    ),
    "change_case:capital_word_frequency": (
        ("capital_frequency", "capital_relation"),
        lambda t, capital_frequency, capital_relation: compared(
            sum(1 for word in _WORD.findall(t) if word.isupper()), capital_relation, capital_frequency
        ),
    ),
    "change_case:english_capital": ((), lambda t: t.isupper()),
    "change_case:english_lowercase": ((), lambda t: t.islower()),
    "punctuation:no_comma": ((), lambda t: "," not in t),
}  # fmt: skip


class IFEval(Checked):
    """The share of a prompt's instructions that its answer follows, 0..1; whole: all or nothing."""

    name, range, higher_is_better = "ifeval", (0.0, 1.0), True

    def __init__(self, whole: bool = False) -> None:
        self.whole = whole

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Raise ParetuneError for a prompt whose record has no instructions that can be checked."""
        for prompt in prompts:
            read_instructions(prompt)

    def score(self, samples: Sequence[str], prompts: Sequence[Prompt]) -> torch.Tensor:
        """[B]."""
        values = []
        for answer, prompt in zip(samples, prompts, strict=True):
            told = [
                bool(answer.strip()) and RULES[name][1](answer, **own)
                for name, own in read_instructions(prompt)
            ]
            values.append(float(all(told)) if self.whole else sum(told) / len(told))
        return torch.tensor(values)


def read_instructions(prompt: Prompt) -> list[tuple[str, dict[str, Any]]]:
    """The ids and arguments of a record. Raises ParetuneError for what is missing or of another kind."""
    where = f"ifeval: the record of {prompt.text[:60]!r}"
    names, given = (prompt.metadata.get(key) for key in ("instruction_id_list", "kwargs"))
    if not isinstance(names, list) or not names or not isinstance(given, list) or len(given) != len(names):
        raise ParetuneError(f"{where} has no instruction_id_list with as many kwargs")
    read = []
    for name, own in zip(names, given, strict=True):
        if name not in RULES:
            raise ParetuneError(f"{where} asks for {name!r}, which is no instruction of IFEval")
        # A dataset's column holds every argument for every row, null where it is not meant.
        told = {key: value for key, value in (own or {}).items() if value is not None} \
            if isinstance(own, Mapping | None) else {}  # fmt: skip
        if wrong := _wrong(name, told):
            raise ParetuneError(f"{where}: {name} {wrong}")
        read.append((name, {key: told[key] for key in RULES[name][0]}))
    return read


def _wrong(name: str, told: Mapping[str, Any]) -> str | None:
    """What is wrong with an instruction's arguments, as the end of a sentence."""
    for key in RULES[name][0]:
        value = told.get(key)
        if key.startswith(("num_", "nth_")) or key.endswith("frequency"):
            fits = isinstance(value, int) and not isinstance(value, bool)
        elif key in ("keywords", "forbidden_words"):
            fits = isinstance(value, list) and all(isinstance(word, str) for word in value)
        elif key.endswith("relation"):
            fits = value in ("less than", "at least")
        else:
            fits = isinstance(value, str)
        if not fits:
            return f"has no {key} that fits, but {value!r}"
        if key in ("keywords", "keyword", "forbidden_words", "section_spliter", "postscript_marker"):
            # Two of them stand within another pattern, where no flags such as (?i) can begin.
            before = r"\b" if key in ("forbidden_words", "section_spliter") else ""
            for pattern in value if isinstance(value, list) else [value]:
                try:
                    meant = str(pattern).lower() if key == "postscript_marker" else str(pattern)
                    re.compile(before + meant)
                except re.error:
                    return f"has {str(pattern)[:60]!r}, which is no regular expression"
    if name == "language:response_language":
        try:
            import langdetect  # type: ignore[import-not-found]  # noqa: F401
        except ImportError:
            return "needs the package langdetect: pip install langdetect"
    return None
