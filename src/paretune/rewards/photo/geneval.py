"""GenEval (Ghosh et al. 2023, arXiv 2310.11513) on photographs: are the prompt's facts shown?

Objects come from a Mask2Former of transformers, their colours from a CLIP on the masked crop, their
positions from the centres of their boxes; thresholds, prompts, colours and rules are GenEval's.
- `strict` is GenEval's verdict, 1 or 0: every entry of `include` has at least `count` objects of its
  class, of which the `count` surest all have its colour and all stand in its position to all objects
  of the entry it names; and of no entry of `exclude` there are `count` or more.
- Otherwise the mean of the parts that Flow-GRPO (arXiv 2505.05470) rewards. An entry that asks for k
  and gets n gives max(0, 1 - |n - k|/k). One that also asks for a colour or a position gives 0 for
  that where n is not k, else max(0, 1 - |m - k|/k) for the colour (m of the right one) and 1 or 0 for
  the position. Flow-GRPO's server lets the count's part fall below 0 and adds a part of 1 after every
  position, right or wrong; we do neither. An entry of `exclude` whose class nothing includes, which
  GenEval's prompts do not have, costs up to half.
Other objects than those asked for cost nothing, unlike in `pictures.geneval`, whose world shows little else.

Figures are comparable only with each other, not with GenEval's tables. GenEval's official evaluation
runs mmdet's mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco and open_clip's ViT-L-14. Here the detector is
another checkpoint (Facebook's) in another implementation; its confidence is computed as mmdet computes
it (class probability times mean probability in the mask), but the picture's size is the one that the
checkpoint's processor names, sides rounded to its divisor, and masks go to the picture's size in one
step. The CLIP has the same weights, in another implementation.

Shapes: B pictures of H x W; Q queries of the detector, C classes; N objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn import functional

from paretune.types import Prompt

from ..checks import Checked
from ..hub import frozen, normalised, processor_settings
from ..records import Known, check_geneval, geneval_record
from .clip import Clip, shared_clip

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = (
    "a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object",
)  # fmt: skip
GREY = 0x99 / 255
OVERLAP = 0.1
MOST_OBJECTS = 16
MOST_CANDIDATES = 100
BATCH = 8
# GenEval's names of COCO's classes, by the other names that they go by.
NAMES = {
    "mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard",
    "motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "tvmonitor": "tv",
    "pottedplant": "potted plant", "diningtable": "dining table", "hair dryer": "hair drier",
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """One object: its class (GenEval's name), confidence, box (left, top, right, bottom in pixels),
    colour where somebody asks for it, and mask, bool [H, W]."""

    name: str
    score: float
    box: tuple[float, float, float, float]
    color: str | None = None
    mask: torch.Tensor | None = field(default=None, compare=False, repr=False)


class GenEvalPhoto(Checked):
    """How much of its GenEval record a photograph shows; if `strict`, whether it shows all.

    detector, clip: hub ids or folders of a Mask2Former for instances and of a CLIP with its tokenizer.
    threshold: objects less sure than this are not there; counting_threshold: in records tagged
    "counting". device: "cuda" where there is one, unless told.
    """

    name = "geneval_photo"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(
        self,
        detector: str = "facebook/mask2former-swin-small-coco-instance",
        clip: str = "openai/clip-vit-large-patch14",
        strict: bool = False,
        threshold: float = 0.3,
        counting_threshold: float = 0.9,
        device: str | None = None,
    ) -> None:
        self.strict = strict
        self._threshold, self._counting_threshold = threshold, counting_threshold
        self._detector = InstanceDetector(detector, device)
        self._colors = ColorNamer(shared_clip(clip, clip, device))
        self.check = self._check_classes

    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1]; prompts with GenEval records. Returns float32 [B].

        Raises ParetuneError for a prompt without `include`, and for a class the detector lacks.
        """
        found = self.find(samples, prompts)
        return torch.tensor([
            photo_score(p.metadata, objects, self.strict) for p, objects in zip(prompts, found, strict=True)
        ])

    def find(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> list[list[Found]]:
        """The objects of each picture, the surest first, with colours where its record names some."""
        self.check(prompts)
        thresholds = [
            self._counting_threshold if p.metadata.get("tag") == "counting" else self._threshold
            for p in prompts
        ]
        found = self._detector.detect(samples, thresholds)
        return [
            self._colors.colored(picture, objects, geneval_record(prompt.metadata)["include"])
            for picture, objects, prompt in zip(samples, found, prompts, strict=True)
        ]

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt without a whole record; once a detector is loaded, also a class that it lacks."""
        check_geneval("geneval", prompts)

    def _check_classes(self, prompts: Sequence[Prompt]) -> None:
        known = Known(lambda name: class_name(name) in self._detector.names, "COCO's classes", COLORS)
        check_geneval("geneval", prompts, known)


class InstanceDetector:
    """A Mask2Former for instances: pictures to objects with boxes and masks."""

    def __init__(self, model: str, device: str | None = None) -> None:
        from transformers import AutoModelForUniversalSegmentation

        self._network = frozen(AutoModelForUniversalSegmentation, model, device)
        labels = self._network.config.id2label
        self.names = [class_name(labels[i]) for i in range(len(labels))]
        self._settings = processor_settings(model)

    @torch.no_grad()
    def detect(self, pictures: torch.Tensor, thresholds: Sequence[float]) -> list[list[Found]]:
        """The objects surer than a picture's threshold, the surest first; pictures [B, 3, H, W]."""
        found: list[list[Found]] = []
        for chunk in pictures.detach().split(BATCH):
            height, width = chunk.shape[-2:]
            pixels = chunk.to(self._network.device, torch.float32).clamp(0, 1)
            size = detector_size(height, width, self._settings)
            pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
            output = self._network(
                pixel_values=normalised(pixels, self._settings["image_mean"], self._settings["image_std"])
            )
            for classes, masks in zip(output.class_queries_logits, output.masks_queries_logits, strict=True):
                found.append(
                    instances(classes, masks, self.names, (height, width), thresholds[len(found)])
                )
        return found


class ColorNamer:
    """Names the colours of objects by zero-shot CLIP, on their crops with all else grey."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self._classifiers: dict[str, torch.Tensor] = {}

    def colored(
        self, picture: torch.Tensor, objects: Sequence[Found], include: Sequence[Mapping[str, Any]]
    ) -> list[Found]:
        """The objects of a picture [3, H, W], with a colour where an entry of the class names one."""
        asked = {class_name(entry["class"]) for entry in include if "color" in entry}
        return [replace(o, color=self.color(picture, o)) if o.name in asked else o for o in objects]

    def color(self, picture: torch.Tensor, item: Found) -> str:
        """The colour, of COLORS, that fits best an object of a picture [3, H, W]."""
        features = self._clip.pictures(masked_crop(picture, item)[None])
        return COLORS[int((features @ self._classifier(item.name).T).argmax())]

    def _classifier(self, name: str) -> torch.Tensor:
        """Unit features [10, D] of the colours of a class: the mean over the templates."""
        if name not in self._classifiers:
            texts = [t.format(color=color, name=name) for color in COLORS for t in TEMPLATES]
            features = self._clip.texts(texts).view(len(COLORS), len(TEMPLATES), -1).mean(1)
            self._classifiers[name] = functional.normalize(features, dim=-1)
        return self._classifiers[name]


# ---------------------------------------------------------------- pictures to objects


def class_name(name: str) -> str:
    """GenEval's name of a class, by any of its names."""
    return NAMES.get(name, name)


def detector_size(height: int, width: int, settings: Mapping[str, Any]) -> tuple[int, int]:
    """The size that a processor's settings ask for a picture of this size, by its divisor."""
    size, divisor = settings["size"], settings.get("size_divisor") or 32
    if "height" in size:
        high, wide = float(size["height"]), float(size["width"])
    else:
        scale = size["shortest_edge"] / min(height, width)
        scale = min(scale, size.get("longest_edge", float("inf")) / max(height, width))
        high, wide = height * scale, width * scale
    return (max(1, round(high / divisor)) * divisor, max(1, round(wide / divisor)) * divisor)


def instances(
    classes: torch.Tensor,
    masks: torch.Tensor,
    names: Sequence[str],
    size: tuple[int, int],
    threshold: float,
) -> list[Found]:
    """The objects surer than `threshold` in a picture of `size`, at most 16 a class, surest first.

    classes: logits [Q, C + 1], the last one nothing; masks: logits [Q, h, w].
    """
    chances = classes.float().softmax(-1)[:, :-1]
    best, where = chances.flatten().topk(min(MOST_CANDIDATES, chances.numel()))
    found = []
    for chance, place in zip(best.tolist(), where.tolist(), strict=True):
        if chance <= threshold:
            break  # a confidence is at most the chance
        query, label = divmod(int(place), chances.shape[1])
        logits = functional.interpolate(masks[query][None, None].float(), size, mode="bilinear")[0, 0]
        inside = logits > 0
        if inside.any() and (score := chance * float(logits[inside].sigmoid().mean())) > threshold:
            found.append(Found(names[label], score, mask_box(inside), mask=inside.cpu()))
    found.sort(key=lambda o: -o.score)
    return [o for i, o in enumerate(found) if sum(p.name == o.name for p in found[:i]) < MOST_OBJECTS]


def mask_box(mask: torch.Tensor) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a mask, bool [H, W], that is not empty; the end is exclusive."""
    rows, columns = (mask.any(axis).nonzero().flatten() for axis in (1, 0))
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def masked_crop(picture: torch.Tensor, item: Found) -> torch.Tensor:
    """The box of an object out of a picture [3, H, W], with grey where its mask is not."""
    if item.mask is not None:
        picture = torch.where(item.mask.to(picture.device), picture, GREY)
    left, top, right, bottom = (round(side) for side in item.box)
    return picture[:, top:bottom, left:right]


# ---------------------------------------------------------------- objects to a score


def photo_score(record: Mapping[str, Any], found: Sequence[Found], strict: bool = False) -> float:
    """The score of one picture, in [0, 1], from its record and its objects, the surest first."""
    return float(is_correct(record, found)) if strict else partial_score(record, found)


def is_correct(record: Mapping[str, Any], found: Sequence[Found]) -> bool:
    """GenEval's verdict."""
    record = geneval_record(record)
    include = record["include"]
    groups = [_matched(entry, _shown(entry, found)[: entry["count"]]) for entry in include]
    held = all(group and _placed(entry, group, groups) for entry, group in zip(include, groups, strict=True))
    return held and not any(_broken(entry, found) for entry in record["exclude"])


def partial_score(record: Mapping[str, Any], found: Sequence[Found]) -> float:
    """Flow-GRPO's share of what is asked; see the head of this file."""
    record = geneval_record(record)
    include = record["include"]
    groups = [_matched(entry, _shown(entry, found)) for entry in include]
    parts = []
    for entry, group in zip(include, groups, strict=True):
        shown, count = _shown(entry, found), entry["count"]
        parts.append(_closeness(len(shown), count))
        if len(shown) != count:
            parts.extend([0.0] if "color" in entry or entry.get("position") else [])
            continue
        if "color" in entry:
            parts.append(_closeness(sum(o.color == entry["color"] for o in shown), count))
        if entry.get("position") and group:
            parts.append(float(_placed(entry, group, groups)))
    counted = {class_name(entry["class"]) for entry in include}
    others = [e for e in record["exclude"] if class_name(e["class"]) not in counted]
    broken = sum(_broken(entry, found) for entry in others) / max(1, len(others))
    return sum(parts) / len(parts) * (1 - 0.5 * broken)


def relations(a: Found, b: Found) -> set[str]:
    """How `a` stands to `b`: GenEval's rule on the centres of their boxes.

    On each axis the offset shrinks by a tenth of both boxes' sides; what is left holds where it is
    more than half of the whole offset's length.
    """
    offset, rest = [], []
    for low, high in ((0, 2), (1, 3)):
        apart = (a.box[low] + a.box[high] - b.box[low] - b.box[high]) / 2
        sides = abs(a.box[high] - a.box[low]) + abs(b.box[high] - b.box[low])
        left = max(abs(apart) - OVERLAP * sides, 0.0)
        offset.append(apart)
        rest.append(left if apart > 0 else -left)
    if max(map(abs, rest)) < 1e-3:
        return set()
    length = (offset[0] ** 2 + offset[1] ** 2) ** 0.5
    dx, dy = rest[0] / length, rest[1] / length
    told = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, holds in told.items() if holds}


def _shown(entry: Mapping[str, Any], found: Sequence[Found]) -> list[Found]:
    """The objects of an entry's class, the surest first."""
    return [o for o in found if o.name == class_name(entry["class"])]


def _matched(entry: Mapping[str, Any], shown: list[Found]) -> list[Found]:
    """The objects, if they have the entry's number and all its colour; else none."""
    colored = "color" not in entry or all(o.color == entry["color"] for o in shown)
    return shown if len(shown) == entry["count"] and colored else []


def _placed(entry: Mapping[str, Any], group: Sequence[Found], groups: Sequence[Sequence[Found]]) -> bool:
    """Whether all of a group stand to all of the group that the entry names as it says."""
    if not entry.get("position"):
        return True
    relation, index = entry["position"]
    return bool(groups[index]) and all(relation in relations(a, b) for a in group for b in groups[index])


def _broken(entry: Mapping[str, Any], found: Sequence[Found]) -> bool:
    return len(_shown(entry, found)) >= entry["count"]


def _closeness(shown: int, asked: int) -> float:
    return max(0.0, 1 - abs(shown - asked) / asked)
