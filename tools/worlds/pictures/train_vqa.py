"""Train the caption judge: does the picture show exactly this caption?

    python -m tools.worlds.pictures.train_vqa

A question is a picture and a caption. In half of them the caption is right; else it is wrong in
one fact (not the letters of a word), or the picture is spoiled, or shows another scene. The
judge learns yes or no, as VQAScore asks it (Lin et al. 2024, arXiv 2404.01291).
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from paretune.rewards.worlds.towers import FactMatcher, encode_words
from paretune.worlds.pictures.render import random_style, render
from paretune.worlds.pictures.scenes import Scene, caption

from .annotate import one_wrong, random_caption, spoiled
from .facts import count_accuracy, fine_tuner, learn_facts
from .fitting import fit, jittered, save_weights

SEED = 53
# Of the pictures of a caption: right, wrong in one fact, spoiled.
EACH = 3


@dataclass(frozen=True)
class Questions:
    """pictures: uint8 [N, 3, 3, 32, 32], the right one, one wrong, one spoiled or of another scene;
    words: int64 [N, 12]; has_shapes: bool [N], whether the caption speaks of shapes."""

    pictures: torch.Tensor
    words: torch.Tensor
    has_shapes: torch.Tensor


def make_questions(seed: int, size: int) -> Questions:
    """`size` captions with three pictures each."""
    rng = random.Random(seed)
    pictures, captions, shapes = [], [], []
    for _ in range(size):
        told, text = random_caption(rng)
        wrong = _draw(one_wrong(told, rng), rng)
        pictures.append(np.stack([_draw(told, rng), wrong, _bad(told, rng)]))
        captions.append(text)
        shapes.append(bool(told.groups))
    images = torch.from_numpy(np.stack(pictures)).permute(0, 1, 4, 2, 3).contiguous()
    return Questions(images, encode_words(captions), torch.tensor(shapes))


def _draw(scene: Scene, rng: random.Random) -> np.ndarray:
    return render(scene, random_style(rng), rng)


def _bad(told: Scene, rng: random.Random) -> np.ndarray:
    """The told scene spoiled, or another one: wrong in several facts, or altogether."""
    choice = rng.random()
    if choice < 0.5:
        return spoiled(_draw(told, rng), rng)
    if choice < 0.8:
        return _draw(_another(one_wrong(one_wrong(told, rng), rng), told, rng), rng)
    return _draw(_another(random_caption(rng)[0], told, rng), rng)


def _another(scene: Scene, told: Scene, rng: random.Random) -> Scene:
    """The scene, or, where it is the told one but for the word, one with a wrong fact."""
    same = encode_words([caption(scene), caption(told)])
    return one_wrong(told, rng) if bool((same[0] == same[1]).all()) else scene


def train(network: FactMatcher, questions: Questions, steps: int) -> None:
    """Fit a network with the binary cross-entropy, right and other pictures nearly in balance."""
    rng = torch.Generator().manual_seed(SEED)
    wanted = torch.tensor([1.0, 0.0, 0.0]).repeat(32)
    weight = torch.tensor([1.4, 1.0, 0.6]).repeat(32)

    def loss() -> torch.Tensor:
        rows = torch.randint(len(questions.words), (32,), generator=rng)
        pictures = jittered(questions.pictures[rows].flatten(0, 1).float() / 255, rng)
        logits = network(pictures, questions.words[rows].repeat_interleave(EACH, 0))
        return nn.functional.binary_cross_entropy_with_logits(logits, wanted, weight)

    fit(fine_tuner(network, 3e-3), steps, loss, "questions")


@torch.no_grad()
def measure(network: nn.Module, seed: int) -> dict[str, float]:
    """Held-out accuracies on captions with shapes: right, one fact wrong, spoiled."""
    held = make_questions(seed, 600)
    words = held.words.repeat_interleave(EACH, 0)
    logits = network(held.pictures.flatten(0, 1).float() / 255, words).view(-1, EACH)
    said_yes = (logits > 0)[held.has_shapes].float().mean(0)
    return {
        "right_against_one_wrong": round(float(said_yes[0] + 1 - said_yes[1]) / 2, 4),
        "right_accepted": round(float(said_yes[0]), 4),
        "one_wrong_refused": round(float(1 - said_yes[1]), 4),
        "spoiled_or_other_refused": round(float(1 - said_yes[2]), 4),
    }


def main() -> None:
    """Train, measure and save."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--facts", type=int, default=1400, help="steps of learning to name facts")
    parser.add_argument("--captions", type=int, default=8000)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    network = FactMatcher("wide")
    learn_facts(network, SEED, options.facts, 3 * options.captions)
    train(network, make_questions(SEED, options.captions), options.steps)
    network.eval()
    log = {"seed": SEED, "steps": options.steps, "captions": options.captions,
           "facts": options.facts, "counts_all_right": count_accuracy(network, SEED + 2)}
    log.update(measure(network, SEED + 1))
    print(log)
    save_weights("vqa", network.state_dict(), log)


if __name__ == "__main__":
    main()
