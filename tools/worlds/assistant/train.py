"""Teach the tiny Llama the grammar: `python -m tools.worlds.assistant.train --out DIR`.

Next-token loss on answers alone, drawn fresh for every batch; AdamW, linear warm-up and cosine. Writes the
model, its tokenizer and training_log.jsonl. A few minutes on one core.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path
from typing import Any

import torch

from paretune.files import write_rows
from paretune.worlds.assistant.grammar import draw_request
from paretune.worlds.assistant.taste import TAUGHT, draw_answer

from .tokenizer import build_tokenizer

HARM_SHARE = 0.4


def build_model(tokenizer: Any) -> Any:
    """A Llama of under half a million parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=96, intermediate_size=256, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=True, attention_dropout=0.0,
        )
    )  # fmt: skip


def draw_batch(random_: random.Random, tokenizer: Any, size: int) -> dict[str, torch.Tensor]:
    """Requests and answers, right-padded; labels are -100 outside the answer and its end."""
    rows, starts = [], []
    for _ in range(size):
        request = draw_request(random_, random_.random() < HARM_SHARE, held_out=False)
        answer = draw_answer(random_, request, TAUGHT[request.harm]).text(request.kind)
        asked = tokenizer(f"<user> {request.text}<assistant>")["input_ids"]
        rows.append(asked + tokenizer(f" {answer}</s>")["input_ids"])
        starts.append(len(asked))
    longest = max(map(len, rows))
    ids = torch.full((size, longest), tokenizer.pad_token_id)
    labels = torch.full((size, longest), -100)
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, start : len(row)] = torch.tensor(row[start:])
    return {"input_ids": ids, "labels": labels, "attention_mask": (ids != tokenizer.pad_token_id).long()}


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    random_ = random.Random(args.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01)
    warm = args.steps // 20

    def rate(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / (args.steps - warm)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    log: list[dict[str, Any]] = [{**settings, "parameters": sum(p.numel() for p in model.parameters())}]
    start, total = time.perf_counter(), 0.0
    for step in range(1, args.steps + 1):
        loss = model(**draw_batch(random_, tokenizer, args.batch)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        total += float(loss.detach())
        if step % 50 == 0:
            seconds = time.perf_counter() - start
            log.append({"step": step, "loss": round(total / 50, 4), "seconds": round(seconds, 1)})
            print(log[-1], flush=True)
            total = 0.0
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    write_rows(args.out / "training_log.jsonl", log)


if __name__ == "__main__":
    main()
