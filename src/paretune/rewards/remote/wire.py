"""What goes between a reward's client and its server: safetensors and JSON, never a pickle.

A question is one safetensors body. Its tensors are `pictures` [B, 3, H, W] or `clips` [B, T, 3, H, W] in
[0, 1] (uint8 counts as 0..255), and the bytes of input pictures as `input/HASH`. Its metadata are `prompts`
and, for answers, `texts`: JSON lists. A single picture may be asked about as a PNG or WebP body instead.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save

from paretune.files import write_bytes
from paretune.types import Dialogue, ParetuneError, Pictured, Prompt, Samples

PROTOCOL = 1
VERSION = "Paretune-Protocol"  # a header of questions and answers
REQUEST = "Paretune-Request"  # a header: the number of a question, the same when it is asked again
SAFETENSORS = "application/x-safetensors"
PICTURES = {"image/png": "PNG", "image/webp": "WEBP"}
MOST_PIXELS = 1 << 26  # of a picture that comes compressed
_PIXELS = {torch.uint8, torch.float16, torch.bfloat16, torch.float32}


@dataclass(frozen=True)
class Question:
    """B samples and their prompts; without samples it is about the prompts alone."""

    samples: Samples
    prompts: list[Prompt]


def pack(samples: Samples, prompts: Sequence[Prompt]) -> bytes:
    """A question as a body."""
    tensors: dict[str, torch.Tensor] = {}
    metadata: dict[str, str] = {}
    if not isinstance(samples, torch.Tensor):
        metadata["texts"] = json.dumps(list(samples))
    else:
        name = "clips" if samples.dim() == 5 else "pictures"
        tensors[name] = samples.detach().cpu().contiguous()
    metadata["prompts"] = json.dumps([_described(prompt, tensors) for prompt in prompts], default=str)
    return save(tensors, metadata)


def unpack(body: bytes, folder: Path) -> Question:
    """The question of a body. folder: where input pictures are put. Raises ParetuneError for another body."""
    try:
        tensors, metadata = load(body), header_of(body)
        prompts = [_prompt(entry, tensors, folder) for entry in json.loads(metadata.get("prompts", "[]"))]
        texts: Any = json.loads(metadata.get("texts", "[]"))
    except ParetuneError:
        raise
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ParetuneError(f"the body is no question of protocol {PROTOCOL}: {error}") from error
    pixels = [tensors[name] for name in ("pictures", "clips") if name in tensors]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ParetuneError("the body's texts must be a list of texts")
    samples: Samples = _unit(pixels[0]) if pixels else texts
    if len(samples) not in {0, len(prompts)}:
        raise ParetuneError(f"the body holds {len(samples)} samples but {len(prompts)} prompts")
    return Question(samples, prompts)


def unpack_picture(body: bytes, kind: str, prompt: str, record: str) -> Question:
    """One picture of a PNG or WebP body. record: the prompt's record as JSON, or empty."""
    try:
        with Image.open(io.BytesIO(body), formats=[PICTURES[kind]]) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ParetuneError(f"the picture has more than {MOST_PIXELS:,} pixels")
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ParetuneError(f"the body is no picture of {kind}") from error
    try:
        metadata: Any = json.loads(record or "{}")
    except ValueError as error:
        raise ParetuneError(f"the record is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise ParetuneError("the record must be a JSON object")
    return Question(pixels.permute(2, 0, 1)[None].float() / 255, [Prompt(prompt, metadata)])


def header_of(body: bytes) -> Mapping[str, str]:
    """The metadata of a safetensors body, whose header `load` has found to be right."""
    length = int.from_bytes(body[:8], "little")
    return json.loads(body[8 : 8 + length]).get("__metadata__") or {}


def _described(prompt: Prompt, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """A prompt as JSON. The file of an input picture is put to the tensors."""
    entry: dict[str, Any] = {"text": str(prompt.text), "metadata": dict(prompt.metadata)}
    if isinstance(prompt.text, Dialogue):
        entry["turns"] = [dict(turn) for turn in prompt.text.turns]
    if isinstance(prompt.text, Pictured):
        content = bytearray(Path(prompt.text.image).read_bytes())
        entry["input"] = hashlib.sha256(content).hexdigest()
        tensors[f"input/{entry['input']}"] = torch.frombuffer(content, dtype=torch.uint8)
    return entry


def _prompt(entry: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], folder: Path) -> Prompt:
    text, metadata = entry["text"], dict(entry.get("metadata") or {})
    if not isinstance(text, str):
        raise ValueError("a prompt's text is no text")
    if "turns" in entry:
        turns = [{str(k): str(v) for k, v in turn.items()} for turn in entry["turns"]]
        return Prompt(Dialogue(turns), metadata)
    if "input" not in entry:
        return Prompt(text, metadata)
    content = tensors[f"input/{entry['input']}"].numpy().tobytes()
    file = folder / hashlib.sha256(content).hexdigest()  # of what came, whatever it is called
    if not file.exists():
        write_bytes(file, content)
    return Prompt(Pictured(text, str(file)), {**metadata, "image": str(file)})


def _unit(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels as rewards take them, float32 in [0, 1]."""
    if pixels.dim() not in {4, 5} or pixels.shape[-3] != 3 or pixels.dtype not in _PIXELS:
        shape = list(pixels.shape)
        raise ParetuneError(
            f"pictures are [B, 3, H, W] and clips [B, T, 3, H, W], not {pixels.dtype} {shape}"
        )
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
