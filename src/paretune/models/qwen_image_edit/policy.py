"""Qwen-Image-Edit as a policy: any QwenImageEditPipeline folder or hub id.

Qwen2.5-VL reads the prompt together with the input picture, and so the negative prompt. The latents of the
picture follow those of the sample in the transformer's sequence; what it predicts for them is dropped.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from typing import Any

import torch
from diffusers import QwenImageEditPipeline
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as theirs
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from ...inputs.pictures import open_picture
from ...types import Pictured
from ..beside import Size, by_size, padded
from ..detect import resolve_path
from ..family import Family
from ..flow import Conditions
from ..qwen_image.policy import QwenImagePolicy
from .family import FAMILY, options_of
from .reader import Reader


class QwenImageEditPolicy(QwenImagePolicy):
    """See `flow.FlowPolicy`. Latents: [B, h/2 * w/2, 4C]."""

    kind: Any = QwenImageEditPipeline
    family: Family = FAMILY
    own_negatives = True
    left_out = ("processor",)

    @property
    def text_key(self) -> list[Any]:
        """See `PipelinePolicy.text_key`."""
        return [*super().text_key, options_of(self.config).picture_pixels]

    def load_text(self) -> None:
        """See `PipelinePolicy.load_text`; the encoder reads pictures, too."""
        super().load_text()
        if self.pipe.processor is None:
            self.pipe.processor = Reader(self.pipe, resolve_path(self.config.path))

    def embed(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """Qwen2.5-VL's sequences of prompts with their pictures, and their masks. Each is read alone."""
        read = list[torch.Tensor]()
        for prompt in texts:
            assert isinstance(prompt, Pictured)
            picture = self._resized(prompt.image)
            read.append(self.pipe.encode_prompt([str(prompt)], picture, self.device)[0][0])
        masks = [torch.ones(len(one), dtype=torch.long, device=one.device) for one in read]
        return {
            "embeds": pad_sequence(read, batch_first=True), "mask": pad_sequence(masks, batch_first=True)
        }

    def embed_negative(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        """The negative prompt with the picture of every prompt."""
        pictured = [prompt for prompt in prompts if isinstance(prompt, Pictured)]
        return self.embed([Pictured(self.negative_prompt, prompt.image) for prompt in pictured])

    def _resized(self, image: str) -> Image.Image:
        """A picture in its own shape, of about `picture_pixels`, as the pipeline resizes it."""
        picture = open_picture(image)
        pixels = options_of(self.config).picture_pixels
        width, height, _ = theirs.calculate_dimensions(pixels, picture.width / picture.height)
        return self.pipe.image_processor.resize(picture, max(32, height), max(32, width))

    def embed_pictures(self, images: list[str | None]) -> dict[str, torch.Tensor]:
        """See `beside.padded`."""
        self.vae.to(self.device)
        latents, sizes = list[torch.Tensor](), list[Size]()
        for image in images:
            assert image is not None
            pixels = self.pipe.image_processor.preprocess(self._resized(image)).unsqueeze(2)
            z = self.vae.encode(pixels.to(self.device, self.vae.dtype)).latent_dist.mode()
            latents.append(self.scale(z)[0].float())
            sizes.append((z.shape[-2] // 2, z.shape[-1] // 2))
        self.vae.to("cpu")
        return padded(latents, sizes)

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
    ) -> torch.Tensor:
        """See `QwenImagePolicy.velocity`. Samples whose pictures have the same size are run together."""
        return by_size(
            conditions.more["picture_size"],
            lambda row, size: self._guided(x[row], sigma[row], conditions.select(row), guidance, size),
        )

    def _guided(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float, size: Size
    ) -> torch.Tensor:
        picture = conditions.more["picture"][:, : size[0] * size[1]].to(x.dtype)
        both = torch.cat([x, picture], dim=1)
        cond = self._beside(both, sigma, conditions, size)[:, : x.shape[1]]
        if guidance <= 1:
            return cond
        uncond = self._beside(both, sigma, conditions.negatives(), size)[:, : x.shape[1]]
        guided = uncond + guidance * (cond - uncond)
        return guided * (cond.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))

    def _beside(
        self, x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, size: Size
    ) -> torch.Tensor:
        """The transformer's output for samples x and input pictures of one size in one sequence. float32."""
        assert conditions.mask is not None
        longest = int(conditions.mask.sum(1).max())
        mask = conditions.mask[:, :longest].bool()
        side = 2 * self.pipe.vae_scale_factor
        grid = (1, self.shape.height // side, self.shape.width // side)
        return self.run_transformer(
            x,
            timestep=sigma,
            encoder_hidden_states=conditions.embeds[:, :longest].to(self.dtype),
            encoder_hidden_states_mask=None if mask.all() else mask,
            img_shapes=[[grid, (1, *size)]] * len(x),
        ).float()

    def random_more(self, count: int) -> dict[str, torch.Tensor]:
        """See `PipelinePolicy.random_more`: square pictures."""
        side = round(options_of(self.config).picture_pixels ** 0.5 / 32) * 32
        tokens = side // (2 * self.pipe.vae_scale_factor)
        shape = (count, tokens**2, self.latent_shape[-1])
        return {
            "picture": torch.randn(shape, device=self.device, dtype=self.dtype),
            "picture_size": torch.tensor([[tokens, tokens]] * count, device=self.device),
        }
