"""`paretune score`: which sample goes with which prompt, and a standard output that holds results alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paretune.commands.measure import natural, score_folder
from paretune.types import ParetuneError
from tests.integration.commands import call

MINE = '''
import ctypes, os, subprocess, sys
print("imported")

def red(images, prompts):
    print("scored")
    os.write(1, b"written\\n")
    ctypes.CDLL(None).puts(b"from C")
    subprocess.run(["echo", "from a child"])
    return images[:, 0].mean((1, 2))
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """img_0.png to img_11.png, each redder than the one before, and their prompts."""
    place = tmp_path / "pictures"
    place.mkdir()
    for i in range(12):
        Image.fromarray(np.full((4, 4, 3), 20 * i, np.uint8)).save(place / f"img_{i}.png")
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "prompts.txt").write_text("".join(f"prompt {i}\n" for i in range(12)))
    return place


def test_numbers_in_names_are_numbers(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = score_folder(f"{folder.parent / 'mine.py'}:red", folder, str(folder.parent / "prompts.txt"))
    assert [(row["image"], row["prompt"]) for row in rows] == [
        (f"img_{i}.png", f"prompt {i}") for i in range(12)
    ]
    assert [row["value"] for row in rows] == pytest.approx([20 * i / 255 for i in range(12)])


def test_names_of_every_kind_sort() -> None:
    names = ["b2.png", "a10b2.png", "a10b1.png", "a2.png", "10.png", "9.png", "a02.png", "a.png", "²1.png"]
    told = [p.name for p in sorted(map(Path, names), key=natural)]
    assert told == [
        "9.png", "10.png", "a.png", "a02.png", "a2.png", "a10b1.png", "a10b2.png", "b2.png", "²1.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (11, "12 samples but {prompts} 11 prompts: in the order of the names img_0.png with 'prompt 0', "
             "img_1.png with 'prompt 1' .. img_10.png with 'prompt 10' go together, and img_11.png and what "
             "follows have no prompt"),
        (13, "img_11.png with 'prompt 11' go together, and prompt 13, 'prompt 12', and what follows have no "
             "sample"),
        (1, "img_0.png with 'prompt 0' go together, and img_1.png and what follows have no prompt"),
    ],
)  # fmt: skip
def test_counts_that_differ_say_what_goes_with_what(folder: Path, count: int, told: str) -> None:
    prompts = folder.parent / "prompts.txt"
    prompts.write_text("".join(f"prompt {i}\n" for i in range(count)))
    with pytest.raises(ParetuneError) as caught:
        score_folder("contrast", folder, str(prompts))
    assert told.format(prompts=prompts) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_prompt_that_cannot_be_scored_is_reported_before_any_is(folder: Path) -> None:
    with pytest.raises(ParetuneError, match=r"cannot score 'prompt 0', which goes with img_0\.png: the OCR"):
        score_folder("pictures.ocr", folder, str(folder.parent / "prompts.txt"))


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf"), 1e300])
def test_a_timeout_that_is_none_is_reported_as_such(folder: Path, timeout: float) -> None:
    with pytest.raises(ParetuneError, match="--timeout must be above 0 seconds"):
        score_folder("contrast", folder, str(folder.parent / "prompts.txt"), timeout)


def test_standard_output_holds_results_alone(folder: Path) -> None:
    """Whatever a reward prints, by Python, by a file descriptor, from C or in a child process."""
    words = (f"{folder.parent / 'mine.py'}:red", folder, "--prompts", folder.parent / "prompts.txt")
    done = call("score", *words, "--json")
    assert done.returncode == 0, done.stderr
    assert [row["image"] for row in json.loads(done.stdout)][:3] == ["img_0.png", "img_1.png", "img_2.png"]
    for line in ("imported", "scored", "written", "from C", "from a child"):
        assert line in done.stderr
    plain = call("score", *words)
    assert [line.split()[1] for line in plain.stdout.splitlines()] == [f"img_{i}.png" for i in range(12)]


def test_a_library_that_prints_leaves_json_alone() -> None:
    patch = (
        "import paretune.commands.doctor as d; old = d.examine\n"
        "d.examine = lambda: (print('a library'), os.write(1, b'by number'), old())[2]"
    )
    done = call("doctor", "--json", patch=patch)
    assert json.loads(done.stdout)
    assert "a library" in done.stderr
    assert "by number" in done.stderr
