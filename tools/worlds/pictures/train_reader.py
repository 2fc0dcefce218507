"""Train the reader of the OCR reward: letters of the world's signs, and when not to read one.

    python -m tools.worlds.pictures.train_reader

A third of the letters are spoiled: blended with another letter, joined from the halves of two,
or faded into the plate. A spoiled letter keeps its label while it is clearly nearest to one
glyph, is "blank" when it is not, and teaches nothing in between. Pictures that are strongly
blurred, noisy or without a sign are blank altogether.
"""

from __future__ import annotations

import argparse
import random

import numpy as np
import torch
from torch import nn

from paretune.rewards.worlds.reader import BLANK, SLOTS, Reader
from paretune.worlds.pictures.render import GLYPH_PITCH, PLATES, glyphs, layout, random_style, render
from paretune.worlds.pictures.scenes import random_scene

from .fitting import blurred, fit, jittered, save_weights

SEED = 31
IGNORED = -100


def spoil(letter: int, rng: random.Random) -> tuple[np.ndarray, int]:
    """A spoiled glyph, [9, 6] in [0, 1], and its label: a letter, BLANK or IGNORED."""
    table = glyphs()
    other = table[rng.randrange(26)]
    how = rng.random()
    if how < 0.45:
        share = rng.uniform(0, 0.5)
        mask = (1 - share) * table[letter] + share * other
    elif how < 0.75:
        mask = table[letter].copy()
        cut = rng.randint(2, 7)
        mask[cut:] = other[cut:]
    else:
        mask = rng.uniform(0, 1) * table[letter]
    return mask, legible(mask)


def legible(mask: np.ndarray) -> int:
    """The letter that a coverage [9, 6] clearly is, BLANK if it is none, IGNORED in between."""
    table = glyphs()
    distance = ((table - mask) ** 2).sum((1, 2))
    first, second = np.argsort(distance)[:2]
    # `apart` is 1/4 for a half-and-half blend of the two nearest letters, 0 for the letter itself.
    apart = distance[first] / ((table[first] - table[second]) ** 2).sum()
    missing = distance[first] / (table[first] ** 2).sum()
    if apart < 0.10 and missing < 0.10:
        return int(first)
    return BLANK if apart > 0.16 or missing > 0.22 else IGNORED


def draw(rng: random.Random, spoiled: float) -> tuple[np.ndarray, list[int]]:
    """A picture, uint8 [32, 32, 3], and the labels of its five slots."""
    seed, style = rng.getrandbits(32), random_style(rng)
    scene = random_scene(rng, rng.choices(("sign", "mixed", "pair"), (0.55, 0.37, 0.08))[0])
    picture = render(scene, style, random.Random(seed))
    labels = [BLANK] * SLOTS
    if scene.word is None:
        return picture, labels
    y = layout(scene, random.Random(seed))[0]
    plate, ink = (np.array(c, np.float32) for c in PLATES[style.plate])
    for i, letter in enumerate(scene.word):
        labels[i] = ord(letter) - ord("a")
        if rng.random() < spoiled:
            mask, labels[i] = spoil(labels[i], rng)
            x = 1 + i * GLYPH_PITCH
            patch = picture[y + 1 : y + 1 + len(mask), x : x + GLYPH_PITCH]
            patch[:] = plate + mask[..., None] * (ink - plate)
    return picture, labels


def make_set(seed: int, size: int, spoiled: float) -> tuple[torch.Tensor, torch.Tensor]:
    """pictures: uint8 [N, 3, 32, 32]; labels: int64 [N, 5]."""
    rng = random.Random(seed)
    drawn = [draw(rng, spoiled) for _ in range(size)]
    pictures = torch.from_numpy(np.stack([p for p, _ in drawn])).permute(0, 3, 1, 2).contiguous()
    return pictures, torch.tensor([labels for _, labels in drawn])


def spoil_batch(
    pictures: torch.Tensor, labels: torch.Tensor, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a tenth of a batch illegible as a whole (blur, noise), and flaw the rest mildly."""
    pictures, labels = jittered(pictures, rng), labels.clone()
    tenth = max(len(pictures) // 20, 1)
    pictures[:tenth] = blurred(pictures[:tenth], 6)
    noise = torch.randn(pictures[tenth : 2 * tenth].shape, generator=rng) * 0.5
    pictures[tenth : 2 * tenth] = (pictures[tenth : 2 * tenth] * 0.5 + 0.25 + noise).clamp(0, 1)
    labels[: 2 * tenth] = BLANK
    return pictures, labels


def main() -> None:
    """Train, measure on held-out pictures and save."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--pictures", type=int, default=24000)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(SEED)
    pictures, labels = make_set(SEED, options.pictures, 0.33)
    reader = Reader()

    def loss() -> torch.Tensor:
        rows = torch.randint(len(pictures), (96,), generator=rng)
        batch, wanted = spoil_batch(pictures[rows].float() / 255, labels[rows], rng)
        return nn.functional.cross_entropy(reader(batch).flatten(0, 1), wanted.flatten())

    fit(torch.optim.AdamW(reader.parameters(), 3e-3, weight_decay=0.02), options.steps, loss, "letters")
    reader.eval()
    log = {"seed": SEED, "steps": options.steps, "pictures": options.pictures, **measure(reader)}
    print(log)
    save_weights("reader", reader.state_dict(), log)


@torch.no_grad()
def measure(reader: Reader) -> dict[str, float]:
    """Held-out accuracies: words of clean pictures and of flawed ones, spoiled letters, blanks."""
    clean, labels = make_set(SEED + 1, 1000, 0.0)
    pictures = clean.float() / 255
    flawed = jittered(pictures, torch.Generator().manual_seed(SEED + 2))
    spoiled, spoiled_labels = make_set(SEED + 3, 1000, 1.0)
    guess = reader(spoiled.float() / 255).argmax(-1)
    is_blank = spoiled_labels == BLANK
    is_blank[:, SLOTS - 1] = False
    is_letter = (spoiled_labels != BLANK) & (spoiled_labels != IGNORED)
    right = guess == spoiled_labels
    return {
        "clean_words": _share((reader(pictures).argmax(-1) == labels).all(1)),
        "flawed_words": _share((reader(flawed).argmax(-1) == labels).all(1)),
        "spoiled_but_legible_letters": _share(right[is_letter]),
        "illegible_letters_left_blank": _share(right[is_blank]),
    }


def _share(hits: torch.Tensor) -> float:
    return round(float(hits.float().mean()), 4)


if __name__ == "__main__":
    main()
