"""Qwen-Image-Edit as a policy: any folder or hub id of a QwenImageEditPipeline or QwenImageEditPlusPipeline.

Qwen2.5-VL sees the input picture in the prompt and in the negative prompt. The latents of the picture follow
those of the sample in the transformer's sequence.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import QwenImageEditPipeline, QwenImageEditPlusPipeline
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import calculate_dimensions
from huggingface_hub import hf_hub_download
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoImageProcessor

from ...files import write_text
from ...foreign import loading as foreign
from ...inputs.pictures import open_picture, picture_of
from ...types import ParetuneError, Pictured
from ..beside import by_size, encode_pictures, pictures_of, random_pictures, size_of
from ..checked import loading
from ..config_files import read_config
from ..detect import resolve_path
from ..family import Family
from ..flow import Conditions
from ..qwen_image.policy import QwenImagePolicy
from .family import FAMILY, picture_side
from .reader import PictureReader

READ_SIDE = 384  # of a square picture that the text encoder of Edit Plus sees
LONGEST = 50  # times as long as wide; beyond it the shorter side could be no pixel


class QwenImageEditPolicy(QwenImagePolicy):
    """See `flow.FlowPolicy`. Latents: [B, h/2 * w/2, 4C]."""

    kind: Any = QwenImageEditPlusPipeline
    family: Family = FAMILY
    left_out = ("processor",)
    own_negatives = True

    def load(self) -> Any:
        """See `PipelinePolicy.load`."""
        path, place = self.config.path, resolve_path(self.config.path)
        with loading(f"model.path: {path} cannot be loaded"):
            name = self.kind.load_config(place)["_class_name"]
        if name == QwenImageEditPipeline.__name__:
            self.kind = QwenImageEditPipeline
        pipe = super().load()
        with loading(f"model.path: the processor of {path} cannot be loaded"):
            images = foreign.load(AutoImageProcessor, place, f"model.path: {path}", subfolder="processor")
        # vars() avoids DiffusionPipeline's setter, which would write the reader's class into the config.
        vars(pipe)["processor"] = PictureReader(pipe, images)
        return pipe

    def save_pretrained(self, folder: Path) -> bool:
        """See `PipelinePolicy.save_pretrained`. The processor, which was left out, is copied."""
        whole, place = super().save_pretrained(folder), Path(resolve_path(self.config.path))
        if not place.is_dir():  # a hub id, whose files have been downloaded
            place = Path(hf_hub_download(self.config.path, "processor/preprocessor_config.json")).parents[1]
        shutil.copytree(place / "processor", folder / "processor", dirs_exist_ok=True)
        index = folder / "model_index.json"
        parts = {**read_config(index), "processor": ["transformers", "Qwen2VLProcessor"]}
        write_text(index, json.dumps(parts, indent=2) + "\n")
        return whole

    @property
    def text_key(self) -> list[Any]:
        """See `PipelinePolicy.text_key`."""
        return [*super().text_key, picture_side(self.config)]

    def embed(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Qwen2.5-VL's sequence with its mask. Each text is read beside its own picture."""
        rows, older = list[torch.Tensor](), self.kind is QwenImageEditPipeline
        for text in texts:
            picture = self._resized(_picture(text), picture_side(self.config) if older else READ_SIDE)
            image: Any = picture if older else [picture]
            rows.append(self.pipe.encode_prompt([text], image=image, device=self.device)[0][0])
        mask = [torch.ones(len(row), dtype=torch.long, device=row.device) for row in rows]
        return {
            "embeds": pad_sequence(rows, batch_first=True),
            "mask": pad_sequence(mask, batch_first=True),
        }

    def embed_negative(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        """The negative prompt beside the picture of each prompt."""
        return self.embed([Pictured(self.negative_prompt, _picture(prompt)) for prompt in prompts])

    def _resized(self, image: str, side: int) -> Image.Image:
        """A picture of about side² pixels, resized as the pipelines do."""
        picture = open_picture(image)
        if max(picture.size) > LONGEST * min(picture.size):
            size = f"{picture.width}x{picture.height}"
            raise ParetuneError(f"the picture {image} has {size} pixels, too long for Qwen-Image-Edit")
        width, height, _ = calculate_dimensions(side * side, picture.width / picture.height)
        return self.pipe.image_processor.resize(picture, max(height, 32), max(width, 32))

    def embed_pictures(self, images: list[str | None]) -> dict[str, torch.Tensor]:
        """The packed latents of the pictures; see `beside`."""
        return encode_pictures(self, (self._pixels(image) for image in images if image is not None))

    def _pixels(self, image: str) -> torch.Tensor:
        """A picture as the autoencoder takes it: a clip of one frame in [-1, 1], [1, 3, 1, h, w]."""
        picture = self._resized(image, picture_side(self.config))
        return self.pipe.image_processor.preprocess(picture, picture.height, picture.width).unsqueeze(2)

    def random_more(self, count: int) -> dict[str, torch.Tensor]:
        """See `PipelinePolicy.random_more`: square pictures."""
        side = picture_side(self.config)
        return random_pictures(self, count, side, side)

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """See `QwenImagePolicy.velocity`. Samples whose pictures have the same size run together."""
        return by_size(x, sigma, conditions, partial(super().velocity, guidance=guidance))

    def _run(self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        both = torch.cat([x, pictures_of(conditions).to(x.dtype)], dim=1)
        return self.one_pass(both, sigma, conditions, [size_of(conditions)])[:, : x.shape[1]]


def _picture(text: str) -> str:
    """The path of a prompt's input picture. `encode` has refused prompts without one."""
    image = picture_of(text)
    assert image is not None
    return image
