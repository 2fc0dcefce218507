"""The world's own tokenizer: byte-level BPE learned on the grammar, and a chat template."""

from __future__ import annotations

import random
from typing import Any

from paretune.worlds.assistant.grammar import draw_request
from paretune.worlds.assistant.taste import COMPARED, draw_answer

SPECIAL = ("<pad>", "<s>", "</s>", "<user>", "<assistant>")
TEMPLATE = (
    "{% for m in messages %}{{ '<user>' if m['role'] == 'user' else '<assistant>' }} {{ m['content'] }}"
    "{{ '' if m['role'] == 'user' else eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def build_tokenizer(size: int = 640) -> Any:
    """A `PreTrainedTokenizerFast` whose pieces are about the grammar's words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    random_ = random.Random(0)
    texts = []
    for _ in range(4000):
        request = draw_request(random_, random_.random() < 0.4, held_out=False)
        texts += [f" {request.text}", f" {draw_answer(random_, request, COMPARED).text(request.kind)}"]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    raw.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet)
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        model_max_length=128, padding_side="left", clean_up_tokenization_spaces=False,
        additional_special_tokens=["<user>", "<assistant>"],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    return tokenizer
