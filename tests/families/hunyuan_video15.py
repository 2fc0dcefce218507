"""HunyuanVideo 1.5 on a tiny random pipeline, with all its parts: two text encoders and a guider."""
# pyright: reportPrivateImportUsage=false, reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from paretune.models.hunyuan_video15.family import BEFORE, WRITTEN

from . import FamilyCase

# As in Qwen2.5, for a system message and a prompt.
TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def make_hunyuan15(folder: Path, **guider: Any) -> Path:
    """A whole random HunyuanVideo15Pipeline folder: a VAE that compresses 2-fold in time, 4-fold in space."""
    from diffusers import (
        AutoencoderKLHunyuanVideo15,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideo15Pipeline,
        HunyuanVideo15Transformer3DModel,
    )
    from diffusers.guiders import ClassifierFreeGuidance
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        ByT5Tokenizer,
        Qwen2_5_VLTextConfig,
        Qwen2_5_VLTextModel,
        Qwen2Tokenizer,
        T5Config,
        T5EncoderModel,
    )

    torch.manual_seed(0)
    # Most of the system message is one token, so that 108 tokens precede the prompt, as in the published one.
    before = WRITTEN.partition("{}")[0]
    most = before[60 : 60 + len(before.replace("<|im_start|>", ".").replace("<|im_end|>", ".")) - BEFORE + 1]
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", most)
    vocabulary = {token: i for i, token in enumerate([*sorted(ByteLevel.alphabet()), *special])}
    tokenizer: Any = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": list(special[1:])})
    tokenizer.chat_template = TEMPLATE
    glyphs = ByT5Tokenizer()
    pipe = HunyuanVideo15Pipeline(
        transformer=HunyuanVideo15Transformer3DModel(
            in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1,
            num_refiner_layers=1, mlp_ratio=2.0, text_embed_dim=16, text_embed_2_dim=32, image_embed_dim=12,
            rope_axes_dim=(2, 2, 4), target_size=16, task_type="t2v",
        ),
        vae=AutoencoderKLHunyuanVideo15(
            latent_channels=4, block_out_channels=(8, 8), layers_per_block=1, spatial_compression_ratio=4,
            temporal_compression_ratio=2, downsample_match_channel=False, upsample_match_channel=False,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        text_encoder=Qwen2_5_VLTextModel(
            Qwen2_5_VLTextConfig(
                vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=3,
                num_attention_heads=2, num_key_value_heads=2, initializer_range=0.2,
                rope_scaling={"mrope_section": [1, 1, 2], "rope_type": "default"},
                pad_token_id=tokenizer.pad_token_id, bos_token_id=None, eos_token_id=None,
            )
        ),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=len(glyphs), d_model=32, d_ff=32, d_kv=8, num_layers=1, num_heads=2)
        ),
        tokenizer_2=glyphs,
        guider=ClassifierFreeGuidance(**{"guidance_scale": 6.0, **guider}),
    )  # fmt: skip
    pipe.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def theirs(
    policy: Any, prompts: Sequence[str], noise: torch.Tensor, steps: int, guidance: float
) -> torch.Tensor:
    """What the pipeline itself draws. Guidance is its guider's."""
    pipe = policy.pipe
    pipe.guider = pipe.guider.new(guidance_scale=guidance)
    return pipe(
        list(prompts), latents=noise, num_inference_steps=steps, output_type="pt",
        height=policy.shape.height, width=policy.shape.width, num_frames=policy.shape.frames,
    ).frames  # fmt: skip


def _load_lora(pipe: Any, folder: Path) -> None:
    """The pipeline of this version of diffusers loads no adapters, but its transformer does."""
    pipe.transformer.load_lora_adapter(
        str(folder), prefix="transformer", weight_name="pytorch_lora_weights.safetensors"
    )


CASE = FamilyCase(
    name="hunyuan_video15",
    make=make_hunyuan15,
    model={"height": 16, "width": 16, "options": {"frames": 5}},
    recipe="hunyuan-video-1.5",
    theirs=theirs,
    guidances=(1.0, 6.0),
    load_lora=_load_lora,
    tokens=("text_encoder",),
)
