"""VideoAlign's three rewards of clips: visual quality, motion quality and alignment with the prompt.

The model VideoReward of "Improving Video Generation with Human Feedback" (arXiv 2501.13918): Qwen2-VL-2B with
adapters and one linear head, which is read at three special tokens of the prompt. Frames, prompt, tokens and
normalisation are those of its authors' code (github KwaiVGI/VideoAlign, MIT); the constants come from the
checkpoint's model_config.json. Like there, a token's place in the text is its only position: Qwen2-VL's
positions in space and time are not used.

What differs: a clip comes straight from the decoder and not from a compressed file, and the linear head is
computed in float32.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from paretune.foreign.converted import CONVERTED, converted_folder
from paretune.foreign.loading import load
from paretune.types import ParetuneError, Prompt

from ..checks import Checked
from ..loaded import check_loaded
from ..pinned import pinned
from ..qwen_vision import CHAT, patches, resized
from .frames import LEAST_PIXELS, frame_numbers

HEADS = ("VQ", "MQ", "TA")
TOKENS = tuple(f"<|{head}_reward|>" for head in HEADS)
OVERALL = "overall"  # their sum, as the authors' code has it
BASE = "Qwen/Qwen2-VL-2B-Instruct"
TEMPLATE = files("paretune.rewards.clips").joinpath("videoalign_prompt.txt").read_text(encoding="utf-8")
CLIP_TOKEN = "<|video_pad|>"


class VideoAlign(Checked):
    """VideoAlign's heads VQ, MQ and TA of clips, and overall, their sum: one pass gives all.

    rate: frames a second that the clips are made for (24 for HunyuanVideo, 16 for Wan). model: "videoalign"
    for the published checkpoint, which `paretune fetch videoalign` brings, or a folder like it. base: the
    Qwen2-VL whose configuration and tokenizer it has. normalise: with the checkpoint's means and deviations,
    so that 0 is the mean of the authors' clips.
    """

    name, higher_is_better = "videoalign", True
    range = (-float("inf"), float("inf"))
    heads, usual_head = (*HEADS, OVERALL), OVERALL

    def __init__(
        self,
        rate: float = 24.0,
        model: str = "videoalign",
        base: str = BASE,
        normalise: bool = True,
        dtype: str = "bfloat16",
        device: str | None = None,
    ) -> None:
        from transformers import AutoTokenizer

        if rate <= 0:
            raise ParetuneError("videoalign: rate is a number of frames a second, above 0")
        folder = converted_folder(model) if model in CONVERTED else Path(model)
        self._settings = _settings(folder)
        self._tokenizer: Any = load(AutoTokenizer, base, f"videoalign: {base}", **pinned(base))
        self._tokenizer.add_special_tokens({"additional_special_tokens": list(TOKENS)})
        self._ids = [self._tokenizer.convert_tokens_to_ids(token) for token in TOKENS]
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        kind = getattr(torch, dtype)
        self._network, self._reward = _networks(folder, base, self._settings, self._ids)
        self._merge: int = self._network.config.vision_config.spatial_merge_size
        self._network.eval().requires_grad_(False).to(self.device, kind)
        self._reward.requires_grad_(False).to(self.device, torch.float32)
        self._rate, self._normalise = float(rate), normalise

    @staticmethod
    def check(prompts: Sequence[Prompt]) -> None:
        """Refuse a prompt that holds a token where the model's scores are read."""
        for prompt in prompts:
            if found := next((t for t in (*TOKENS, CLIP_TOKEN) if t in prompt.text), None):
                raise ParetuneError(f"videoalign: the prompt {prompt.text[:60]!r} holds the token {found}")

    @torch.no_grad()
    def score(self, samples: torch.Tensor, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """samples: [B, T, 3, H, W] in [0, 1], T from 2. Returns float32 [B] of each head. One at a time."""
        if samples.ndim != 5:
            raise ParetuneError("videoalign scores clips, [B, T, 3, H, W]")
        rows = torch.stack([self._one(c, p.text) for c, p in zip(samples, prompts, strict=True)])
        if self._normalise and (own := self._settings.get("inference_config")):
            mean, std = (rows.new_tensor([own[f"{h}_{what}"] for h in HEADS]) for what in ("mean", "std"))
            rows = (rows - mean) / std
        return {**dict(zip(HEADS, rows.T, strict=True)), OVERALL: rows.sum(1)}

    def _one(self, clip: torch.Tensor, prompt: str) -> torch.Tensor:
        data = self._settings["data_config"]
        seen = frame_numbers(len(clip), self._rate, data.get("fps") or 2.0, data.get("num_frames"))
        frames = clip[seen].to(self.device)
        pixels, grid = patches(resized(frames, LEAST_PIXELS, data["max_frame_pixels"]))
        merged = grid[0] * grid[1] * grid[2] // self._merge**2
        text = CHAT.format(seen=CLIP_TOKEN * merged, text=TEMPLATE.format(text_prompt=prompt))
        ids = self._tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        states = self._network(
            input_ids=ids.to(self.device),
            attention_mask=torch.ones_like(ids).to(self.device),
            position_ids=torch.arange(ids.shape[1], device=self.device).expand(3, 1, -1),
            pixel_values_videos=pixels,
            video_grid_thw=torch.tensor([grid], device=self.device),
            use_cache=False,
        ).last_hidden_state[0]
        places = [int((ids[0] == token).nonzero()[-1]) for token in self._ids]
        values = self._reward(states[places].float())  # [3, 1], or [3, 3] with a column for each head
        return (values.diagonal() if values.shape[1] == len(HEADS) else values[:, 0]).cpu()


def _settings(folder: Path) -> dict[str, Any]:
    """model_config.json of a checkpoint. Raises ParetuneError for one that is read otherwise than here."""
    file = folder / "model_config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        data, model = settings["data_config"], settings["model_config"]
        settings["peft_lora_config"].get("lora_alpha")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ParetuneError(f"videoalign: {file} is no configuration of a VideoReward checkpoint") from error
    same = data.get("prompt_template_type") == "detailed_special" and data.get("sample_type") == "uniform"
    if not same or not model.get("use_special_tokens") or model.get("output_dim") not in (1, 3):
        raise ParetuneError(
            f"videoalign: {file} asks for another prompt, other frames or other heads than published"
        )
    return settings


_OLD = re.compile(r"^(?:base_model\.model\.)?(?:model\.)?(?=(embed_tokens|layers|norm)\.)")


def new_name(name: str) -> str:
    """A tensor's name in Qwen2VLModel of today, from that of transformers 4.45 under PEFT."""
    bare = name.removeprefix("base_model.model.")
    return bare if bare.startswith(("visual.", "rm_head.", "lm_head.")) else _OLD.sub("language_model.", name)


def _networks(
    folder: Path, base: str, settings: dict[str, Any], ids: Sequence[int]
) -> tuple[Any, nn.Module]:
    """Qwen2-VL with its adapters, and the linear head, with the checkpoint's weights."""
    from accelerate import init_empty_weights
    from peft import LoraConfig, inject_adapter_in_model
    from safetensors.torch import load_file
    from transformers import AutoConfig, Qwen2VLModel

    where = f"videoalign: {folder}"
    config: Any = load(AutoConfig, base, f"videoalign: {base}", **pinned(base))
    tensors = {new_name(name): value for name, value in load_file(folder / "model.safetensors").items()}
    tensors.pop("lm_head.weight", None)  # it makes words, which are not asked for
    words = tensors.get("language_model.embed_tokens.weight")
    if words is None or len(words) <= max(ids):
        raise ParetuneError(f"{where} does not belong to {base}: it knows fewer tokens than its tokenizer")
    config.text_config.vocab_size = len(words)
    with init_empty_weights():
        network: Any = Qwen2VLModel(config)
        head = nn.Linear(config.text_config.hidden_size, settings["model_config"]["output_dim"], bias=False)
        adapted = sorted(name.split(".lora_A.")[0] for name in tensors if ".lora_A." in name)
        if adapted:
            lora = settings["peft_lora_config"]
            rank = tensors[next(name for name in tensors if ".lora_A." in name)].shape[0]
            inject_adapter_in_model(
                LoraConfig(
                    r=rank, lora_alpha=lora["lora_alpha"], use_rslora=bool(lora.get("use_rslora")),
                    lora_dropout=0.0, target_modules=adapted,
                ),
                network,
            )  # fmt: skip
    own = {name: value for name, value in tensors.items() if not name.startswith("rm_head.")}
    info = network.load_state_dict(own, strict=False, assign=True)
    told = {"missing_keys": info.missing_keys, "unexpected_keys": info.unexpected_keys}
    if "rm_head.weight" not in tensors:
        told["missing_keys"] = [*told["missing_keys"], "rm_head.weight"]
    check_loaded(told, nn.Module(), where)
    head.load_state_dict({"weight": tensors["rm_head.weight"]}, assign=True)
    check_loaded({}, network, where)
    return network, head
