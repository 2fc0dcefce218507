"""What `paretune sample` says of models that make no pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretune.sampling.source import open_source
from paretune.types import ParetuneError


def test_other_media_are_one_line(tiny_llama: Path) -> None:
    for model, made in ((str(tiny_llama), "texts"), ("hunyuanvideo-community/HunyuanVideo", "clips")):
        with pytest.raises(ParetuneError, match=f"{model} makes {made}; .* draw pictures alone"):
            open_source(model)
