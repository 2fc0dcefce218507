"""Conditions of prompts: what joins, and what a pipeline without fixed lengths does to reward tokens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from paretune.models.flow import Conditions
from paretune.reward_tokens.files import Token
from paretune.reward_tokens.pipelines import Scaled, encode_with
from paretune.types import ParetuneError


def test_a_part_without_a_mask_beside_one_that_has_it_is_seen_whole() -> None:
    short = Conditions(torch.ones(1, 2, 3))
    long = Conditions(torch.ones(1, 4, 3), mask=torch.tensor([[1, 1, 1, 0]]))
    joined = Conditions.join([short, long])
    assert joined.mask is not None
    assert joined.mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert joined.embeds.shape == (2, 4, 3)
    assert Conditions.join([short, short]).mask is None


class _Tokenizer:
    pad_token_id = 0

    def num_special_tokens_to_add(self) -> int:
        return 1

    def __call__(self, texts: list[str], **settings: Any) -> Any:
        return {"input_ids": [[3, 1] for _ in texts]}


class _Encoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(4, 2)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.table


@pytest.mark.parametrize(("padding", "taken"), [("max_length", True), (True, False)])
def test_tokens_are_never_dropped_in_silence(padding: Any, taken: bool) -> None:
    pipe = SimpleNamespace(tokenizer=_Tokenizer(), text_encoder=_Encoder())

    def run() -> dict[str, torch.Tensor]:
        read = pipe.tokenizer(["a"], padding=padding, max_length=4)
        ids = torch.as_tensor(read["input_ids"] if isinstance(read, dict) else read.input_ids)
        return {"embeds": pipe.text_encoder.table(ids)}

    tokens = [Scaled(Token("ocr", {"text_encoder": torch.full((1, 2), 9.0)}))]
    if taken:
        assert encode_with(pipe, run, tokens)["embeds"][0, 1].tolist() == [9.0, 9.0]
    else:
        with pytest.raises(ParetuneError, match="does not fill its prompts up to a fixed length"):
            encode_with(pipe, run, tokens)


def test_positions_that_every_mask_hides_at_the_end_are_cut_off() -> None:
    mask, mask_2 = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 0]]), torch.zeros(2, 3, dtype=torch.long)
    conditions = Conditions(
        torch.randn(2, 4, 5), mask=mask, more={"embeds_2": torch.randn(2, 3, 6), "mask_2": mask_2},
        negative_embeds=torch.randn(1, 4, 5), negative_mask=torch.tensor([[1, 1, 0, 0]]),
    )  # fmt: skip
    cut = conditions.without_padding()
    assert torch.equal(cut.embeds, conditions.embeds[:, :3])
    assert cut.mask is not None
    assert cut.mask.tolist() == [[1, 0, 1], [1, 1, 0]]
    assert cut.more["embeds_2"].shape == (2, 1, 6)  # a text without any position is kept with one
    assert cut.negative_embeds is not None
    assert cut.negative_embeds.shape == (1, 2, 5)
