"""Where reward tokens stand in the ids of a prompt that a pipeline writes into a template."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from paretune.reward_tokens.appending import Appending
from paretune.types import ParetuneError

WORDS = ("<pad>", "</s>", "<user>", "<end>", "<model>", "red", "blue", "circle", "square")
PAD, EOS, USER, END, MODEL, RED, BLUE, CIRCLE, SQUARE = range(len(WORDS))
CHAT = "<user> {} <end> <model>"
FILLED = {"padding": "max_length", "truncation": True, "max_length": 8}
CUT = {"padding": True, "truncation": True, "max_length": 8}


def _tokenizer(ends: bool = False, **settings: Any) -> Any:
    """One token a word. ends: whether each text gets an end token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    if ends:
        single = processors.TemplateProcessing("$A </s>", None, [("</s>", EOS)])
        backend.post_processor = single  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", **settings)


def _ids(appending: Appending, *prompts: str, written: str = CHAT, **settings: Any) -> list[list[int]]:
    texts = [written.replace("{}", prompt) for prompt in prompts]
    return appending(texts, **settings)["input_ids"].tolist()


def test_tokens_stand_before_the_end_token() -> None:
    appending = Appending(_tokenizer(ends=True), 2)
    (row,) = _ids(appending, "red circle", written="{}", **FILLED)
    assert row == [RED, CIRCLE, -1, -2, EOS, PAD, PAD, PAD]


def test_tokens_stand_before_the_end_of_the_template() -> None:
    (row,) = _ids(Appending(_tokenizer(), 2, CHAT), "red circle", **FILLED)
    assert row == [USER, RED, CIRCLE, -1, -2, END, MODEL, PAD]


def test_a_batch_is_as_long_as_its_longest_prompt() -> None:
    appending = Appending(_tokenizer(), 1, CHAT)
    read = appending([CHAT.replace("{}", text) for text in ("red circle", "blue")], **CUT)
    assert read.input_ids.tolist() == [
        [USER, RED, CIRCLE, -1, END, MODEL], [USER, BLUE, -1, END, MODEL, PAD],
    ]  # fmt: skip
    assert read.attention_mask.tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]


def test_a_tokenizer_that_fills_up_on_the_left_still_does() -> None:
    appending = Appending(_tokenizer(padding_side="left"), 1, CHAT)
    read = appending([CHAT.replace("{}", text) for text in ("red circle", "blue")], **CUT)
    assert read.input_ids.tolist()[1] == [PAD, USER, BLUE, -1, END, MODEL]
    assert read.attention_mask.tolist()[1] == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("words", "row"),
    [
        ("red " * 4, [USER, RED, RED, RED, RED, -1, -2, END]),  # one token of the end is cut
        ("red " * 5, [USER, RED, RED, RED, RED, -1, -2, RED]),  # all of it is: the last token stays last
        ("red " * 9, [USER, RED, RED, RED, RED, -1, -2, RED]),
    ],
)
def test_of_a_long_prompt_words_are_cut_and_no_token(words: str, row: list[int]) -> None:
    assert _ids(Appending(_tokenizer(), 2, CHAT), words, **FILLED) == [row]


def test_tokens_that_leave_no_room_for_a_prompt_are_one_line() -> None:
    appending = Appending(_tokenizer(), 5, CHAT)
    with pytest.raises(ParetuneError, match="5 token vectors leave no room for a prompt in 8 tokens"):
        _ids(appending, "red", **FILLED)


def test_a_chat_gets_tokens_as_a_text_does() -> None:
    tokenizer = _tokenizer()
    tokenizer.chat_template = "<user> {{ messages[0].content }} <end> <model>"
    appending = Appending(tokenizer, 1, CHAT)
    chat = [[{"role": "user", "content": "blue square"}]]
    read = appending.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt", **FILLED)
    assert read.input_ids.tolist() == [[USER, BLUE, SQUARE, -1, END, MODEL, PAD, PAD]]
    assert appending.appended


def test_a_text_that_is_neither_filled_up_nor_cut_gets_no_tokens() -> None:
    appending = Appending(_tokenizer(), 1, CHAT)
    assert appending(["red"], padding=True)["input_ids"] == [[RED]]
    assert not appending.appended
