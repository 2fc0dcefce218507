"""Tiny real pipelines and recipes for the tests. Nothing here is downloaded."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from .blank import render_nothing
from .families import write_picture
from .pipelines import make_flux, make_hunyuan, make_sd3

# A file named "slow" beside the rewards makes each scoring take a while, the seconds in it or two: time to
# kill a run in.
REWARDS = '''
import time
from pathlib import Path

def red(images, prompts):
    if (slow := Path(__file__).with_name("slow")).exists():
        time.sleep(float(slow.read_text() or 2))
    return images.select(-3, 0).flatten(1).mean(1).tolist()

def dark(images, prompts):
    return (1 - images.flatten(1).mean(1)).tolist()
'''


def pytest_collection_finish() -> None:
    """What is loaded and collected by now stays: no search for garbage looks through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline without T5."""
    return make_sd3(tmp_path_factory.mktemp("sd3"), t5=False)


@pytest.fixture(scope="session")
def tiny_sd3_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline with a T5 encoder."""
    return make_sd3(tmp_path_factory.mktemp("sd3t5"), t5=True)


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny FLUX."""
    return make_flux(tmp_path_factory.mktemp("flux"))


@pytest.fixture(scope="session")
def tiny_hunyuan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny HunyuanVideo."""
    return make_hunyuan(tmp_path_factory.mktemp("hunyuan"))


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Embeddings that tests keep stay with the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARETUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are built, but not rendered, which takes seconds for a page."""
    render_nothing(monkeypatch.setattr)


def tiny_recipe(
    folder: Path, pipeline: Path, pictures: Sequence[tuple[int, int]] = (), **changes: Any
) -> Path:
    """A recipe of two file rewards on a tiny model, in `folder`. changes: whole sections or keys.

    pictures: width and height of the input pictures of the prompts, in turn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rewards.py").write_text(REWARDS)
    texts = ("a red circle", "two blue squares", "a sign saying kite")
    if pictures:
        rows = [{"prompt": text, "image": f"inputs/{i % len(pictures)}.png"} for i, text in enumerate(texts)]
        for i, size in enumerate(pictures):
            write_picture(folder / "inputs" / f"{i}.png", size, i)
        (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        (folder / "prompts.txt").write_text("".join(f"{text}\n" for text in texts))
    prompts = str(folder / ("prompts.jsonl" if pictures else "prompts.txt"))
    recipe: dict[str, Any] = {
        "name": "tiny",
        "rounds": 2,
        "model": {"path": str(pipeline), "steps": 3},
        "lora": {"rank": 2, "alpha": 4},
        "train": {"epochs": 2, "prompts_per_epoch": 2, "group_size": 3, "updates_per_epoch": 2,
                  "checkpoint_every": 1},
        "rewards": {
            name: {"reward": f"{folder / 'rewards.py'}:{name}", "prompts": prompts, "eval_prompts": prompts}
            for name in ("red", "dark")
        },
        "evaluate": {"prompts": 3, "samples": 1, "steps": 3},
        "executor": {"workers": 1},  # each more is another start of torch, and the bits are the same
    }  # fmt: skip
    for key, value in changes.items():
        recipe[key] = {**recipe.get(key, {}), **value} if isinstance(value, dict) else value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model."""
    from tests.language import make_llama

    return make_llama(tmp_path_factory.mktemp("llama"))
