"""What the tests of merge, fold and inspect share: adapters that peft made for a tiny SD3."""

import hashlib
from pathlib import Path

import torch

TARGETS = ["attn.to_q", "attn.to_k", "attn.to_out.0", "attn.to_add_out", "proj_out"]
SETTINGS = {
    "a": {"r": 2, "lora_alpha": 4},
    "b": {"r": 3, "lora_alpha": 5, "use_rslora": True, "target_modules": TARGETS[:3]},
    "c": {"r": 2, "lora_alpha": 2, "rank_pattern": {"to_q": 4}, "alpha_pattern": {"to_k": 9}},
}
INPUTS = {
    "hidden_states": torch.linspace(-1, 1, 256).view(1, 4, 8, 8),
    "encoder_hidden_states": torch.linspace(1, -1, 80).view(1, 5, 16),
    "pooled_projections": torch.linspace(-1, 1, 16).view(1, 16),
    "timestep": torch.tensor([500.0]),
}


def sd3():
    from diffusers import SD3Transformer2DModel

    torch.manual_seed(1)
    return SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16,
        pooled_projection_dim=16, out_channels=4, pos_embed_max_size=8,
    )  # fmt: skip


def peft_model(name: str, seed: int):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(**{"target_modules": TARGETS, **SETTINGS[name]})
    model = get_peft_model(sd3(), config)
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in model.named_parameters():
        if "lora_" in key:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return model


def make(root: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Save adapters a, b, c and their sharded base below root; return what peft says each is."""
    deltas = {}
    for seed, name in enumerate(SETTINGS):
        model = peft_model(name, seed)
        model.save_pretrained(root / name)
        deltas[name] = {
            key: module.get_delta_weight("default").detach()
            for key, module in model.base_model.model.named_modules()
            if hasattr(module, "get_delta_weight")
        }
    sd3().save_pretrained(root / "base", max_shard_size="20KB")
    return deltas


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
