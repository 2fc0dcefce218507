"""Lists from a file of preferences: read, checked by their lines, encoded once to latents.

Shapes: L lists of K samples.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch.nn.functional import avg_pool2d

from ...config import RunConfig
from ...data.preferences import Media, Preference, load_preferences
from ...files import sha256
from ...models.detect import family_of
from ...models.facts import read_shape
from ...models.latents import cached_latents
from ...models.shapes import Shape
from ...models.tokenizers import unreadable_word
from ...ops.preference_losses import win_rates
from ...samples.files import CLIPS, SHORTEST_SIDE, read_clip
from ...types import ParetuneError
from .builders import Made, Maker, with_paths
from .captions import changed_all
from .labels import check_labels, patch_weights, segment_scores
from .options import PreferenceOptions
from .patches import weighted
from .presets import Composition
from .sets import PreferenceSet


def file_captions(spec: str, preset: Composition) -> list[str]:
    """Every caption that the records of a file need, each once."""
    texts: list[str] = []
    for record in load_preferences(spec):
        texts += [record.prompt, *(captions_of(record, preset) or ())]
    return list(dict.fromkeys(texts))


def captions_of(record: Preference, preset: Composition) -> tuple[str, ...] | None:
    """A caption for each sample, or None if all have the prompt.

    Where a system needs a caption a side and a record has none, samples below the best get a changed prompt.
    """
    if record.captions is not None or preset.builder != "captions":
        return record.captions
    wrong, best = changed_all([record.prompt])[0], max(record.scores)
    return tuple(record.prompt if s == best else wrong for s in record.scores)


# ---------------------------------------------------------------- checks before training


def check_file(
    config: RunConfig, name: str, objective: str, preset: Composition, own: PreferenceOptions
) -> None:
    """Raise ParetuneError if the file of a reward's expert cannot be trained on.

    Args:
        config: the recipe.
        name: the reward.
        objective: of its expert.
        preset: the objective's parts.
        own: its options.
    """
    spec = config.rewards[name].pairs
    assert spec is not None
    if not preset.files:
        raise ParetuneError(
            f"rewards.{name}.pairs: {objective} trains on samples that the run draws; leave the file out"
        )
    if own.target == "kept":
        raise ParetuneError(
            f"rewards.{name}.pairs: objective.options.target: kept needs the noise that a sample came from, "
            "which a file does not have; choose fresh"
        )
    records = load_preferences(spec)
    shape = read_shape(config.model)
    clips = family_of(config.model.path).medium == "clips"
    for record in records:
        check_labels(record, preset, shape, clips)
        strange = unreadable_word(config.model, record.captions or (record.prompt,))
        if strange is not None:
            raise ParetuneError(
                f"{record.where}: the model's tokenizers do not know {strange[1]!r}, nor at least half of "
                f"the words of the caption {strange[0][:60]!r}; leave the record out or translate it"
            )
    if all(tied(record, own.tie, preset) for record in records):
        raise ParetuneError(f"{spec}: all {len(records):,} lists tie, so there is nothing to learn")
    sizes = {len(record.samples) for record in records if not tied(record, own.tie, preset)}
    if whole_lists(preset, own) and len(sizes) > 1:
        few, many = min(sizes), max(sizes)
        raise ParetuneError(
            f"{spec}: lists of {few} and of {many} samples; with objective.options.pairs: all, every list "
            "has as many"
        )
    if preset.builder == "file" and all(record.captions is None for record in records):
        raise ParetuneError(f'{spec}: {objective} weighs a list by its "captions", and no record has them')
    for record in records:
        for media in record.samples:
            check_media(media, record.where, shape, clips)
        if record.captions is None and len({fingerprint(m) for m in record.samples}) < len(record.samples):
            raise ParetuneError(f"{record.where}: two sides are the same picture")


def tied(record: Preference, tie: float, preset: Composition) -> bool:
    """Whether no two scores of a record differ by more than `tie`; of frames, in no segment."""
    parts = zip(*record.segments, strict=True) if preset.cells == "frames" and record.segments \
        else [record.scores]  # fmt: skip
    return all(max(part) - min(part) <= tie for part in parts)


def whole_lists(preset: Composition, own: PreferenceOptions) -> bool:
    """Whether all samples of a list are compared, not the best with the worst alone."""
    return "pairs" in preset.all_reads and own.pairs == "all"


def check_media(media: Media, where: str, shape: Shape | None, clips: bool) -> None:
    """Raise ParetuneError for a sample that is missing, damaged, or of another size than the model's."""
    name = media.name if isinstance(media, Path) else "its picture"
    if isinstance(media, Path) and not media.is_file():
        raise ParetuneError(f"{where}: {media} does not exist")
    try:
        pixels = read_media(media, shape)
    except ParetuneError as error:
        raise ParetuneError(f"{where}: {error}") from error
    if shape is None:
        return
    if tuple(pixels.shape[-2:]) != (shape.height, shape.width):
        raise ParetuneError(
            f"{where}: {name} has {pixels.shape[-1]}x{pixels.shape[-2]} pixels, and the model draws "
            f"{shape.width}x{shape.height} (model.width, model.height)"
        )
    frames = pixels.shape[0] if pixels.ndim == 4 else None
    wanted = shape.frames if clips else None
    if frames != wanted:
        raise ParetuneError(f"{where}: {name} is {_named(frames)}, and the model draws {_named(wanted)}")


def _named(frames: int | None) -> str:
    return "a picture" if frames is None else f"a clip of {frames} frames"


def read_media(media: Media, shape: Shape | None) -> torch.Tensor:
    """A picture [3, H, W] or a clip [T, 3, H, W] in [0, 1].

    Small clips are enlarged in their files (`samples.files.clip_bytes`), and get the model's size again.
    """
    if isinstance(media, Path) and media.suffix.lower() in CLIPS:
        clip = read_clip(media)
        factor = 1 if shape is None else SHORTEST_SIDE // min(shape.height, shape.width)
        enlarged = shape is not None and factor > 1 and \
            tuple(clip.shape[-2:]) == (factor * shape.height, factor * shape.width)  # fmt: skip
        return avg_pool2d(clip, factor) if enlarged else clip
    source = media if isinstance(media, Path) else io.BytesIO(media)
    name = media.name if isinstance(media, Path) else "the picture of this row"
    try:
        with Image.open(source) as image:
            data = bytearray(image.convert("RGB").tobytes())
            width, height = image.size
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise ParetuneError(f"{name} cannot be read as a picture") from error
    pixels = torch.frombuffer(data, dtype=torch.uint8).view(height, width, 3)
    return pixels.permute(2, 0, 1).float() / 255


def fingerprint(media: Media) -> str:
    """The SHA-256 of a sample's bytes."""
    if isinstance(media, bytes):
        return hashlib.sha256(media).hexdigest()
    state = media.stat()
    return _file_hash(media, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=1_000_000)
def _file_hash(path: Path, changed: int, size: int) -> str:
    return sha256(path)


def file_digest(spec: str) -> str:
    """A digest of all that a file of preferences holds, the bytes of its samples among it."""
    total = hashlib.sha256()
    for record in load_preferences(spec):
        prints = [fingerprint(media) for media in record.samples]
        told = (record.prompt, prints, record.scores, record.captions)
        parts = (record.segments, record.patches)
        total.update(repr(told if parts == (None, None) else (*told, *parts)).encode())
    return total.hexdigest()


# ---------------------------------------------------------------- lists


def lists_from_file(maker: Maker, spec: str, generator: torch.Generator) -> Made:
    """`train.prompts_per_epoch` lists of a file, drawn without repetition."""
    preset, own = maker.preset, maker.options
    records = load_preferences(spec)
    kept = [record for record in records if not tied(record, own.tie, preset)]
    if spec not in maker.latents:
        maker.latents[spec] = encoded(maker, records)
    latents = maker.latents[spec]
    drawn = torch.randperm(len(kept), generator=generator)[: maker.setting.train.prompts_per_epoch]
    mixture = maker.learner.mixture
    first = len(mixture.prompts) * (2 if preset.builder == "captions" else 1)
    number = {text: first + i for i, text in enumerate(file_captions(spec, preset))}
    some = [kept[int(i)] for i in drawn]
    rows = [_row(record, maker, number) for record in some]
    size = len(rows[0][0])
    clean = torch.stack([latents[fingerprint(media)] for samples, *_ in rows for media in samples])
    score = torch.tensor([s for _, scores, *_ in rows for s in scores])
    prompt = torch.tensor([p for *_, p in rows])
    facts = {"tied": float(len(records) - len(kept))}
    if preset.builder == "paths":
        return Made(with_paths(clean[::size], prompt, maker, generator), facts)
    if preset.scores == "wins" and not (float(score.min()) >= 0 and float(score.max()) <= 1):
        score = win_rates(score.view(1, -1, size)).flatten()
    caption = torch.tensor([c for _, _, captions, _ in rows for c in captions])
    lists = PreferenceSet(size, clean, caption, score[:, None], prompt=prompt)
    return Made(labelled(lists, some, maker), facts)


def labelled(lists: PreferenceSet, records: Sequence[Preference], maker: Maker) -> PreferenceSet:
    """The lists with the labels of their records' parts, where the objective compares parts."""
    shape, latent = read_shape(maker.setting.model), lists.clean[0]
    orders = [_order(record, maker) for record in records]
    if maker.preset.cells == "frames":
        frames = 1 if shape is None or shape.frames is None else shape.frames
        parts = [segment_scores([(r.segments or ())[i] for i in order], frames, latent.shape[1])
                 for r, order in zip(records, orders, strict=True)]  # fmt: skip
        return replace(lists, score=torch.cat(parts))
    if maker.preset.cells != "patches":
        return lists
    found = weighted(lists).quality  # by likeness, for records without labels
    assert found is not None
    quality = found.view(len(lists), lists.size, -1).clone()
    for row, (record, order) in enumerate(zip(records, orders, strict=True)):
        if record.patches is not None:
            quality[row] = patch_weights([record.patches[i] for i in order], latent, shape)
    return replace(lists, quality=quality.flatten(0, 1))


Row = tuple[list[Media], list[float], list[int], int]


def _row(record: Preference, maker: Maker, number: dict[str, int]) -> Row:
    """The samples of a list that are compared, best first, with scores, captions, and the prompt."""
    order = _order(record, maker)
    captions = captions_of(record, maker.preset) or (record.prompt,) * len(record.samples)
    return (
        [record.samples[i] for i in order], [record.scores[i] for i in order],
        [number[captions[i]] for i in order], number[record.prompt],
    )  # fmt: skip


def _order(record: Preference, maker: Maker) -> list[int]:
    """The samples of a record that are compared, best first."""
    order = sorted(range(len(record.scores)), key=lambda i: -record.scores[i])
    return order if whole_lists(maker.preset, maker.options) else [order[0], order[-1]]


def encoded(maker: Maker, records: Sequence[Preference]) -> dict[str, torch.Tensor]:
    """The latents of all samples by their fingerprints; encoded once, then read from the cache."""
    media = {fingerprint(m): m for record in records for m in record.samples}
    policy, size = maker.policy, maker.policy.initial_noise(1, torch.Generator()).shape[1:]
    shape = read_shape(maker.setting.model)

    def make() -> torch.Tensor:
        parts, every = [], list(media.values())
        for start in range(0, len(every), maker.sampling.batch):
            some = every[start : start + maker.sampling.batch]
            parts.append(policy.encode_media(torch.stack([read_media(m, shape) for m in some])))
        return torch.cat(parts)

    latents = cached_latents(maker.setting.model.path, size, list(media), make)
    return dict(zip(media, latents, strict=True))
