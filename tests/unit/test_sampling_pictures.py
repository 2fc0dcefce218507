"""Sampling of runs that edit pictures: where the input picture comes from, and what is left in the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from paretune.commands.measure import score_folder
from paretune.samples.stamped import read_settings
from paretune.sampling import Request, Sampler
from paretune.types import ParetuneError, Pictured
from tests.families import cases, write_picture
from tests.made_run import make_run, open_trusted, sample_trusted

CASE = cases()["flux_kontext"]
# A reward that reads the input picture: whether the sample has its size.
LIKE = """
from PIL import Image

def alike(images, prompts):
    sizes = [Image.open(p.metadata["image"]).size for p in prompts]
    return [float(size == (images.shape[-1], images.shape[-2])) for size in sizes]
"""


@pytest.fixture(scope="module")
def edits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    pipeline = CASE.make(folder / "kontext")
    return make_run(folder / "edits", pipeline, pictures=CASE.pictures, model=dict(CASE.model))


@pytest.fixture
def picture(tmp_path: Path) -> str:
    write_picture(tmp_path / "own.png", (20, 16), seed=5)
    return str(tmp_path / "own.png")


def test_the_input_picture_is_given_or_that_of_the_runs_prompt(edits: Path, picture: str) -> None:
    sampler = Sampler(open_trusted(str(edits)))
    known, given = Request("a red circle"), Request("a red circle", image=picture)
    found = sampler.prompt(known).text
    assert isinstance(found, Pictured)
    assert found.image.endswith("inputs/0.png")
    assert sampler.prompt(given).metadata["image"] == picture
    drawn: list[Any] = [sampler.draw(known), sampler.draw(given)]
    assert (drawn[0].int() - drawn[1].int()).abs().max() > 3


def test_the_folder_holds_the_input_and_can_be_scored(
    edits: Path, picture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = ["a red circle", "make it blue"]
    table = sample_trusted(str(edits), texts, tmp_path / "out", count=2, images=["own.png"])
    assert [row["image"] for row in table["pictures"]] == ["inputs/000.png"] * 2 + ["inputs/001.png"] * 2
    assert (tmp_path / "out" / "inputs" / "001.png").read_bytes() == Path(picture).read_bytes()
    with Image.open(tmp_path / "out" / "grid.png") as sheet:
        assert sheet.size == (3 * (128 + 8), 2 * (128 + 8))  # the input, then two samples, of either prompt
    first = read_settings(tmp_path / "out" / "pictures" / "000-000.png")
    assert len(first["image_sha256"]) == 64
    Path(picture).unlink()  # the folder stands for itself
    (tmp_path / "like.py").write_text(LIKE)
    out = tmp_path / "out"
    rows = score_folder(f"{tmp_path}/like.py:alike", out / "pictures", str(out / "prompts.jsonl"))
    assert [row["value"] for row in rows] == [0.0] * 4


def test_a_reward_in_its_own_process_reads_the_picture(edits: Path, tmp_path: Path) -> None:
    (tmp_path / "like.py").write_text(LIKE)
    rows = [{"prompt": "a", "image": f"in/{n}.png"} for n in range(2)]
    for number, size in enumerate([(16, 16), (16, 20)]):
        write_picture(tmp_path / "in" / f"{number}.png", size, number)
        write_picture(tmp_path / "drawn" / f"{number}.png", (16, 16), number)
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    scored = score_folder(f"{tmp_path / 'like.py'}:alike", tmp_path / "drawn", str(tmp_path / "p.jsonl"))
    assert [row["value"] for row in scored] == [1.0, 0.0]


def test_mistakes_are_one_line_before_anything_is_drawn(
    edits: Path, picture: str, tiny_sd3: Path, tmp_path: Path
) -> None:
    out, texts = tmp_path / "out", ["make it blue"]
    (tmp_path / "half.png").write_bytes(Path(picture).read_bytes()[:100])
    with pytest.raises(ParetuneError, match=r"^tiny works on an input picture: give one \(--image FILE\)$"):
        sample_trusted(str(edits), texts, out)
    with pytest.raises(ParetuneError, match=r"^2 pictures for 1 prompts: give --image once"):
        sample_trusted(str(edits), texts, out, images=[picture] * 2)
    with pytest.raises(ParetuneError, match=r"half\.png cannot be read"):
        sample_trusted(str(edits), texts, out, images=[str(tmp_path / "half.png")])
    with pytest.raises(ParetuneError, match=r"takes no input picture: leave it out$"):
        sample_trusted(str(tiny_sd3), texts, out, images=[picture])
    assert not out.exists()
