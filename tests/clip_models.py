"""Tiny random models that judge clips, saved as the published ones are. Nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from paretune.rewards.clips.videoalign import CHAT, TEMPLATE, TOKENS

SPECIAL = (
    "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|image_pad|>",
)  # fmt: skip
SETTINGS = {
    "data_config": {
        "max_frame_pixels": 200704, "num_frames": None, "fps": 2.0, "eval_dim": ["VQ", "MQ", "TA"],
        "prompt_template_type": "detailed_special", "sample_type": "uniform",
    },
    "model_config": {"output_dim": 1, "use_special_tokens": True, "reward_token": "special"},
    "peft_lora_config": {"lora_enable": True, "lora_r": 2, "lora_alpha": 4, "use_rslora": False},
    "inference_config": {
        "VQ_mean": 3.6757, "VQ_std": 2.2476, "MQ_mean": 1.1646, "MQ_std": 1.3811, "TA_mean": 2.8105,
        "TA_std": 2.5121,
    },
}  # fmt: skip


def make_qwen_base(folder: Path) -> Any:
    """A Qwen2-VL of one layer, with a tokenizer of the words of the template. Returns its configuration."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2VLConfig

    words = sorted({*CHAT.split(), *TEMPLATE.split(), "a", "dog", "runs"} - {*TOKENS})
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<|endoftext|>", *words])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    token = tokenizer.convert_tokens_to_ids
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer) + 8, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
        },
        vision_config={
            "depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 1, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        video_token_id=token("<|video_pad|>"), image_token_id=token("<|image_pad|>"),
        vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"),
    )  # fmt: skip
    config.save_pretrained(folder)
    return config


def make_video_reward(base: Path, folder: Path, outputs: int = 1) -> dict[str, torch.Tensor]:
    """A random VideoReward checkpoint of `base`, with the names that transformers 4.45 and PEFT gave."""
    from transformers import AutoTokenizer, Qwen2VLConfig, Qwen2VLModel

    torch.manual_seed(0)
    config = Qwen2VLConfig.from_pretrained(base)
    config.text_config.vocab_size = len(AutoTokenizer.from_pretrained(base)) + 3
    state = Qwen2VLModel(config).state_dict()
    old: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        name = name.replace("language_model.", "model.")
        if ".self_attn." in name and name.endswith("_proj.weight"):
            module = f"base_model.model.{name.removesuffix('.weight')}"
            old[f"{module}.base_layer.weight"] = value
            old[f"{module}.lora_A.default.weight"] = torch.randn(2, value.shape[1])
            old[f"{module}.lora_B.default.weight"] = torch.randn(value.shape[0], 2)
        elif ".self_attn." in name and name.endswith("_proj.bias"):
            old[f"base_model.model.{name.removesuffix('.bias')}.base_layer.bias"] = value
        else:
            old[f"base_model.model.{name}"] = value
    old["base_model.model.lm_head.weight"] = state["language_model.embed_tokens.weight"].clone()
    old["base_model.model.rm_head.weight"] = torch.randn(outputs, 16)
    folder.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in old.items()}, folder / "model.safetensors")
    settings = {**SETTINGS, "model_config": {**SETTINGS["model_config"], "output_dim": outputs}}
    (folder / "model_config.json").write_text(json.dumps(settings))
    return old
