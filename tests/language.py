"""Tiny language models, reward models and recipes, saved as real ones are. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

WORDS = (
    "how", "do", "i", "clean", "fix", "the", "window", "table", "please", "tell", "me", "yes", "no", "maybe",
    "soap", "water", "a", "cloth", "wait", "day",
)  # fmt: skip
REWARDS = '''
import time
from pathlib import Path

def _share(texts, word):
    if Path(__file__).with_name("slow").exists():
        time.sleep(2)
    return [text.split().count(word) / max(1, len(text.split())) for text in texts]

def yes(texts, prompts):
    return _share(texts, "yes")

def no(texts, prompts):
    return _share(texts, "no")
'''


def make_tokenizer(chat: bool = False, pad: bool = True, words: Sequence[str] = WORDS) -> Any:
    """Whole words, split at spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    extra = {"pad_token": "<pad>"} if pad else {}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="</s>", unk_token="<unk>", padding_side="left", **extra
    )
    if chat:
        tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} please{% endfor %}"
    return tokenizer


def make_llama(
    folder: Path, chat: bool = False, pad: bool = True, positions: int = 32, tied: bool = False,
    words: Sequence[str] = WORDS,
) -> Path:  # fmt: skip
    """A random Llama of two layers with its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = make_tokenizer(chat, pad, words)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=positions,
        initializer_range=0.5,  # answers differ in chance, and an adapter can move them
        tie_word_embeddings=tied,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_opt(folder: Path) -> Path:
    """A random OPT: its positions are learned, and its embeddings tied."""
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    config = OPTConfig(
        vocab_size=len(tokenizer), hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32, word_embed_proj_dim=16, init_std=0.5, dropout=0.0,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    OPTForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_gpt2(folder: Path) -> Path:
    """A random GPT-2, whose class ends in LMHeadModel and whose linear layers are transposed."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=32, n_embd=16, n_layer=1, n_head=2, initializer_range=0.5,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_gpt2_reward(folder: Path, labels: int = 1, seed: int = 1, pad: bool = True) -> Path:
    """A random GPT-2 with a classification head, as the public gpt2-large reward models are."""
    from transformers import GPT2Config, GPT2ForSequenceClassification

    torch.manual_seed(seed)
    tokenizer = make_tokenizer(pad=pad)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=1, n_head=2, num_labels=labels,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
        initializer_range=0.5,
    )  # fmt: skip
    GPT2ForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def language_recipe(folder: Path, model: Path, **changes: Any) -> Path:
    """A recipe of two file rewards on a tiny language model, in `folder`. changes: sections or keys."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rewards.py").write_text(REWARDS)
    (folder / "prompts.txt").write_text("how do i clean the window\nfix the table\ntell me please\n")
    prompts = str(folder / "prompts.txt")
    recipe: dict[str, Any] = {
        "name": "tiny-language",
        "rounds": 2,
        "methods": ["mapreduce"],
        "model": {"path": str(model), "options": {"max_tokens": 6}},
        "lora": {"rank": 2, "alpha": 4},
        "objective": {"name": "grpo"},
        "train": {"epochs": 2, "prompts_per_epoch": 2, "group_size": 4, "updates_per_epoch": 2,
                  "learning_rate": 0.02, "checkpoint_every": 1},
        "rewards": {
            name: {"reward": f"{folder / 'rewards.py'}:{name}", "prompts": prompts, "eval_prompts": prompts}
            for name in ("yes", "no")
        },
        "evaluate": {"prompts": 3, "samples": 1},
        "executor": {"workers": 1},
    }  # fmt: skip
    for key, value in changes.items():
        recipe[key] = {**recipe.get(key, {}), **value} if isinstance(value, dict) else value
    if recipe["objective"]["name"] == "grpo":
        recipe["objective"]["options"] = {"clip_range": 0.2, **recipe["objective"].get("options", {})}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path
