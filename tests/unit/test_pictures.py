"""Input pictures of prompts: read from records, checked with their line, and known by their content."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from paretune.data import load_prompts
from paretune.inputs.pictures import open_picture, picture_hash, prompt_identity, record_identity
from paretune.models.conditions import Conditions
from paretune.types import ParetuneError, Pictured, Prompt


def _picture(path: Path, color: str = "red", size: tuple[int, int] = (4, 6)) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def _records(file: Path, *records: dict[str, object]) -> Path:
    file.write_text("\n".join(map(json.dumps, records)))
    return file


FORMS = {
    "p.jsonl": '{"prompt": "make it blue", "image": "in/a.png"}\n{"prompt": "and green"}',
    "p.csv": "image,prompt\nin/a.png,make it blue\n,and green",
    "p.tsv": "image\tprompt\nin/a.png\tmake it blue\n\tand green",
    "p.json": '[{"prompt": "make it blue", "image": "in/a.png"}, "and green"]',
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_records_names_a_picture(tmp_path: Path, name: str) -> None:
    picture = _picture(tmp_path / "in" / "a.png")
    (tmp_path / name).write_text(FORMS[name])
    first, second = load_prompts(tmp_path / name)
    assert isinstance(first.text, Pictured)
    assert (first.text, first.text.image) == ("make it blue", str(picture))
    assert first.metadata["image"] == str(picture)
    assert not isinstance(second.text, Pictured)


def test_a_path_is_absolute_wherever_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _picture(tmp_path / "a.png")
    _records(tmp_path / "p.jsonl", {"prompt": "a", "image": "a.png"})
    monkeypatch.chdir(tmp_path)
    assert load_prompts("p.jsonl")[0].metadata["image"] == str(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("b.png", r"p\.jsonl:2: the picture .*b\.png does not exist"),
        ("x" * 300, r"p\.jsonl:2: the picture x+: File name too long"),
        (7, r'p\.jsonl:2: "image" is no text that could be the path of an input picture'),
        ("", r'p\.jsonl:2: "image" is no text'),
        ("a\nb.png", r'p\.jsonl:2: "image" is no text'),
        ("a\0", r'p\.jsonl:2: "image" is no text'),
    ],
)
def test_a_missing_picture_is_reported_with_its_line(tmp_path: Path, image: object, told: str) -> None:
    file = _records(tmp_path / "p.jsonl", {"prompt": "a"}, {"prompt": "b", "image": image})
    with pytest.raises(ParetuneError, match=told):
        load_prompts(file)


def test_a_picture_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    whole = _picture(tmp_path / "a.png", size=(64, 64)).read_bytes()
    for content in (b"", b"no picture", whole[:60], whole[:100]):
        (tmp_path / "b.png").write_bytes(content)
        with pytest.raises(ParetuneError, match=r"the picture .*b\.png cannot be read: it is damaged"):
            open_picture(str(tmp_path / "b.png"))
    with pytest.raises(ParetuneError, match="does not exist"):
        open_picture(str(tmp_path / "c.png"))


def test_a_picture_is_upright_and_rgb(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera held on its side
    Image.new("L", (4, 6)).save(tmp_path / "a.jpg", exif=turned)
    picture = open_picture(str(tmp_path / "a.jpg"))
    assert (picture.size, picture.mode) == ((6, 4), "RGB")


def test_digests_know_a_picture_by_its_content(tmp_path: Path) -> None:
    a, b = _picture(tmp_path / "a.png"), _picture(tmp_path / "b.png")
    prompts = [Prompt(Pictured("a", str(path)), {"image": str(path), "n": 1}) for path in (a, b)]
    assert record_identity(prompts[0]) == record_identity(prompts[1])  # another place, the same picture
    assert prompt_identity("a") == "a"
    assert prompt_identity(prompts[0].text) == ["a", picture_hash(str(a))]
    _picture(a, "blue")
    os.utime(a, (1, 1))
    assert record_identity(prompts[0]) != record_identity(prompts[1])
    a.unlink()
    with pytest.raises(ParetuneError, match="cannot be read: No such file"):
        picture_hash(str(a))


def test_a_pictured_prompt_survives_pickling() -> None:
    back = pickle.loads(pickle.dumps(Prompt(Pictured("make it blue", "/a.png"))))
    assert (back.text, back.text.image) == ("make it blue", "/a.png")


def test_conditions_carry_tensors_of_a_familys_own() -> None:
    one = Conditions(torch.ones(1, 2, 3), more={"picture": torch.ones(1, 2, 4), "mask_2": torch.ones(1, 3)})
    two = Conditions(torch.ones(2, 2, 3), more={"picture": torch.ones(2, 5, 4), "mask_2": torch.ones(2, 1)})
    joined = Conditions.join([one, two], one)
    assert joined.more["picture"].shape == (3, 5, 4)
    assert joined.more["picture"][0, :, 0].tolist() == [1, 1, 0, 0, 0]
    assert joined.more["mask_2"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0]]
    assert joined.negative_more["mask_2"].tolist() == [[1, 1, 1]]
    chosen = joined.select(torch.tensor([2, 0]))
    assert chosen.more["mask_2"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert chosen.negative_more["mask_2"].shape == (1, 3)
    same = Conditions.of_tensors(joined.tensors())
    assert same.tensors().keys() == joined.tensors().keys()
    assert {"more.picture", "negative_more.mask_2"} <= same.tensors().keys()


def test_every_prompt_may_have_a_negative_of_its_own() -> None:
    def part(*values: float) -> Conditions:
        tensor = torch.tensor(values)[:, None, None]
        return Conditions(tensor, negative_embeds=-tensor, negative_mask=torch.ones(len(values), 1))

    joined = Conditions.join([part(1, 2), part(3)])
    assert joined.negative_embeds is not None
    assert joined.negative_embeds.flatten().tolist() == [-1, -2, -3]
    chosen = joined.select(torch.tensor([2, 2, 0, 1])).negative_embeds
    assert chosen is not None
    assert chosen.flatten().tolist() == [-3, -3, -1, -2]


def test_pictures_of_a_dataset_become_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    source = _picture(tmp_path / "a.png", "blue").read_bytes()
    rows = {"prompt": ["make it red", "and green"], "image": [{"bytes": source, "path": "a.png"}, None]}
    features = datasets.Features({"prompt": datasets.Value("string"), "image": datasets.Image()})
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "set" / "train-0.parquet")
    first, second = load_prompts(f"hf:{tmp_path / 'set'}@train")
    assert isinstance(first.text, Pictured)
    assert Path(first.text.image).parent == tmp_path / "cache" / "pictures"
    assert Path(first.text.image).read_bytes() == source
    assert not isinstance(second.text, Pictured)
