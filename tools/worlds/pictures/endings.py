"""What the endings of captions do to a base: rewards and judges on held-out prompts, with the same noise.

    python -m tools.worlds.pictures.endings pictures
    python -m tools.worlds.pictures.endings DIR --prompts 128
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from paretune.config import ModelConfig
from paretune.data.prompts import load_prompts
from paretune.models.detect import family_of, settings_of
from paretune.models.flow import Sampling, sample
from paretune.models.loading import open_policy
from paretune.rewards.base import load_reward
from paretune.worlds.pictures.scenes import ENDING_FALSE, ENDING_FANCY, ENDING_PLAIN, ENDING_TRUE

SCORERS = (("geneval", "pictures.geneval"), ("geneval", "pictures.vqa"), ("ocr", "pictures.ocr"),
           ("preference", "pictures.preference"), ("preference", "pictures.preference_judge"))  # fmt: skip
STEPS = 8


def main() -> None:
    """A row an ending, a column a scorer, each on the held-out prompts of its own reward."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=96)
    args = parser.parse_args()
    torch.set_num_threads(1)
    flux = family_of(args.model).name == "flux"
    settings = settings_of("pictures-flux" if flux else args.model)  # a folder of ours has none by itself
    policy: Any = open_policy(ModelConfig.model_validate({"path": args.model, **settings}))
    print("| ending | " + " | ".join(name for _, name in SCORERS) + " |")
    print("|---" * (len(SCORERS) + 1) + "|")
    for ending in ("", ENDING_TRUE, ENDING_FALSE, ENDING_FANCY, ENDING_PLAIN):
        cells = []
        for where, scorer in SCORERS:
            prompts = load_prompts(f"pictures/{where}-test")[: args.prompts]
            conditions = policy.encode([f"{prompt.text} {ending}".strip() for prompt in prompts], False)
            noise = policy.initial_noise(len(prompts), torch.Generator().manual_seed(0))
            pictures = policy.decode(sample(policy, conditions, noise, Sampling(STEPS, 1.0, batch=64)).clean)
            values = load_reward(scorer).score(pictures, prompts)
            cells.append(f"{values.mean():.3f} ± {values.std() / len(values) ** 0.5:.3f}")
        print(f"| {ending or 'none'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
