"""How the page shows a sample: by the kind of its file, with what its rewards gave it."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from paretune.report.read import read_run
from paretune.report.samples import first_scores, show


def test_an_answer_is_words_and_a_picture_is_a_picture(tmp_path: Path) -> None:
    (tmp_path / "a-000.txt").write_text("1. <b>rub</b> it.")
    assert show(tmp_path / "a-000.txt")["words"] == "1. <b>rub</b> it."
    Image.new("RGB", (8, 8)).save(tmp_path / "a-001.png")
    shown = show(tmp_path / "a-001.png")
    assert (shown["words"], shown["pixels"]) == ("", True)
    assert shown["uri"].startswith("data:image/png;base64,")


def test_scores_are_those_of_the_sample_that_is_shown() -> None:
    rows = [
        {"method": m, "prompt_set": "ocr", "prompt": "a", "seed": seed, "reward": r, "value": value, **more}
        for m, seed, r, value, more in (
            ("base", 0, "ocr", 0.25, {}),
            ("base", 0, "judge", 0.5, {}),
            ("base", 1, "ocr", 0.75, {}),
            ("soup", 0, "ocr", 1.0, {"lattice": True}),
        )
    ]
    assert first_scores(rows) == {("base", "ocr", "a"): "ocr 0.250, judge 0.500"}


def test_a_clip_plays_and_its_sheet_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "samples" / "base"
    folder.mkdir(parents=True)
    (folder / "motion-000.mp4").write_bytes(b"clip")
    Image.new("RGB", (8, 8)).save(folder / "motion-000.png")
    index = {"prompts": [{"set": "motion", "index": 0, "text": "a ball"}], "methods": ["base"]}
    (tmp_path / "samples" / "index.json").write_text(json.dumps(index))
    (tmp_path / "config.yaml").write_text("")
    (sample,) = read_run(tmp_path).samples
    shown = show(sample.files["base"])
    assert (shown["kind"], shown["uri"]) == ("clip", "data:video/mp4;base64,Y2xpcA==")
