"""Clips survive their file, and the sheet shows their frames in order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from paretune.samples.files import contact_sheet, read_clip, save_sample, write_clip
from paretune.types import ParetuneError

RED, GREEN, BLUE = (torch.eye(3)[i].view(3, 1, 1).expand(3, 16, 16) for i in range(3))


def test_a_clip_comes_back_from_its_file(tmp_path: Path) -> None:
    clip = torch.stack([RED, GREEN, BLUE, RED])
    files = save_sample(clip, tmp_path / "video_quality-000")
    assert [f.name for f in files] == ["video_quality-000.mp4", "video_quality-000.png"]
    back = read_clip(files[0])
    assert back.shape == (4, 3, 128, 128)  # enlarged by whole pixels
    torch.testing.assert_close(back[:, :, ::8, ::8], clip, atol=0.05, rtol=0)
    with Image.open(files[1]) as sheet:
        assert sheet.size == (4 * 17 - 1, 16)


def test_the_same_clip_is_the_same_bytes(tmp_path: Path) -> None:
    clip = torch.rand(5, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    written = set()
    for _ in range(12):
        write_clip(clip, tmp_path / "a.mp4")
        written.add((tmp_path / "a.mp4").read_bytes())
    assert len(written) == 1


def test_a_sheet_of_a_long_clip_takes_its_ends() -> None:
    clip = torch.arange(33.0).view(33, 1, 1, 1).expand(33, 3, 1, 1) / 32
    assert contact_sheet(clip)[0, 0, ::2].tolist() == pytest.approx([0, 5 / 32, 9 / 32, 14 / 32, 18 / 32,
                                                                     23 / 32, 27 / 32, 1])  # fmt: skip


def test_a_picture_is_a_png(tmp_path: Path) -> None:
    files = save_sample(GREEN, tmp_path / "ocr-003")
    assert [f.name for f in files] == ["ocr-003.png"]
    with Image.open(files[0]) as picture:
        assert picture.getpixel((3, 3)) == (0, 255, 0)


@pytest.mark.parametrize("content", [b"", b"not a film at all"])
def test_a_file_that_is_no_clip_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(ParetuneError, match=r"x\.mp4 cannot be read as a clip"):
        read_clip(tmp_path / "x.mp4")
