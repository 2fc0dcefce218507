"""Train the preference reward, or its judge, from pairs that the imaginary annotators chose
between.

    python -m tools.worlds.pictures.train_preference            # the reward
    python -m tools.worlds.pictures.train_preference --judge    # the judge

Each caption comes with four pictures. Of each two the annotators choose one by a Bradley-Terry
draw from their utilities (`taste`, wrong facts, spoiled pictures), and the network learns the
choices: PickScore's loss (Kirstain et al. 2023, arXiv 2305.01569). The judge has another
kind of picture layers, another seed and other pairs. "zero" is the median score of the candidates.
"""

from __future__ import annotations

import argparse
import itertools
import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from paretune.rewards.worlds.towers import FactMatcher, encode_words
from paretune.worlds.pictures.render import BACKGROUNDS, random_style, render

from .annotate import candidate, random_caption
from .facts import count_accuracy, fine_tuner, learn_facts
from .fitting import fit, jittered, save_weights

SEEDS = {"preference": 41, "preference_judge": 42_000}
EACH = 4
PAIRS = torch.tensor(list(itertools.combinations(range(EACH), 2)))


@dataclass(frozen=True)
class Choices:
    """pictures: uint8 [N, 4, 3, 32, 32]; words: int64 [N, 12]; utilities: [N, 4] in logits."""

    pictures: torch.Tensor
    words: torch.Tensor
    utilities: torch.Tensor


def make_choices(seed: int, size: int) -> Choices:
    """`size` captions with four candidates each."""
    rng = random.Random(seed)
    pictures, captions, utilities = [], [], []
    for _ in range(size):
        scene, text = random_caption(rng)
        four = [candidate(scene, rng) for _ in range(EACH)]
        pictures.append(np.stack([c.picture for c in four]))
        utilities.append([c.utility for c in four])
        captions.append(text)
    images = torch.from_numpy(np.stack(pictures)).permute(0, 1, 4, 2, 3).contiguous()
    return Choices(images, encode_words(captions), torch.tensor(utilities))


def pair_logits(scores: torch.Tensor) -> torch.Tensor:
    """Of scores [N, 4], how much the first of each of the six pairs leads. [N, 6]."""
    return scores[:, PAIRS[:, 0]] - scores[:, PAIRS[:, 1]]


def train(network: FactMatcher, choices: Choices, steps: int, seed: int) -> None:
    """Fit a network to choices drawn anew at each step, for as many annotators."""
    rng = torch.Generator().manual_seed(seed)

    def loss() -> torch.Tensor:
        rows = torch.randint(len(choices.words), (24,), generator=rng)
        pictures = jittered(choices.pictures[rows].flatten(0, 1).float() / 255, rng)
        words = choices.words[rows].repeat_interleave(EACH, 0)
        logits = pair_logits(network(pictures, words).view(-1, EACH))
        chosen = torch.bernoulli(pair_logits(choices.utilities[rows]).sigmoid(), generator=rng)
        return nn.functional.binary_cross_entropy_with_logits(logits, chosen)

    fit(fine_tuner(network, 3e-3), steps, loss, "choices")


@torch.no_grad()
def measure(network: nn.Module, seed: int) -> dict[str, float]:
    """Held-out pairs: agreement with drawn choices and with utility; how blanks fare."""
    held = make_choices(seed, 400)
    words = held.words.repeat_interleave(EACH, 0)
    scores = network(held.pictures.flatten(0, 1).float() / 255, words).view(-1, EACH)
    logits, truth = pair_logits(scores), pair_logits(held.utilities)
    drawn = torch.bernoulli(truth.sigmoid(), generator=torch.Generator().manual_seed(seed))
    blank = torch.tensor(list(BACKGROUNDS.values()))[:, :, None, None].expand(-1, -1, 32, 32) / 255
    good, faithful = faithful_scores(network, seed + 1)
    empty = torch.stack([network(b.expand(len(faithful), -1, -1, -1), faithful) for b in blank])
    return {
        "agreement_with_choices": _share((logits > 0) == (drawn > 0.5)),
        "agreement_with_utility": _share((logits > 0) == (truth > 0)),
        "best_possible_agreement_with_choices": _share((truth > 0) == (drawn > 0.5)),
        "faithful_beats_blank": _share(good > empty),
    }


@torch.no_grad()
def faithful_scores(network: nn.Module, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores [400] of faithful pictures of random styles, and their captions' words [400, 12]."""
    rng = random.Random(seed)
    drawn = [random_caption(rng) for _ in range(400)]
    pictures = np.stack([render(scene, random_style(rng), rng) for scene, _ in drawn])
    words = encode_words([text for _, text in drawn])
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return network(images, words), words


@torch.no_grad()
def usual_score(network: nn.Module, seed: int) -> torch.Tensor:
    """The median score of the candidates that annotators choose between, right, wrong or spoiled."""
    held = make_choices(seed, 400)
    words = held.words.repeat_interleave(EACH, 0)
    return network(held.pictures.flatten(0, 1).float() / 255, words).median()


def _share(hits: torch.Tensor) -> float:
    return round(float(hits.float().mean()), 4)


def main() -> None:
    """Train, measure and save one of the two."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--judge", action="store_true")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--facts", type=int, default=1400, help="steps of learning to name facts")
    parser.add_argument("--captions", type=int, default=6000)
    options = parser.parse_args()
    name = "preference_judge" if options.judge else "preference"
    seed = SEEDS[name]
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    network = FactMatcher("wide" if options.judge else "deep")
    learn_facts(network, seed, options.facts, 4 * options.captions)
    train(network, make_choices(seed, options.captions), options.steps, seed)
    network.eval()
    zero = usual_score(network, seed + 1)
    log = {"seed": seed, "steps": options.steps, "captions": options.captions,
           "facts": options.facts, "counts_all_right": count_accuracy(network, seed + 3)}
    log.update(measure(network, seed + 2))
    print(log)
    save_weights(name, {**network.state_dict(), "zero": zero}, log)


if __name__ == "__main__":
    main()
