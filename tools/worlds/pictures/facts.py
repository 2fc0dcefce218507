"""Teach a `FactMatcher`'s towers to name facts, before it learns what people make of them.

Each example is a scene, its picture and its caption. The picture's tower learns how many of every class
are shown and where, the caption's tower how many are asked for and what lies where.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from paretune.rewards.worlds.towers import CLASSES, COUNTS, FactMatcher, encode_words
from paretune.worlds.pictures.render import SIGN_HEIGHT, layout, random_style, render
from paretune.worlds.pictures.scenes import Scene

from .annotate import random_caption
from .fitting import fit, jittered

WAYS = {"left of": (-1.0, 0.0), "right of": (1.0, 0.0), "above": (0.0, -1.0), "below": (0.0, 1.0)}
SIGN = len(CLASSES) - 1
CELL = 4  # pixels


def facts_of(scene: Scene) -> tuple[list[int], int, int, tuple[float, float]]:
    """Counts of every class, the relation's subject and object, and its direction ((0, 0) for none)."""
    counts = [0] * len(CLASSES)
    places = [CLASSES.index((g.shape, g.color)) for g in scene.groups]
    for place, group in zip(places, scene.groups, strict=True):
        counts[place] += group.count
    counts[SIGN] = int(scene.word is not None)
    if scene.relation:
        return counts, places[0], places[1], WAYS[scene.relation]
    if scene.word is not None and scene.groups:
        return counts, SIGN, places[0], WAYS[scene.sign_place or "above"]
    return counts, SIGN, SIGN, (0.0, 0.0)


def map_of(scene: Scene, rng: random.Random) -> np.ndarray:
    """How many centres of each class lie in each cell, float32 [C, 8, 8], of the picture drawn with `rng`."""
    sign_y, places = layout(scene, rng)
    cells = np.zeros((len(CLASSES), 8, 8), np.float32)
    shapes = [(g.shape, g.color) for g in scene.groups for _ in range(g.count)]
    for shape, (x, y, _) in zip(shapes, places, strict=True):
        cells[CLASSES.index(shape), int(y // CELL), int(x // CELL)] += 1
    if scene.word is not None:
        cells[SIGN, (sign_y + SIGN_HEIGHT // 2) // CELL, 4] = 1
    return cells


@dataclass(frozen=True)
class Lessons:
    """pictures: uint8 [N, 3, 32, 32]; words: int64 [N, 12]; cells: [N, C, 8, 8] as `map_of`; counts: int64
    [N, C]; subjects, objects: int64 [N]; ways: [N, 2]."""

    pictures: torch.Tensor
    words: torch.Tensor
    cells: torch.Tensor
    counts: torch.Tensor
    subjects: torch.Tensor
    objects: torch.Tensor
    ways: torch.Tensor


def make_lessons(seed: int, size: int) -> Lessons:
    """`size` scenes with their pictures, captions and facts."""
    rng = random.Random(seed)
    pictures, captions, cells, told = [], [], [], []
    for _ in range(size):
        scene, text = random_caption(rng)
        style, own = random_style(rng), rng.getrandbits(32)
        pictures.append(render(scene, style, random.Random(own)))
        cells.append(map_of(scene, random.Random(own)))
        captions.append(text)
        told.append(facts_of(scene))
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    facts = (torch.tensor([t[i] for t in told]) for i in range(4))
    return Lessons(images, encode_words(captions), torch.from_numpy(np.stack(cells)), *facts)


def learn_facts(network: FactMatcher, seed: int, steps: int, size: int) -> None:
    """Fit both towers on `size` scenes, in place."""
    lessons = make_lessons(seed, size)
    draw = torch.Generator().manual_seed(seed)

    def loss() -> torch.Tensor:
        rows = torch.randint(size, (64,), generator=draw)
        return facts_loss(network, lessons, rows, draw)

    fit(torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=0.02), steps, loss, "facts")


def facts_loss(
    network: FactMatcher, lessons: Lessons, rows: torch.Tensor, draw: torch.Generator
) -> torch.Tensor:
    """The loss of the lessons `rows`: evidence in its cell, counts, and the caption's words for them."""
    cross_entropy = nn.functional.cross_entropy
    seen = network.see(jittered(lessons.pictures[rows].float() / 255, draw))
    asked = network.ask(lessons.words[rows])
    counts, ways = lessons.counts[rows], lessons.ways[rows]
    subjects, objects = lessons.subjects[rows], lessons.objects[rows]
    # Poisson: where nothing is seen yet the counts' cross-entropy alone has no slope.
    placed = nn.functional.poisson_nll_loss(
        seen.evidence, lessons.cells[rows], log_input=False, eps=1e-4, reduction="sum"
    ) / len(rows)
    shown = cross_entropy(network.count_logits(seen).flatten(0, 1), counts.flatten())
    wanted = cross_entropy(asked.counts.reshape(-1, COUNTS), counts.flatten())
    has_way = ways.abs().sum(1) > 0
    pick = nn.functional.one_hot(torch.stack([subjects, objects]), len(CLASSES)).float()
    related = network.related(seen, pick[0], pick[1], ways)[has_way]
    return (
        placed
        + 10 * (shown + wanted)
        + cross_entropy(asked.subject[has_way], subjects[has_way])
        + cross_entropy(asked.object[has_way], objects[has_way])
        + 4 * nn.functional.mse_loss(asked.direction, ways)
        + nn.functional.softplus(-related).mean()
    )


def fine_tuner(network: FactMatcher, rate: float) -> torch.optim.Optimizer:
    """An optimiser for what comes after: the heads at `rate`, what names facts at a tenth of it."""
    heads = ("match.", "look.", "features.")
    new = [p for name, p in network.named_parameters() if name.startswith(heads)]
    known = [p for name, p in network.named_parameters() if not name.startswith(heads)]
    return torch.optim.AdamW(
        [{"params": new, "lr": rate}, {"params": known, "lr": rate / 10}], weight_decay=0.02
    )


@torch.no_grad()
def count_accuracy(network: FactMatcher, seed: int) -> float:
    """Share of held-out pictures whose every count is seen right."""
    rng = random.Random(seed)
    scenes = [random_caption(rng)[0] for _ in range(600)]
    pictures = np.stack([render(s, random_style(rng), rng) for s in scenes])
    seen = network.see(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255)
    guess = network.count_logits(seen).argmax(-1)
    wanted = torch.tensor([facts_of(s)[0] for s in scenes])
    return round(float((guess == wanted).all(1).float().mean()), 4)
