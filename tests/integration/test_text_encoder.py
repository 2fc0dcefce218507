"""Text encoders of `paretune pairs --embed`: towers of pictures and texts, and what is no encoder."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from paretune.models.text_encoder import TextEncoder
from paretune.types import ParetuneError

WORDS = ("<start>", "<end>", "<unk>", "a", "yes", "no", "fix", "the", "table")
TEXT: dict[str, Any] = {
    "vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1,
    "pad_token_id": 1, "projection_dim": 6,
}  # fmt: skip
PICTURE: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 16, "patch_size": 8, "projection_dim": 6,
}  # fmt: skip


def saved(folder: Path, kind: Any, config: Any, words: tuple[str, ...] = WORDS) -> Any:
    """A random model with a tokenizer of whole words. Returns the model."""
    torch.manual_seed(0)
    model = kind(config).eval()
    model.save_pretrained(folder)
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    raw.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<start>", eos_token="<end>", unk_token="<unk>", pad_token="<end>"
    ).save_pretrained(folder)
    return model


def test_towers_give_their_text_features(tmp_path: Path) -> None:
    towers: dict[str, Any] = {"text_config": TEXT, "vision_config": PICTURE, "projection_dim": 6}
    model = saved(tmp_path, transformers.CLIPModel, transformers.CLIPConfig(**towers))
    encoder = TextEncoder(str(tmp_path))
    found = encoder.encode(["yes", "fix the table"])
    with torch.no_grad():
        wanted = model.get_text_features(input_ids=torch.tensor([[0, 6, 7, 8, 1]])).pooler_output
    torch.testing.assert_close(found[1:], wanted)
    torch.testing.assert_close(found[:1], encoder.encode(["yes"]))
    assert (found.shape, encoder.most, encoder.pads) == ((2, 6), 8, False)
    with pytest.raises(ParetuneError, match=r"the text 'yes yes .* has 9 tokens, and this encoder reads 8"):
        encoder.encode(["yes yes yes yes yes yes yes"])


def test_a_projection_is_kept(tmp_path: Path) -> None:
    kind = transformers.CLIPTextModelWithProjection
    model = saved(tmp_path, kind, transformers.CLIPTextConfig(**TEXT))
    found = TextEncoder(str(tmp_path)).encode(["fix the table"])
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor([[0, 6, 7, 8, 1]])).text_embeds
    torch.testing.assert_close(found, wanted)


def test_an_encoder_that_pools_the_last_place_is_padded_to_its_length(tmp_path: Path) -> None:
    towers: dict[str, Any] = {"text_config": TEXT, "vision_config": PICTURE}
    model = saved(tmp_path, transformers.SiglipModel, transformers.SiglipConfig(**towers))
    encoder = TextEncoder(str(tmp_path))
    assert encoder.pads
    with torch.no_grad():
        wanted = model.get_text_features(
            input_ids=torch.tensor([[0, 4, 1, 1, 1, 1, 1, 1]]),
            attention_mask=torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0]]),
        ).pooler_output
    torch.testing.assert_close(encoder.encode(["yes"]), wanted)


def test_of_a_model_that_writes_only_the_reader_is_opened(tmp_path: Path) -> None:
    shape: dict[str, Any] = {
        "vocab_size": 9, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2,
    }  # fmt: skip
    model = saved(tmp_path, transformers.T5Model, transformers.T5Config(**shape))
    found = TextEncoder(str(tmp_path)).encode(["fix the table"])
    with torch.no_grad():
        wanted = model.encoder(input_ids=torch.tensor([[0, 6, 7, 8, 1]])).last_hidden_state.mean(1)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("kind", "config", "words", "told"),
    [
        ("CLIPVisionModel", transformers.CLIPVisionConfig(**PICTURE), WORDS,
         "embeds no texts: it reads pixel_values; give a text encoder"),
        ("CLIPTextModel", transformers.CLIPTextConfig(**TEXT), (*WORDS, "more"),
         "its tokenizer has 10 tokens and its model 9; they are not of one encoder"),
    ],
)  # fmt: skip
def test_what_embeds_no_texts_is_one_line(
    tmp_path: Path, kind: str, config: Any, words: tuple[str, ...], told: str
) -> None:
    saved(tmp_path, getattr(transformers, kind), config, words)
    with pytest.raises(ParetuneError) as caught:
        TextEncoder(str(tmp_path))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ParetuneError, match=r"--embed .* cannot be loaded: ") as caught:
        TextEncoder(str(tmp_path))
    assert "\n" not in str(caught.value)
