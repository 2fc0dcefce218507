"""How tokens are asked for, and what a blend of them is made of."""

from __future__ import annotations

import pytest
import torch

from paretune.reward_tokens.files import Token
from paretune.reward_tokens.pipelines import Scaled, blends, resolve
from paretune.reward_tokens.spec import TokenUse, format_tokens, parse_tokens
from paretune.types import ParetuneError


def test_names_counts_and_scales_in_any_order() -> None:
    assert parse_tokens("ocr:2 beauty:1@0.5") == (TokenUse("ocr", 2), TokenUse("beauty", 1, 0.5))
    assert parse_tokens(" a@-1e-1,b , a:3\n") == (TokenUse("a", 1, -0.1), TokenUse("b"), TokenUse("a", 3))
    assert parse_tokens("  ") == ()


def test_text_and_uses_are_one() -> None:
    uses = (TokenUse("ocr", 2), TokenUse("my-reward.v2", 1, 1 / 3), TokenUse("ocr", 3, -2.0))
    assert parse_tokens(format_tokens(uses)) == uses


WRONG = {
    "ocr:": "name:count",
    "ocr:x": "name:count",
    ":2": "name:count",
    "ocr@": "name:count",
    "<b>": "name:count",
    "a/../b": "name:count",
    "ocr:0": "the count",
    "ocr:17": "the count",
    "ocr:" + "9" * 5000: "the count",
    "ocr@nan": "the scale",
    "ocr@inf": "the scale",
    "ocr@5": "the scale",
    "ocr@high": "not a number",
    "ocr@1@2": "not a number",
    "\x07": "name:count",
}


@pytest.mark.parametrize("text", WRONG, ids=[t[:12].encode("unicode_escape").decode() for t in WRONG])
def test_what_cannot_be_read_is_one_line(text: str) -> None:
    with pytest.raises(ParetuneError, match=WRONG[text]) as error:
        parse_tokens(text)
    told = str(error.value)
    assert told.isprintable()
    assert len(told) < 200


def _scaled(name: str, scale: float) -> Scaled:
    return Scaled(Token(name, {"text_encoder": torch.zeros(1, 4)}), 1, scale)


def _terms(*tokens: Scaled) -> dict[str, float]:
    return {"".join(t.token.name for t in b.present): b.weight for b in blends(tokens)}


def test_whole_scales_need_no_blend() -> None:
    assert _terms() == {"": 1.0}
    assert _terms(_scaled("a", 1), _scaled("b", 0), _scaled("c", 1)) == {"ac": 1.0}


def test_a_blend_is_linear_in_every_scale() -> None:
    assert _terms(_scaled("a", 0.25)) == {"a": 0.25, "": 0.75}
    assert _terms(_scaled("a", 1.5)) == {"a": 1.5, "": -0.5}
    terms = _terms(_scaled("a", 0.5), _scaled("b", 1), _scaled("c", 0.25))
    assert terms == {"abc": 0.125, "ab": 0.375, "bc": 0.125, "b": 0.375}
    assert sum(_terms(*[_scaled(n, 0.3) for n in "abcd"]).values()) == pytest.approx(1)


def test_too_many_scales_are_refused() -> None:
    with pytest.raises(ParetuneError, match="at most 6"):
        blends([_scaled(n, 0.5) for n in "abcdefg"])


def test_an_unknown_token_names_those_there_are() -> None:
    bank = {"ocr": _scaled("ocr", 1).token}
    assert resolve(parse_tokens("ocr:2@0.5"), bank) == (Scaled(bank["ocr"], 2, 0.5),)
    with pytest.raises(ParetuneError, match="no token beauty; known: ocr"):
        resolve(parse_tokens("beauty"), bank)
    with pytest.raises(ParetuneError, match="paretune tokens RUN"):
        resolve(parse_tokens("beauty"), {})
