"""FLUX.2-dev on a tiny random pipeline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.chats import mistral3, mistral_tokenizer

from . import FamilyCase

TOKENS = 192  # the system message alone has 177 bytes


def random_parts(text_width: int, guidance_embeds: bool) -> dict[str, Any]:
    """What all FLUX.2 models share: one block of each kind, a VAE that halves, and the scheduler."""
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel

    vae = AutoencoderKLFlux2(
        block_out_channels=(4, 4), down_block_types=("DownEncoderBlock2D",) * 2, layers_per_block=1,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=1,
    )  # fmt: skip
    # A new batch norm changes nothing, and the pipeline's results would not depend on it.
    torch.nn.init.normal_(vae.bn.running_mean, std=0.3)
    torch.nn.init.uniform_(vae.bn.running_var, 0.5, 2.0)
    transformer = Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=3 * text_width, timestep_guidance_channels=16, axes_dims_rope=(2, 2, 2, 2),
        guidance_embeds=guidance_embeds,
    )  # fmt: skip
    for weight in transformer.parameters():  # so that a few letters change the picture
        weight.data *= 2
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return {"vae": vae, "transformer": transformer, "scheduler": scheduler}


def make(folder: Path) -> Path:
    """A whole random Flux2Pipeline folder, which names the processor as the published one does."""
    from diffusers import Flux2Pipeline

    torch.manual_seed(0)
    tokenizer, path = mistral_tokenizer(), folder / "pipeline"
    pipe = Flux2Pipeline(
        tokenizer=tokenizer, text_encoder=mistral3(tokenizer, 16, 31), **random_parts(16, True)
    )
    pipe.save_pretrained(path)
    # The published folder holds a processor of text and pictures, which transformers makes only with
    # torchvision: here its tokenizer alone lies in the folder, under the name of the processor.
    index = json.loads((path / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "PixtralProcessor"]
    (path / "model_index.json").write_text(json.dumps(index))
    return path


def theirs(
    policy: Any, prompts: Sequence[str], noise: torch.Tensor, steps: int, guidance: float
) -> torch.Tensor:
    """What the pipeline draws."""
    return policy.pipe(
        prompt=list(prompts), latents=noise, num_inference_steps=steps, guidance_scale=guidance,
        output_type="pt", height=policy.shape.height, width=policy.shape.width,
        max_sequence_length=policy.options.max_sequence_length,
    ).images  # fmt: skip


CASE = FamilyCase(
    name="flux2",
    make=make,
    model={"height": 16, "width": 16, "options": {"max_sequence_length": TOKENS}},
    recipe="flux2-dev",
    theirs=theirs,
    guidances=(1.0, 4.0),
    tokens=("text_encoder",),
)
