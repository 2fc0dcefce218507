"""HPSv3 (Ma et al. 2025, arXiv 2508.03789): people's preference for a picture, by a Qwen2-VL-7B.

The model reads a picture of about 256 x 28 x 28 pixels and a prompt that ends in the token <|Reward|>; three
linear layers turn that token's state into a mean and a deviation, of which the mean is the score (github
MizzenAI/HPSv3, hpsv3/inference.py, MIT): about -5 to 15. As there, a token's place in the text is its only
position, and the linear layers compute in float32. The authors publish safetensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from paretune.foreign.loading import load
from paretune.types import ParetuneError, Prompt

from ..checks import Checked
from ..loaded import check_loaded
from ..pinned import pinned
from ..qwen_vision import patches, resized
from .open_clip import weights_file
from .qwen import question_ids, refuse_tokens

TOKEN = "<|Reward|>"
PIXELS = 256 * 28 * 28
TEMPLATE = files("paretune.rewards.photo").joinpath("hpsv3_prompt.txt").read_text(encoding="utf-8")
FILE = "HPSv3.safetensors"
HEAD = {"0": 1024, "3": 16, "5": 2}  # the outputs of the linear layers, by their places


class HPSv3(Checked):
    """The mean of HPSv3, of pictures of any size.

    model: the weights, as a hub id or a folder with HPSv3.safetensors, or such a file; base: the Qwen2-VL
    whose configuration and tokenizer it has. dtype: the type the network computes in. device: "cuda" where
    there is one, unless given. revision: the commit of `model`.
    """

    name = "hpsv3"
    range = (-float("inf"), float("inf"))
    higher_is_better = True

    def __init__(
        self,
        model: str = "MizzenAI/HPSv3",
        base: str = "Qwen/Qwen2-VL-7B-Instruct",
        dtype: str = "bfloat16",
        device: str | None = None,
        revision: str | None = None,
    ) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = load(AutoTokenizer, base, f"reward model {base}", **pinned(base))
        self._tokenizer.add_special_tokens({"additional_special_tokens": [TOKEN]})
        self._token: int = self._tokenizer.convert_tokens_to_ids(TOKEN)
        tensors = load_file(weights_file(model, revision, FILE))
        self._network, self._head = _networks(tensors, base, self._token, f"reward model {model}")
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._network.eval().requires_grad_(False).to(self._device, getattr(torch, dtype))
        self._head.eval().requires_grad_(False).to(self._device, torch.float32)

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt with a token of the chat, or the reward's own, in it."""
        for prompt in prompts:
            refuse_tokens("hpsv3", prompt.text, (TOKEN,))

    @torch.no_grad()
    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """samples: [B, 3, H, W] in [0, 1]; any prompts. Returns float32 [B]. One picture at a time."""
        self.check(prompts)
        pairs = zip(samples, prompts, strict=True)
        return torch.stack([self._one(picture, prompt.text) for picture, prompt in pairs]).cpu()

    def _one(self, picture: torch.Tensor, prompt: str) -> torch.Tensor:
        pixels, grid = patches(resized(picture[None].to(self._device), PIXELS, PIXELS))
        ids = question_ids(self._tokenizer, TEMPLATE.replace("{text_prompt}", prompt), grid)
        states = self._network(
            input_ids=ids.to(self._device),
            attention_mask=torch.ones_like(ids).to(self._device),
            position_ids=torch.arange(ids.shape[1], device=self._device).expand(3, 1, -1),
            pixel_values=pixels.to(self._network.dtype),
            image_grid_thw=torch.tensor([grid], device=self._device),
            use_cache=False,
        ).last_hidden_state[0]
        place = int((ids[0] == self._token).nonzero()[-1])
        return self._head(states[place].float())[0]


def new_name(name: str) -> str:
    """A tensor's name in Qwen2VLModel of today, from that of transformers 4.45."""
    return f"language_model.{name.removeprefix('model.')}" if name.startswith("model.") else name


def _networks(tensors: dict[str, torch.Tensor], base: str, token: int, where: str) -> tuple[Any, nn.Module]:
    """Qwen2-VL without its words, and the linear layers, with the weights."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, Qwen2VLModel

    config: Any = load(AutoConfig, base, f"reward model {base}", **pinned(base))
    named = {new_name(name): value for name, value in tensors.items() if name != "lm_head.weight"}
    words = named.get("language_model.embed_tokens.weight")
    if words is None or len(words) <= token:
        raise ParetuneError(f"{where} does not belong to {base}: it knows fewer tokens than its tokenizer")
    config.text_config.vocab_size = len(words)
    head = nn.Sequential()
    width: int = config.text_config.hidden_size
    for place, out in HEAD.items():
        head.add_module(place, nn.Linear(width, out))
        if place != "5":
            head.add_module(f"relu{place}", nn.ReLU())
        width = out
    with init_empty_weights():
        network = Qwen2VLModel(config)
    own = {n.removeprefix("rm_head."): v.float() for n, v in named.items() if n.startswith("rm_head.")}
    rest = {n: v for n, v in named.items() if not n.startswith("rm_head.")}
    for module, values in ((network, rest), (head, own)):
        shapes = {n: t.shape for n, t in module.state_dict().items()}
        mismatched = [n for n, v in values.items() if n in shapes and v.shape != shapes[n]]
        fitting = {n: v for n, v in values.items() if n not in mismatched}
        info = module.load_state_dict(fitting, strict=False, assign=True)
        told = {
            "missing_keys": set(info.missing_keys) - set(mismatched),
            "unexpected_keys": info.unexpected_keys, "mismatched_keys": mismatched,
        }  # fmt: skip
        check_loaded(told, nn.Module() if told["missing_keys"] else module, where)
    return network, head
