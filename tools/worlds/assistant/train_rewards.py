"""Train a reward model.

    python -m tools.worlds.assistant.train_rewards helpful --init checkpoint --out helpful

A tiny Llama with one score, from the taught language model, by TRL's RewardTrainer (Bradley-Terry) on pairs
of answers drawn in three manners, of which some have slips of language; which is preferred is drawn with the
chance sigmoid((a - b) / NOISE) of their worth to the taste. Scores are centred, so that their sigmoid is
about 1/2 on the pairs. Writes the model, its tokenizer and training_log.jsonl with the agreement on held-out
requests. Five minutes on one core.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
from pathlib import Path
from typing import Any

import torch

from paretune.files import write_rows
from paretune.worlds.assistant.grammar import Request, draw_request
from paretune.worlds.assistant.taste import (
    COMPARED,
    SLIP_COST,
    STATING,
    TASTES,
    draw_answer,
    draw_loose,
    garble,
)

NOISE = 0.1
SLIPPED = 0.25  # share of the answers in a manner that have slips, one to four of them
# Of the training pairs: those that differ in statements alone, and those of parts in any mixture.
STATED, LOOSE = 0.4, 0.25
SEEDS = {"helpful": 1, "harmless": 2}


def draw_pairs(
    taste: str, count: int, seed: int, held_out: bool, stated: float = 0.0, loose: float = 0.0
) -> list[dict[str, Any]]:
    """chosen and rejected texts, and how far apart their worth is. stated, loose: shares of such pairs."""
    random_ = random.Random(f"{taste}/{seed}")
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        request = draw_request(random_, random_.random() < 0.45, held_out)
        lot = random_.random()
        kind = "stated" if lot < stated else "loose" if lot < stated + loose else "compared"
        (a, worth_a), (b, worth_b) = (draw_text(random_, request, taste, kind) for _ in range(2))
        gap = worth_a - worth_b
        if random_.random() > 1 / (1 + math.exp(-gap / NOISE)):
            a, b, gap = b, a, -gap
        prompt = f"<user> {request.text}<assistant>"
        # TRL would add the end mark
        rows.append({"chosen": f"{prompt} {a}</s>", "rejected": f"{prompt} {b}</s>", "gap": gap})
    return rows


def draw_text(
    random_: random.Random, request: Request, taste: str, kind: str = "compared"
) -> tuple[str, float]:
    """An answer in words, and what it is worth to the taste. Those of kind "stated" have no slips."""
    if kind == "loose":
        answer = draw_loose(random_, request, COMPARED.right)
    else:
        answer = draw_answer(random_, request, STATING if kind == "stated" else COMPARED)
    slips = random_.randint(1, 4) if kind != "stated" and random_.random() < SLIPPED else 0
    text = garble(random_, answer.text(request.kind), slips)
    return text, TASTES[taste](request, answer) - SLIP_COST * slips


def build_model(start: Path, seed: int) -> Any:
    """The taught language model with a score instead of its next token: it knows what belongs together."""
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(seed)
    return LlamaForSequenceClassification.from_pretrained(start, num_labels=1)


@torch.no_grad()
def agreement(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Share of pairs that the model orders as drawn, and of those truly apart, as they are worth."""
    def scores(key: str) -> torch.Tensor:
        parts = []
        for start in range(0, len(rows), 64):
            texts = [row[key] for row in rows[start : start + 64]]
            batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
            parts.append(model(**batch).logits[:, 0])
        return torch.cat(parts)

    chosen, rejected = scores("chosen"), scores("rejected")
    margin = chosen - rejected
    gap = torch.tensor([row["gap"] for row in rows])
    apart = gap.abs() > 0.2
    spread = torch.cat([chosen, rejected])
    return {
        "accuracy": float((margin > 0).float().mean()),
        "accuracy_apart": float((margin.sign() == gap.sign())[apart].float().mean()),
        "mean_sigmoid": float(spread.sigmoid().mean()),
    }


def train(
    model: Any, tokenizer: Any, rows: list[dict[str, Any]], args: argparse.Namespace, seed: int
) -> list[Any]:
    """TRL's RewardTrainer over the pairs once; returns its log."""
    from datasets import Dataset
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    settings = RewardConfig(
        output_dir=str(args.out / "unused"), per_device_train_batch_size=args.batch, num_train_epochs=1,
        learning_rate=args.lr, lr_scheduler_type="cosine", warmup_steps=20, weight_decay=0.01,
        center_rewards_coefficient=0.01, max_length=128, logging_steps=25, save_strategy="no",
        report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False, seed=seed,
        disable_tqdm=True,
    )  # fmt: skip
    pairs = Dataset.from_list([{k: row[k] for k in ("chosen", "rejected")} for row in rows])
    trainer = RewardTrainer(model=model, args=settings, train_dataset=pairs, processing_class=tokenizer)
    trainer.train()
    shutil.rmtree(args.out / "unused", ignore_errors=True)  # TRL wants a place, and keeps nothing there
    return [{k: v for k, v in row.items() if k in {"step", "loss", "accuracy"}}
            for row in trainer.state.log_history if "loss" in row]  # fmt: skip


def main() -> None:
    """Train one taste and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("taste", choices=sorted(TASTES))
    parser.add_argument("--init", type=Path, required=True, help="the taught model, or one of these")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=30_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, help="of the pairs; default the taste's own")
    args = parser.parse_args()
    from transformers import AutoTokenizer

    seed = SEEDS[args.taste] if args.seed is None else args.seed
    tokenizer = AutoTokenizer.from_pretrained(args.init)
    tokenizer.padding_side = "right"
    model = build_model(args.init, seed)
    settings = {"taste": args.taste, "pairs": args.pairs, "batch": args.batch, "lr": args.lr, "seed": seed,
                "parameters": sum(p.numel() for p in model.parameters())}  # fmt: skip
    pairs = draw_pairs(args.taste, args.pairs, seed, held_out=False, stated=STATED, loose=LOOSE)
    log = train(model, tokenizer, pairs, args, seed)
    found = agreement(model.eval(), tokenizer, draw_pairs(args.taste, 800, seed + 100, held_out=True))
    for kind in ("stated", "loose"):
        told = draw_pairs(args.taste, 800, seed + 200, held_out=True, **{kind: 1.0})
        found[f"accuracy_apart_{kind}"] = agreement(model, tokenizer, told)["accuracy_apart"]
    print(found, flush=True)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    write_rows(args.out / "training_log.jsonl", [settings, *log, {"held_out": found}])


if __name__ == "__main__":
    main()
