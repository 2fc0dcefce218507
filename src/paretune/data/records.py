"""Turn a record into a `Prompt`. It may be a prompt, a pair of answers or a conversation, as TRL takes them.

A conversation is a list of turns {"role": .., "content": ..}. If a pair of answers has no prompt, their
common beginning is the prompt. Answers become texts, so that every objective and reward reads the same form.
A record may name an input picture: "image" is its path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

from paretune.inputs.pictures import KEY, with_picture
from paretune.types import Dialogue, ParetuneError, Prompt

TURN = "\n\nAssistant:"  # in Anthropic's hh-rlhf
PAIR = ("chosen", "rejected")
_ROLES = {"human": "user", "gpt": "assistant"}  # ShareGPT's names
# Control characters other than tabs and line ends are a sign of damage in a plain file. Records of dialogues
# from the web contain some of them, escaped, but never a zero.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f]")

Turns = list[dict[str, str]]


def as_prompt(
    row: Mapping[str, Any], where: str, column: str = "prompt", folder: Path | None = None
) -> Prompt:
    """Turn a record into a prompt, whose metadata is the record. A key whose value is null counts as absent.

    Args:
        row: the record.
        where: the place of the record, for messages.
        column: the key of the prompt.
        folder: what the path of an input picture is relative to.

    Raises:
        ParetuneError: if the record has no prompt, or names an input picture that does not exist. The message
            begins with `where`.
    """
    record: dict[str, Any] = _without_nulls(row)
    prompt = _text_prompt(record, where, column)
    return pictured(prompt, record[KEY], where, folder or Path()) if KEY in record else prompt


def pictured(prompt: Prompt, image: Any, where: str, folder: Path) -> Prompt:
    """The prompt with the input picture that its record names."""
    if not isinstance(image, str) or not image or any(ord(character) < 32 for character in image):
        raise ParetuneError(f'{where}: "{KEY}" is no text that could be the path of an input picture')
    try:
        there = (folder / image).is_file()
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise ParetuneError(f"{where}: the picture {image[:200]}: {error.strerror}") from error
    if not there:
        raise ParetuneError(f"{where}: the picture {folder / image} does not exist")
    return with_picture(prompt, str(folder / image))


def _text_prompt(record: dict[str, Any], where: str, column: str) -> Prompt:
    talk = record.get("messages") or record.get("conversations")
    if any(isinstance(record.get(key), list) for key in (column, *PAIR)):
        return _conversation(record, where, column)
    if isinstance(record.get(column), str) and record[column].strip():
        return Prompt(written(record[column], where), record)
    if column == "prompt" and column not in record:
        if isinstance(talk, list):
            return _whole_talk(record, cast("list[Any]", talk), where)
        if any(key in record for key in PAIR):
            return _implicit(record, where)
    raise ParetuneError(f'{where}: "{column}" is missing, empty or not a string')


def plain_text(text: str, where: str) -> str:
    """Return the text. Raises ParetuneError if it contains a control character."""
    found = _CONTROLS.search(text)
    if found:
        raise ParetuneError(f"{where}: the prompt holds the control character U+{ord(found[0]):04X}")
    return text


def written(text: str, where: str) -> str:
    """Return the text of a record. Raises ParetuneError if it contains a zero character."""
    return plain_text("\0", where) if "\0" in text else text


def _without_nulls(value: Any) -> Any:
    """Plain data without the keys whose value is null, because datasets give every record every key."""
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {key: _without_nulls(child) for key, child in items if child is not None}
    if isinstance(value, list):
        return [_without_nulls(child) for child in cast("list[Any]", value)]
    return value


def _implicit(record: dict[str, Any], where: str) -> Prompt:
    """A prompt from two texts with the same beginning.

    Dialogues in the form of hh-rlhf are split after the last "Assistant:", other texts at the first character
    that differs.
    """
    chosen, rejected = (record.get(key) for key in PAIR)
    if isinstance(chosen, str) and isinstance(rejected, str):
        if TURN in chosen:
            prompt = chosen[: chosen.rindex(TURN) + len(TURN)]
            other = rejected.removeprefix(prompt)
            if other == rejected:  # the dialogues differ earlier, so they are not two answers to one prompt
                other = ""
            pair = {"chosen": chosen.removeprefix(prompt), "rejected": other}
            return Prompt(written(prompt, where), pair)
        length = sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(chosen, rejected, strict=False)))
        length -= length > 0 and chosen[length - 1] == " "  # the space belongs to the answer
        if chosen[:length].strip():
            pair = {"chosen": chosen[length:], "rejected": rejected[length:]}
            return Prompt(written(chosen[:length], where), record | pair)
    raise ParetuneError(
        f'{where}: neither a "prompt" nor a pair of dialogues "chosen" and "rejected" that begin alike'
    )


def _conversation(record: dict[str, Any], where: str, column: str) -> Prompt:
    """A prompt and its answers, of which some are lists of turns.

    If the prompt is a text, the turns before the answers are the prompt.
    """
    given = record.get(column)
    pair = {key: record[key] for key in PAIR if key in record}
    talks = {
        key: _turns(value, f'{where}: "{key}"') for key, value in pair.items() if isinstance(value, list)
    }
    if isinstance(given, list):
        prompt = _turns(cast("list[Any]", given), f'{where}: "{column}"')
    elif talks and all(len(talk) > 1 for talk in talks.values()):
        prompt = _shared(list(talks.values()), where)
    elif isinstance(given, str) and given.strip():
        prompt = [{"role": "user", "content": given}]
    else:
        raise ParetuneError(f'{where}: "chosen" and "rejected" have no turn in common that could be a prompt')
    answers = {key: _answer(talk, prompt, f'{where}: "{key}"') for key, talk in talks.items()}
    return _prompt(prompt, record | answers, where, column)


def _whole_talk(record: dict[str, Any], talk: list[Any], where: str) -> Prompt:
    """A whole conversation. If its last turn is an answer, this is the answer to learn."""
    turns = _turns(talk, f'{where}: "messages"')
    if turns[-1]["role"] != "assistant":
        return _prompt(turns, record, where)
    return _prompt(turns[:-1], {**record, "chosen": turns[-1]["content"]}, where)


def _prompt(turns: Turns, record: dict[str, Any], where: str, column: str = "prompt") -> Prompt:
    """A prompt from turns: a single turn of the user is a plain text, more turns are a dialogue."""
    if not turns or turns[-1]["role"] != "user":
        raise ParetuneError(f"{where}: the prompt does not end with a turn of the user")
    for turn in turns:
        written(turn["content"], where)
    if not turns[-1]["content"].strip():
        raise ParetuneError(f"{where}: the user's last turn is empty")
    text = turns[0]["content"] if len(turns) == 1 else Dialogue(turns)
    return Prompt(text, {**record, column: str(text)})


def _shared(talks: Sequence[Turns], where: str) -> Turns:
    """The turns that all talks have in common at the beginning, without the last turn of any of them."""
    most = min(len(talk) for talk in talks) - 1
    shared = list(takewhile(lambda i: all(talk[i] == talks[0][i] for talk in talks), range(most)))
    if not shared:
        raise ParetuneError(f'{where}: "chosen" and "rejected" have no turn in common that could be a prompt')
    return talks[0][: len(shared)]


def _answer(talk: Turns, prompt: Turns, where: str) -> str:
    """The one turn of the assistant that follows the prompt. The talk may repeat the prompt."""
    rest = talk[len(prompt) :] if talk[: len(prompt)] == prompt else talk
    if len(rest) != 1 or rest[0]["role"] != "assistant":
        raise ParetuneError(
            f"{where} holds {len(rest)} turns after the prompt; an answer is one turn of the assistant"
        )
    return rest[0]["content"]


def _turns(value: Sequence[Any], where: str) -> Turns:
    """Turns under TRL's names for roles and keys. The record may use other names."""
    turns: Turns = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, Mapping):
            raise ParetuneError(f'{where}, turn {number}: expected {{"role": .., "content": ..}}')
        entry = cast("Mapping[str, Any]", turn)
        role, content = entry.get("role", entry.get("from")), entry.get("content", entry.get("value"))
        if isinstance(content, list):  # parts, of which only texts can be read
            parts = [p.get("text") if isinstance(p, Mapping) else None for p in cast("list[Any]", content)]
            texts = [part for part in parts if isinstance(part, str)]
            content = "".join(texts) if len(texts) == len(parts) else None
        if not isinstance(role, str) or not isinstance(content, str):
            raise ParetuneError(f"{where}, turn {number}: its role and its content are texts")
        turns.append({"role": _ROLES.get(role, role), "content": content})
    if not turns:
        raise ParetuneError(f"{where} has no turns")
    return turns
