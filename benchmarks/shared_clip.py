"""What several rewards on CLIPs cost, against one: seconds for a batch of pictures on one core.

    python benchmarks/shared_clip.py [--pictures 16] [--side 512] [--repeats 5]

Random CLIPs with the shape of a small ViT stand for the published ones, which are not needed. Prints one JSON
object: `one` is a single reward, `same` PickScore, CLIPScore and the aesthetic score on one network, `apart`
the same three that share nothing; `other_weights` are three rewards of three sets of weights, which share the
prepared pictures alone, and `other_weights_apart` the same without. `ratio` is each over `one`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import string
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

from paretune.rewards.photo.aesthetic import PLACES, WIDTHS, Aesthetic
from paretune.rewards.photo.clipscore import ClipScore
from paretune.rewards.photo.memo import Memo
from paretune.rewards.photo.pickscore import PickScore
from paretune.types import Prompt, Reward

WIDTH, LAYERS = 256, 6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    prompts = [Prompt(f"a picture of {letter}") for letter in string.ascii_lowercase[: options.pictures]]
    prompts = (prompts * options.pictures)[: options.pictures]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = [make_clip(root / str(seed), seed) for seed in range(3)]
        head = make_head(root / "head.safetensors")
        same = [PickScore(paths[0], paths[0]), ClipScore(paths[0]), Aesthetic(head, paths[0])]
        other = [PickScore(paths[0], paths[0]), ClipScore(paths[1]), ClipScore(paths[2])]
        cases: dict[str, tuple[Sequence[Reward], bool]] = {
            "one": (same[:1], True), "same": (same, True), "apart": (same, False),
            "other_weights": (other, True), "other_weights_apart": (other, False),
        }  # fmt: skip
        seconds: dict[str, list[float]] = {name: [] for name in cases}
        for turn in range(options.repeats):
            for name, (rewards, remember) in cases.items():
                pictures = torch.rand(options.pictures, 3, options.side, options.side)
                seconds[name].append(timed(rewards, pictures, prompts, remember, turn))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(json.dumps({
        "pictures": options.pictures, "side": options.side, "layers": LAYERS, "width": WIDTH,
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "ratio": {name: round(value / medians["one"], 3) for name, value in medians.items()},
    }))  # fmt: skip


def timed(
    rewards: Sequence[Reward], pictures: torch.Tensor, prompts: list[Prompt], remember: bool, turn: int
) -> float:
    """Seconds to score one batch by all rewards. remember: what several need is kept, as in a run."""
    own = Memo.get
    if not remember:
        Memo.get = lambda memo, key, make: make()  # type: ignore[method-assign]
    told = [Prompt(f"{prompt.text} {turn}") for prompt in prompts]  # texts are new every time too
    begun = time.perf_counter()
    try:
        for reward in rewards:
            reward.score(pictures, told)
    finally:
        Memo.get = own  # type: ignore[method-assign]
    return time.perf_counter() - begun


def make_clip(folder: Path, seed: int) -> str:
    """A random CLIP of 224 pixels, with a tokenizer of single letters."""
    folder.mkdir()
    words = [*string.ascii_lowercase, *(f"{c}</w>" for c in string.ascii_lowercase)]
    vocabulary = {t: i for i, t in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "pad_token": "<|endoftext|>"})
    )
    sizes = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4}
    torch.manual_seed(seed)
    CLIPModel(CLIPConfig(
        text_config={
            **sizes, "num_hidden_layers": 2, "vocab_size": len(vocabulary), "max_position_embeddings": 77,
            "bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1,
        },
        vision_config={**sizes, "num_hidden_layers": LAYERS, "image_size": 224, "patch_size": 14},
        projection_dim=WIDTH,
    )).save_pretrained(folder)  # fmt: skip
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))
    return str(folder)


def make_head(file: Path) -> str:
    """Random layers of LAION's predictor."""
    tensors = {}
    for place, inner, outer in zip(PLACES, (WIDTH, *WIDTHS[:-1]), WIDTHS, strict=True):
        tensors[f"layers.{place}.weight"] = torch.randn(outer, inner) / inner**0.5
        tensors[f"layers.{place}.bias"] = torch.zeros(outer)
    save_file(tensors, file)
    return str(file)


if __name__ == "__main__":
    main()
