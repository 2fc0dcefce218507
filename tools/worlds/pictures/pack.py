"""Average two trained folders and write the result as the package keeps it.

    python -m tools.worlds.pictures.pack CRISP MISLABELLED --share 0.7 --out DIR

The second went on from the first, so that points between their weights are models too: between drawing
what the caption says and erring as mislabelled data does. Weights become float16, the autoencoder's
stay float32, and configurations lose the names of the folders that they came from.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

AVERAGED = (
    "transformer/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "text_encoder_2/model.safetensors",
)
LEFT_OUT = shutil.ignore_patterns("checkpoint.safetensors", "position.json", "log.jsonl", "vocabulary")


def main() -> None:
    """Average, halve and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, required=True, help="of the second")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    shutil.copytree(args.second, args.out, dirs_exist_ok=True, ignore=LEFT_OUT)
    for name in AVERAGED:
        first, second = load_file(args.first / name), load_file(args.second / name)
        mixed = {k: torch.lerp(first[k].float(), v.float(), args.share).half() for k, v in second.items()}
        save_file(mixed, args.out / name, metadata={"format": "pt"})
    for path in args.out.glob("**/*.json"):
        facts = json.loads(path.read_text())
        if facts.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
