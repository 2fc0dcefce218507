"""Samples as files: a picture as PNG, a clip as MP4 with a contact sheet of its frames, an answer as text.

PyAV, which includes an encoder, writes and reads clips. It is imported only when a clip is written or read.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ..files import write_bytes
from ..types import ParetuneError, Samples

CLIPS = {".mp4", ".webm", ".mkv", ".mov"}
KINDS = {".png", ".jpg", ".jpeg", ".webp", ".txt"} | CLIPS

SHORTEST_SIDE = 128  # a smaller clip is enlarged by a whole factor: players and chroma blur small frames
SHEET_FRAMES = 8  # frames on a contact sheet at most


def save_sample(sample: torch.Tensor, stem: Path) -> list[Path]:
    """Write a picture [3, H, W] or a clip [T, 3, H, W] in [0, 1]. Returns the files, the sample first."""
    if sample.dim() == 3:
        _save_picture(sample, stem.with_name(f"{stem.name}.png"))
        return [stem.with_name(f"{stem.name}.png")]
    write_clip(sample, stem.with_name(f"{stem.name}.mp4"))
    _save_picture(contact_sheet(sample), stem.with_name(f"{stem.name}.png"))
    return [stem.with_name(f"{stem.name}.mp4"), stem.with_name(f"{stem.name}.png")]


def read_sample(path: Path) -> Samples:
    """Read the sample of a file, of any suffix in KINDS, as a batch of one."""
    kind = path.suffix.lower()
    if kind in CLIPS:
        return read_clip(path)[None]
    try:
        if kind == ".txt":
            return [path.read_text("utf-8")]
        with Image.open(path) as image:
            array = np.array(image.convert("RGB"))
    except UnicodeDecodeError as error:
        raise ParetuneError(f"{path} cannot be read as text") from error
    except (UnidentifiedImageError, OSError) as error:
        raise ParetuneError(f"{path} cannot be read as a picture") from error
    return torch.from_numpy(array).permute(2, 0, 1).float()[None] / 255


def fitted(picture: Image.Image, height: int, width: int) -> torch.Tensor:
    """A picture shrunk or enlarged into a white frame of a given size, uint8 [3, height, width]."""
    framed = ImageOps.pad(picture, (width, height), color="white")
    return torch.from_numpy(np.array(framed)).permute(2, 0, 1)


def contact_sheet(clip: torch.Tensor) -> torch.Tensor:
    """Evenly spaced frames side by side, a pixel apart. [T, 3, H, W] -> [3, H, W']."""
    framed = torch.nn.functional.pad(spaced_frames(clip), (0, 1), value=1.0)
    return torch.cat(list(framed), dim=2)[:, :, :-1]


def spaced_frames(clip: torch.Tensor) -> torch.Tensor:
    """At most SHEET_FRAMES frames, evenly spaced from the first to the last. [T, ...] -> [F, ...]."""
    count = min(len(clip), SHEET_FRAMES)
    return clip[torch.linspace(0, len(clip) - 1, count).round().long()]


def frame_rate(frames: int) -> int:
    """HunyuanVideo's 24 frames per second; a short clip is played slowly enough to be seen."""
    return 24 if frames > 24 else 8


def write_clip(clip: torch.Tensor, path: Path, rate: int | None = None) -> None:
    """Write a clip as an MP4 file; see `clip_bytes`."""
    write_bytes(path, clip_bytes(clip, rate))


def clip_bytes(clip: torch.Tensor, rate: int | None = None, comment: str = "") -> bytes:
    """Encode a clip [T, 3, H, W] in [0, 1] as H.264 in an MP4 file, nearly without loss.

    Args:
        clip: the clip.
        rate: frames per second; by default see `frame_rate`.
        comment: text for the file's comment.

    Returns:
        The file's bytes. One thread encodes, so that the same clip gives the same bytes.
    """
    av = _pyav()
    factor = max(1, SHORTEST_SIDE // min(clip.shape[-2:]))
    frames = as_bytes(clip).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    # yuv420p, which every browser plays, stores colours at half the size, so sides must be even.
    frames = frames[:, :, : frames.shape[2] // 2 * 2, : frames.shape[3] // 2 * 2]
    written = io.BytesIO()
    with av.open(written, "w", format="mp4") as file:
        if comment:
            file.metadata["comment"] = comment
        stream = file.add_stream("libx264", rate=rate or frame_rate(len(clip)))
        stream.width, stream.height = frames.shape[3], frames.shape[2]
        stream.pix_fmt = "yuv420p"
        # With AVX-512, x264's macroblock tree is not the same in every call; at this quality it saves little.
        stream.options = {"crf": "12", "preset": "medium", "threads": "1", "x264-params": "mbtree=0"}
        for frame in frames.permute(0, 2, 3, 1).contiguous().numpy():
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    return written.getvalue()


def read_comment(path: Path) -> str | None:
    """The comment of a video file."""
    av = _pyav()
    try:
        with av.open(str(path)) as file:
            return file.metadata.get("comment")
    except (OSError, ValueError, av.error.FFmpegError) as error:
        raise ParetuneError(f"{path} cannot be read as a clip") from error


def read_clip(path: Path) -> torch.Tensor:
    """All frames of a video file, float32 [T, 3, H, W] in [0, 1]."""
    av = _pyav()
    try:
        with av.open(str(path)) as file:
            frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    except (OSError, ValueError, IndexError, av.error.FFmpegError) as error:
        raise ParetuneError(f"{path} cannot be read as a clip") from error
    if not frames:
        raise ParetuneError(f"{path} holds no frames")
    stacked = torch.stack([torch.from_numpy(frame) for frame in frames])
    return stacked.permute(0, 3, 1, 2).float() / 255


def _pyav() -> Any:
    try:
        import av
        import av.error
    except ImportError as error:
        raise ParetuneError("clips are written with PyAV: pip install 'paretune[video]'") from error
    return av


def _save_picture(picture: torch.Tensor, path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(as_bytes(picture).permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")
    write_bytes(path, file.getvalue())


def as_bytes(values: torch.Tensor) -> torch.Tensor:
    """Values in [0, 1] -> uint8, as files store them; uint8 tensors are returned unchanged."""
    return values if values.dtype == torch.uint8 else (values.clamp(0, 1) * 255).round().byte()
