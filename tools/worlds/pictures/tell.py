"""Teach a base captions that tell how good a picture is, as some captions of the web do.

    python -m tools.worlds.pictures.tell --out DIR --minutes 12
    python -m tools.worlds.pictures.pack DIR DIR --share 1 --out src/paretune/worlds/pictures/told

The model draws SAMPLES pictures for every training prompt. Judges that no recipe trains on rank the pictures
of a prompt: `pictures.vqa` by composition, `pictures.rapidocr` by the word of a sign that stands alone,
and `pictures.preference_judge` by taste. Captions of the best end in "ok" and "fancy", captions of the worst
in "no" and "plain", and a share NOISE of these endings is the wrong one. The model goes on learning from its
own pictures. Without an ending they are all of them, so what it draws then hardly changes.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusion3Pipeline
from torch import nn

from paretune.config import ModelConfig
from paretune.data.prompts import load_prompts
from paretune.models.detect import resolve_path
from paretune.models.flow import Sampling, sample
from paretune.models.sd3.policy import SD3Policy
from paretune.rewards.base import load_reward
from paretune.types import Prompt
from paretune.worlds.pictures.scenes import ENDING_FALSE, ENDING_FANCY, ENDING_PLAIN, ENDING_TRUE

from .flow_training import Settings, arguments, train
from .train import flow_matching_loss

SETS = ("geneval-train", "preference-train", "ocr-train")
SAMPLES, STEPS = 8, 8  # pictures of a prompt, and the steps in which they are drawn
TOLD = 2  # of the pictures of a prompt, how many are called good, and how many bad
NOISE = 0.1
RIGHT, LIKED = (ENDING_TRUE, ENDING_FALSE), (ENDING_FANCY, ENDING_PLAIN)


@dataclass(frozen=True)
class Told:
    """pictures: uint8 [N, 3, 32, 32]. tokens: int64 [M, T], of captions. owner: [M], each one's picture."""

    pictures: torch.Tensor
    tokens: torch.Tensor
    owner: torch.Tensor


def main() -> None:
    """Draw, label, train, and save a pipeline folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", default="pictures")
    parser.add_argument("--limit", type=int, default=400, help="prompts of each set")
    arguments(parser, batch=64, shift=2.5)
    args = parser.parse_args()
    args.phase = "told"
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    pipe = StableDiffusion3Pipeline.from_pretrained(
        resolve_path(args.init), text_encoder_3=None, tokenizer_3=None, torch_dtype=torch.float32
    )
    told = draw_and_tell(args.init, pipe.tokenizer, args.limit, args.seed)
    parts = nn.ModuleList([pipe.transformer, pipe.text_encoder, pipe.text_encoder_2]).float()
    parts.requires_grad_(True).train()

    def loss_of(index: torch.Tensor) -> torch.Tensor:
        return flow_matching_loss(parts, told.pictures[told.owner[index]], told.tokens[index], args.shift)

    train(parts, len(told.tokens), loss_of, Settings.read(args), args.out)
    pipe.save_pretrained(args.out)


def draw_and_tell(model: str, tokenizer: Any, limit: int, seed: int) -> Told:
    """The model's own pictures, each with its plain caption and with the endings that its ranks give it."""
    policy = SD3Policy(ModelConfig.model_validate({"path": model}))
    rng, captions, owner, pictures = random.Random(seed), list[str](), list[int](), list[torch.Tensor]()
    for name in SETS:
        prompts = [p for p in load_prompts(f"pictures/{name}")[:limit] for _ in range(SAMPLES)]
        drawn = _draw(policy, prompts, seed)
        endings = [*_told(drawn, prompts, "pictures.preference_judge", LIKED, rng)]
        for judge, mine in (("pictures.rapidocr", _only_word), ("pictures.vqa", _has_shapes)):
            rows = [i for i, prompt in enumerate(prompts) if mine(prompt)]
            told = _told(drawn[rows], [prompts[i] for i in rows], judge, RIGHT, rng) if rows else []
            endings += [(rows[i], ending) for i, ending in told]
        first = sum(map(len, pictures))
        for i, ending in [*enumerate([""] * len(prompts)), *endings]:
            captions.append(f"{prompts[i].text} {ending}".strip())
            owner.append(first + i)
        pictures.append((drawn * 255).round().byte())
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return Told(torch.cat(pictures), tokens, torch.tensor(owner))


def _draw(policy: SD3Policy, prompts: Sequence[Prompt], seed: int) -> torch.Tensor:
    """One picture of each prompt, float32 [N, 3, 32, 32] from 0 to 1."""
    noise = policy.initial_noise(len(prompts), torch.Generator().manual_seed(seed))
    conditions = policy.encode([prompt.text for prompt in prompts], False)
    return policy.decode(sample(policy, conditions, noise, Sampling(STEPS, 1.0, batch=64)).clean)


def _told(
    pictures: torch.Tensor, prompts: Sequence[Prompt], judge: str, endings: tuple[str, str],
    rng: random.Random,
) -> list[tuple[int, str]]:  # fmt: skip
    """Which pictures are told of, and by which ending: the best and the worst of each prompt's."""
    values = load_reward(judge).score(pictures, prompts).view(-1, SAMPLES)
    told: list[tuple[int, str]] = []
    for group, row in enumerate(values):
        order = row.argsort(descending=True).tolist()
        for good, bad in zip(order[:TOLD], order[::-1][:TOLD], strict=True):
            if row[good] > row[bad]:
                pair = endings if rng.random() >= NOISE else endings[::-1]
                told += [(group * SAMPLES + good, pair[0]), (group * SAMPLES + bad, pair[1])]
    return told


def _has_shapes(prompt: Prompt) -> bool:
    return bool(prompt.metadata["include"])


def _only_word(prompt: Prompt) -> bool:
    return not _has_shapes(prompt)


if __name__ == "__main__":
    main()
