"""What a recipe will cost before it runs: samples, updates, memory and hours, by stated formulas.

Floating-point work of one transformer forward pass is taken as 2 x parameters x tokens a picture, a training
pass with adapters as 3 of them (forward, and the gradient of activations through frozen weights costs
about two more with checkpointing). Hours assume the given sustained TFLOP/s; they are an estimate, not a
measurement.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .config import RunConfig
from .plan import Plan
from .policies.folders import resolve_path
from .policies.media import Cost, medium_of

# Parameters of hub models that are not on disk yet, in billions: transformer, text encoders + VAE, T5.
KNOWN = {
    "stabilityai/stable-diffusion-3.5-medium": (2.47, 0.90, 4.76),
    "stabilityai/stable-diffusion-3.5-large": (8.06, 0.90, 4.76),
    "stabilityai/stable-diffusion-3-medium-diffusers": (2.03, 0.90, 4.76),
}
SUSTAINED_TFLOPS = {"cuda": 300.0, "cpu": 0.05}  # an H100 in bfloat16 at about 30 %; one CPU core


@dataclass(frozen=True)
class Estimate:
    """parameters: of the transformer, or None when unknown. memory_gb: of one expert. hours: all experts.

    sampling: how samples are drawn, in words, where the settings of flow models do not tell.
    """

    parameters: float | None
    tokens: int
    memory_gb: float | None
    hours: dict[str, float]
    sampling: str = ""


def estimate(config: RunConfig, plan: Plan, device: str) -> Estimate:
    """Memory of one expert and device-hours of each method."""
    own = medium_of(config.model).cost(config)
    if own is not None:
        return _estimate(config, plan, device, own)
    sizes, tokens = _model_facts(config)
    if sizes is None:
        return Estimate(None, tokens, None, {})
    transformer, encoders, t5 = sizes
    bytes_each = 2 if config.model.dtype == "bfloat16" else 4
    static = (transformer + encoders + (t5 if config.model.load_t5 else 0)) * bytes_each
    # Activations with checkpointing: about 40 values a token and hidden unit kept for one block at a time.
    activations = config.train.micro_batch * tokens * 2e5 * bytes_each
    forward = 2 * transformer * tokens * (2 if config.model.guidance_scale > 1 else 1)
    objective = config.objective
    if objective.name == "flow_grpo":
        window = objective.window or (0, config.model.steps - 1)
        trained = window[1] - window[0]
    else:
        trained = objective.times
    passes = config.model.steps + trained * (3 + (1 if objective.kl > 0 else 0))
    rate = SUSTAINED_TFLOPS[device] * 1e12
    hours = {m.name: m.samples * passes * forward / rate / 3600 for m in plan.methods}
    return Estimate(transformer, tokens, (static + activations) / 1e9, hours)


def _estimate(config: RunConfig, plan: Plan, device: str, cost: Cost) -> Estimate:
    """By the same formulas, of what the medium says a sample costs."""
    bytes_each = 2 if config.model.dtype == "bfloat16" else 4
    activations = config.train.micro_batch * cost.tokens * 2e5 * bytes_each
    memory = (cost.parameters + cost.others) * bytes_each + activations
    forward = 2 * cost.parameters * cost.tokens
    rate = SUSTAINED_TFLOPS[device] * 1e12
    work = {m.name: m.samples * (cost.draw + 3 * cost.train) * forward for m in plan.methods}
    hours = {name: flops / rate / 3600 for name, flops in work.items()}
    return Estimate(cost.parameters, cost.tokens, memory / 1e9, hours, cost.told)


def _model_facts(config: RunConfig) -> tuple[tuple[float, float, float] | None, int]:
    """Parameters of (transformer, encoders + VAE, T5) and image + text tokens."""
    folder = Path(resolve_path(config.model.path))
    if folder.is_dir():
        size = {part: _parameters(folder / part) for part in
                ("transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "vae")}  # fmt: skip
        facts = json.loads((folder / "transformer" / "config.json").read_text())
        side = _latent_side(config, folder, facts["sample_size"]) // facts["patch_size"]
        others = size["text_encoder"] + size["text_encoder_2"] + size["vae"]
        return (size["transformer"], others, size["text_encoder_3"]), side * side + 16
    side = (config.model.height or 1024) // 16
    known = KNOWN.get(config.model.path)
    scaled = tuple(1e9 * x for x in known) if known else None
    return scaled, side * side + 77 + 256  # type: ignore[return-value]


def _parameters(folder: Path) -> float:
    """Parameters in a folder's safetensors, read from the headers."""
    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                count = 1
                for extent in file.get_slice(name).get_shape():
                    count *= extent
                total += count
    return float(total)


def _latent_side(config: RunConfig, folder: Path, default: int) -> int:
    """Side of the latents: the recipe's height over the VAE's factor, else the model's own."""
    if config.model.height is None:
        return default
    vae = json.loads((folder / "vae" / "config.json").read_text())
    return config.model.height // 2 ** (len(vae["block_out_channels"]) - 1)
