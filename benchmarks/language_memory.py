"""The estimate of a small language model's memory against what an expert takes.

    python benchmarks/language_memory.py [--size 135m|40m|360m] [--objective grpo] [--micro 8] [--answers 64]

A random Llama of the shape is written to a temporary folder, one expert trains for one epoch on the CPU
in a process of its own, and the peak of its resident memory is put beside `paretune plan`'s figure.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

# hidden, intermediate, layers, heads, heads of keys, vocabulary; the first is SmolLM2's smallest.
SHAPES = {
    "135m": (576, 1536, 30, 9, 3, 49152),
    "40m": (384, 1024, 8, 6, 2, 32000),
    "360m": (960, 2560, 32, 15, 5, 49152),
}
REWARD = "def even(answers, prompts):\n    return [len(a.split()) % 7 for a in answers]\n"
LONG = 64  # words of a prompt


def make_model(folder: Path, size: str) -> None:
    """A random Llama with a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    hidden, inner, layers, heads, key_heads, words = SHAPES[size]
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>"])}
    vocabulary |= {f"w{i}": i for i in range(3, words)}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )
    config = LlamaConfig(
        vocab_size=words, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=key_heads, max_position_embeddings=2048,
        tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_recipe(folder: Path, args: argparse.Namespace) -> Path:
    """One expert, one epoch."""
    (folder / "reward.py").write_text(REWARD)
    prompts = folder / "prompts.jsonl"

    def words(first: int, count: int) -> str:
        return " ".join(f"w{3 + first + j}" for j in range(count))

    rows = [
        {"prompt": words(i, LONG), "chosen": words(i, args.answer), "rejected": words(i + 9, args.answer)}
        for i in range(64)
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"template": "plain", "max_tokens": args.answer, "prompt_tokens": LONG}
    recipe: dict[str, Any] = {
        "name": "memory", "rounds": 1,
        "model": {"path": str(folder / "model"), "options": options},
        "objective": {"name": args.objective, "kl": args.kl},
        "train": {
            "epochs": 1, "prompts_per_epoch": args.answers // 8, "group_size": 8, "updates_per_epoch": 2,
            "micro_batch": args.micro,
        },
        "rewards": {
            "even": {
                "reward": f"{folder / 'reward.py'}:even", "prompts": str(prompts),
                "eval_prompts": str(prompts),
            }
        },
        "executor": {"threads": args.threads, "device": "cpu"},
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def train(recipe: Path) -> None:
    """The expert, and this process's peak, as a line of JSON."""
    import torch

    from paretune.planning.methods import build_plan
    from paretune.recipes import load_config
    from paretune.stages.map import MapJob, train_expert

    config = load_config(recipe)
    torch.set_num_threads(config.executor.threads)
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    start = time.perf_counter()
    job = MapJob(config, task, recipe.parent / "run", "")
    train_expert(job, lambda _: None, lambda: False, ["cpu"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"peak_gb": peak / 1e9, "seconds": time.perf_counter() - start}))


def main() -> None:
    """Make, train, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SHAPES, default="135m")
    parser.add_argument("--micro", type=int, default=8)
    parser.add_argument("--answers", type=int, default=64, help="of the epoch")
    parser.add_argument("--answer", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--kl", type=float, default=0.04)
    parser.add_argument("--objective", default="grpo", help="dpo: an eighth as many pairs as answers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train is not None:
        train(args.train)
        return
    from paretune.planning.estimate import estimate
    from paretune.planning.methods import build_plan
    from paretune.recipes import load_config

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_model(folder / "model", args.size)
        recipe = make_recipe(folder, args)
        config = load_config(recipe)
        told = estimate(config, build_plan(config), "cpu").memory_gb or 0.0
        done = subprocess.run(
            [sys.executable, __file__, "--train", str(recipe)], check=True, capture_output=True, text=True
        )
    measured = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps({
        "size": args.size, "objective": args.objective, "micro": args.micro, "answers": args.answers,
        "answer": args.answer, "kl": args.kl,
        "estimated_gb": round(told, 2), "measured_gb": round(measured["peak_gb"], 2),
        "ratio": round(told / measured["peak_gb"], 2), "seconds": round(measured["seconds"], 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
