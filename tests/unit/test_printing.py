"""What commands print on standard output."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from paretune.cli.printing import print_json, print_line


@pytest.mark.parametrize("print_it", [print_json, print_line])
def test_a_figure_that_is_no_number_is_null(
    print_it: Callable[[Any], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Training may log NaN, which is no JSON: other programs could not read it."""
    print_it({"loss": math.nan, "rows": [{"kl": math.inf}, (1.5, -math.inf)], "told": "NaN", "done": True})
    printed = capsys.readouterr().out
    assert json.loads(printed, parse_constant=lambda word: pytest.fail(word)) == {
        "loss": None, "rows": [{"kl": None}, [1.5, None]], "told": "NaN", "done": True,
    }  # fmt: skip
