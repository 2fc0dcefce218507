"""What a flow model is given beside the noise: the embeddings of prompts, and the latents of input pictures.

Shapes: P prompts; T positions of a text sequence; D the width of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn.functional import pad

Tensors = Mapping[str, torch.Tensor]


def _none() -> Tensors:
    return {}


@dataclass(frozen=True)
class Conditions:
    """Prompt embeddings. embeds [P, T, D], pooled [P, D]; negative_*: what guidance leads away from.

    mask: [P, T], 1 where `embeds` holds a token of the prompt; None for a model that attends to all
    positions. pooled: None for a model without a pooled vector. The negatives are None without guidance;
    otherwise [1, ..], one for all prompts, or [P, ..], one for each. negative_mask: [1 or P, T'].
    more: what else a family's model is given, by names of its own, [P, ...] each: a second text sequence and
    its mask, the latents of the input pictures. negative_more: the negatives of such tensors.
    """

    embeds: torch.Tensor
    pooled: torch.Tensor | None = None
    negative_embeds: torch.Tensor | None = None
    negative_pooled: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    negative_mask: torch.Tensor | None = None
    more: Tensors = field(default_factory=_none)
    negative_more: Tensors = field(default_factory=_none)

    @staticmethod
    def of_outputs(outputs: Tensors) -> Conditions:
        """The output of a policy's `embed`. A blended mask is 1 where any of the blended masks is not 0."""
        masks = {name: (x.abs() > 1e-3).long() for name, x in outputs.items() if name.startswith("mask")}
        more = {name: x for name, x in outputs.items() if name not in ("embeds", "pooled", "mask")}
        more = {name: masks.get(name, x) for name, x in more.items()}
        return Conditions(outputs["embeds"], outputs.get("pooled"), mask=masks.get("mask"), more=more)

    def select(self, index: torch.Tensor) -> Conditions:
        """The conditions of the prompts in `index` (repeats allowed)."""
        index, count = index.to(self.embeds.device), len(self.embeds)
        return self.of_tensors(
            {
                name: value if name.startswith("negative_") and len(value) < count else value[index]
                for name, value in self.tensors().items()
            }
        )

    @staticmethod
    def join(parts: Sequence[Conditions], empty: Conditions | None = None) -> Conditions:
        """Join several batches into one, such as prompts with different tokens.

        Parts with masks, and the tensors of `more`, may differ in length: the shorter are padded with zeros.
        Some pipelines return no mask for prompts of one length: beside a part with a mask, such a part is
        attended to as a whole.
        empty: the conditions of the empty prompt, for guidance; by default the negatives of the parts are
        used: those of the first, or each prompt's own.
        """
        embeds, masks = [p.embeds for p in parts], list[torch.Tensor]()
        if any(p.mask is not None for p in parts):
            kind = next(p.mask.dtype for p in parts if p.mask is not None)
            masks = [
                p.mask
                if p.mask is not None
                else torch.ones(p.embeds.shape[:2], dtype=kind, device=p.embeds.device)
                for p in parts
            ]
            longest = max(e.shape[1] for e in embeds)
            embeds = [pad(e, (0, 0, 0, longest - e.shape[1])) for e in embeds]
            masks = [pad(mask, (0, longest - mask.shape[1])) for mask in masks]
        pooled = [p.pooled for p in parts if p.pooled is not None]
        negative = parts[0] if empty is None else empty.as_negative()
        if empty is None and all(_each_has_its_own(p) for p in parts) and len(parts) > 1:
            negative = Conditions.join([p.negatives() for p in parts]).as_negative()
        return Conditions(
            torch.cat(embeds),
            torch.cat(pooled) if pooled else None,
            negative.negative_embeds,
            negative.negative_pooled,
            torch.cat(masks) if masks else None,
            negative.negative_mask,
            {name: _cat([p.more[name] for p in parts]) for name in parts[0].more},
            negative.negative_more,
        )

    def as_negative(self) -> Conditions:
        """These conditions with their own embeddings as their negatives."""
        return replace(
            self, negative_embeds=self.embeds, negative_pooled=self.pooled, negative_mask=self.mask,
            negative_more=self.more,
        )  # fmt: skip

    def negatives(self) -> Conditions:
        """The negatives as conditions by themselves. There must be some."""
        assert self.negative_embeds is not None
        return Conditions(
            self.negative_embeds, self.negative_pooled, mask=self.negative_mask, more=self.negative_more
        )

    def without_padding(self) -> Conditions:
        """Without the positions at the end of each text, negatives too, that its mask hides for every prompt.

        The mask of a text NAME of `more`, as "embeds_2", is there as "mask_2".
        """
        tensors = self.tensors()
        for name in [name for name in tensors if "mask" in name]:
            seen, text = tensors[name].any(0).nonzero(), name.replace("mask", "embeds")
            end = int(seen.max()) + 1 if len(seen) else 1
            tensors |= {name: tensors[name][:, :end], text: tensors[text][:, :end]}
        return self.of_tensors(tensors)

    def to(self, device: torch.device) -> Conditions:
        """The same conditions on another device."""
        return self.of_tensors({name: value.to(device) for name, value in self.tensors().items()})

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors by name: the fields that are there, and "more.NAME" and "negative_more.NAME"."""
        plain = {
            "embeds": self.embeds, "pooled": self.pooled, "negative_embeds": self.negative_embeds,
            "negative_pooled": self.negative_pooled, "mask": self.mask, "negative_mask": self.negative_mask,
        }  # fmt: skip
        found = {name: value for name, value in plain.items() if value is not None}
        found |= {f"more.{name}": value for name, value in self.more.items()}
        return found | {f"negative_more.{name}": value for name, value in self.negative_more.items()}

    @staticmethod
    def of_tensors(tensors: Tensors) -> Conditions:
        """The inverse of `tensors`. Raises TypeError for names that are none of them."""
        fields: dict[str, Any] = {}
        for name, value in tensors.items():
            kind, dot, own = name.partition(".")
            if dot:
                fields.setdefault(kind, {})[own] = value
            else:
                fields[name] = value
        return Conditions(**fields)


def _each_has_its_own(part: Conditions) -> bool:
    """Whether every prompt has a negative of its own. One prompt's may be all prompts' too."""
    return part.negative_embeds is not None and len(part.negative_embeds) == len(part.embeds)


def _cat(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join [P, ...] tensors, which are padded with zeros at the end of every other dimension."""
    sides = [max(side) for side in zip(*(p.shape[1:] for p in parts), strict=True)]
    padding = [
        [amount for side, own in zip(sides[::-1], p.shape[:0:-1], strict=True) for amount in (0, side - own)]
        for p in parts
    ]
    return torch.cat([pad(p, amounts) for p, amounts in zip(parts, padding, strict=True)])
