"""The policy: how this family embeds prompts, predicts velocities, schedules its steps and decodes."""

import hashlib
import json
from pathlib import Path

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin

from paretune.models.facts import read_shape
from paretune.models.flow import Conditions, Schedule
from paretune.types import ParetuneError

TEXT = 16


class ToyTransformer(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Three linear layers on a picture's pixels, its prompt and its noise level."""

    @register_to_config
    def __init__(self, side: int = 8, width: int = 64, num_layers: int = 1,
                 num_attention_heads: int = 1, attention_head_dim: int = 64):  # fmt: skip
        super().__init__()
        self.enter = torch.nn.Linear(3 * side * side + TEXT + 1, width)
        self.middle = torch.nn.Linear(width, width)
        self.leave = torch.nn.Linear(width, 3 * side * side)

    def forward(self, x, text, sigma):
        hidden = torch.cat([x.flatten(1), text, sigma[:, None]], dim=1)
        hidden = torch.tanh(self.enter(hidden))
        return self.leave(torch.tanh(self.middle(hidden))).view_as(x)


class ToyPolicy:
    """See paretune.models.flow.FlowPolicy."""

    targets = ("middle", "leave")  # what gets adapters where a recipe names nothing else

    def __init__(self, config, device="cpu"):
        self.config, self.device, self.autocast = config, torch.device(device), False
        folder = Path(config.path) / "transformer"
        self.transformer = ToyTransformer.from_pretrained(folder, use_safetensors=True)
        self.transformer.requires_grad_(False).eval().to(self.device)
        self.latents = read_shape(config).latents

    def encode(self, prompts, guidance, tokens=(), batch=64):
        """A fixed random vector a prompt."""
        if tokens:
            raise ParetuneError("the toy family has no text encoder that could take reward tokens")
        seeds = [int(hashlib.sha256(p.encode()).hexdigest()[:8], 16) for p in prompts]
        rows = [torch.randn(TEXT, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return Conditions(torch.stack(rows)[:, None].to(self.device))

    def free_text(self):
        """There is no text encoder to let go."""

    def new_token(self, name, vectors, init, generator):
        raise ParetuneError("the toy family has no text encoder that could learn a reward token")

    def row_scales(self):
        return {}

    def velocity(self, x, sigma, conditions, guidance):
        return self.transformer(x, conditions.embeds[:, 0], sigma)

    def schedule(self, steps):
        return Schedule.from_tensor(torch.linspace(1.0, 0.0, steps + 1))

    def initial_noise(self, count, generator):
        return torch.randn((count, *self.latents), generator=generator)

    def decode(self, latents, batch=64):
        return (latents / 2 + 0.5).clamp(0, 1).float().cpu()

    def encode_media(self, pixels, batch=64):
        return 2 * pixels - 1

    def save_pretrained(self, folder):
        self.transformer.save_pretrained(folder / "transformer")
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "ToyPipeline"}))
        return True


def make_model(folder, seed=0):
    """A new random model in this family's format."""
    torch.manual_seed(seed)
    ToyTransformer().save_pretrained(folder / "transformer")
    part = ["toy_family", "ToyTransformer"]
    index = {"_class_name": "ToyPipeline", "transformer": part}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
