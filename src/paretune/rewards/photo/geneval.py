"""GenEval (Ghosh et al. 2023, arXiv 2310.11513) on photographs: are the prompt's facts shown?

Objects come from a Mask2Former of transformers, their colours from a CLIP on the masked crop, their
positions from the centres of their boxes; thresholds, prompts, colours and rules are GenEval's.
What is found is judged by `geneval_rules`: with `strict` by GenEval's verdict, 1 or 0, otherwise by the share
of what is asked that Flow-GRPO rewards.

The rules are the official ones to the last verdict, on the same detections. The detections are not the same,
so that figures are comparable only with each other and not with GenEval's tables: its official evaluation
runs mmdet's mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco and open_clip's ViT-L-14. Here the detector is
another checkpoint (Facebook's) in another implementation; its confidence is computed as mmdet computes
it (class probability times mean probability in the mask), but the picture's size is the one that the
checkpoint's processor names, sides rounded to its divisor, and masks go to the picture's size in one
step. The CLIP has the same weights, in another implementation.

Shapes: B pictures of H x W; Q queries of the detector, C classes; N objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional

from paretune.types import Prompt

from ..checks import Checked
from ..hub import frozen, normalised, processor_settings
from ..pinned import pinned
from ..records import Known, check_geneval, geneval_record
from .clip import Clip, shared_clip
from .geneval_rules import (
    COLORS,
    COUNTING_THRESHOLD,
    NO_LIMIT,
    THRESHOLD,
    Found,
    class_name,
    kept,
    photo_score,
    surest_color,
    threshold_of,
)

TEMPLATES = (
    "a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object",
)  # fmt: skip
GREY = 0x99 / 255
MOST_CANDIDATES = 100
BATCH = 8


class GenEvalPhoto(Checked):
    """How much of its GenEval record a photograph shows; if `strict`, whether it shows all.

    detector, clip: hub ids or folders of a Mask2Former for instances and of a CLIP with its tokenizer.
    threshold: objects less sure than this are not there; counting_threshold: in records tagged
    "counting"; overlap: an object that covers a surer one of its class this much is not there, 1 for all
    are. device: "cuda" where there is one, unless given. revision: the commit of `detector`.
    """

    name = "geneval_photo"
    range = (0.0, 1.0)
    higher_is_better = True

    def __init__(
        self,
        detector: str = "facebook/mask2former-swin-small-coco-instance",
        clip: str = "openai/clip-vit-large-patch14",
        strict: bool = False,
        threshold: float = THRESHOLD,
        counting_threshold: float = COUNTING_THRESHOLD,
        overlap: float = NO_LIMIT,
        device: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.strict = strict
        self._threshold, self._counting_threshold, self._overlap = threshold, counting_threshold, overlap
        self._detector = InstanceDetector(detector, device, revision)
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
        thresholds = [threshold_of(p.metadata, self._threshold, self._counting_threshold) for p in prompts]
        found = self._detector.detect(samples, thresholds, self._overlap)
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

    def __init__(self, model: str, device: str | None = None, revision: str | None = None) -> None:
        from transformers import AutoModelForUniversalSegmentation

        commit = pinned(model, revision)
        self._network = frozen(AutoModelForUniversalSegmentation, model, device, **commit)
        labels = self._network.config.id2label
        self.names = [class_name(labels[i]) for i in range(len(labels))]
        self._settings = processor_settings(model, **commit)

    @torch.no_grad()
    def detect(
        self, pictures: torch.Tensor, thresholds: Sequence[float], overlap: float = NO_LIMIT
    ) -> list[list[Found]]:
        """The objects that count at a picture's threshold, the surest first; pictures [B, 3, H, W]."""
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
                threshold = thresholds[len(found)]
                objects = instances(classes, masks, self.names, (height, width), threshold)
                found.append(kept(objects, threshold, overlap))
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
        return surest_color((features @ self._classifier(item.name).T)[0].tolist())

    def _classifier(self, name: str) -> torch.Tensor:
        """Unit features [10, D] of the colours of a class: the mean over the templates."""
        if name not in self._classifiers:
            texts = [t.format(color=color, name=name) for color in COLORS for t in TEMPLATES]
            features = self._clip.texts(texts).view(len(COLORS), len(TEMPLATES), -1).mean(1)
            self._classifiers[name] = functional.normalize(features, dim=-1)
        return self._classifiers[name]


# ---------------------------------------------------------------- pictures to objects


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
    """The objects surer than `threshold` in a picture of `size`, of mmdet's 100 candidates, surest first.

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
    return sorted(found, key=lambda o: -o.score)


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
