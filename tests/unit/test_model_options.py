"""Which family a model belongs to, and the options of each."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from paretune.config import ModelConfig
from paretune.models import detect as folders
from paretune.models.detect import family_of
from paretune.models.facts import check_options
from paretune.models.family import by_hub_id, families
from paretune.recipes import find_recipe, load_config
from paretune.samples.media import medium_of
from paretune.training.trainers import STUDENTS
from paretune.types import ParetuneError
from tests.families import cases

VIDEO = "hunyuanvideo-community/HunyuanVideo"


@pytest.fixture(autouse=True)
def _ask_anew() -> Iterator[None]:
    folders._ask_hub.cache_clear()
    yield
    folders._ask_hub.cache_clear()


def _hub(files: dict[str, object], folder: Path) -> Callable[[str, str], str]:
    """What stands for hf_hub_download: a repository of these files."""

    def download(repository: str, name: str) -> str:
        if name not in files:
            raise EntryNotFoundError(f"{repository} has no {name}")
        path = folder / name
        path.write_text(json.dumps(files[name]))
        return str(path)

    return download


def test_every_family_has_a_policy_options_and_a_trainer() -> None:
    tested = {by_hub_id()[load_config(find_recipe(case.recipe)).model.path].name for case in cases().values()}
    assert {name for name, family in families().items() if family.pipelines} == tested
    for own in families().values():
        module, name = own.policy.split(":")
        assert hasattr(importlib.import_module(module), name)
        assert bool(own.pipelines) != bool(own.architectures)
    models = [ModelConfig.model_validate({"path": name}) for name in ("pictures", VIDEO, "assistant")]
    made = {model.path: medium_of(model).name for model in models}
    assert made == {"pictures": "pictures", VIDEO: "clips", "assistant": "texts"}
    assert set(made.values()) == set(STUDENTS)


@pytest.mark.parametrize(
    ("files", "family"),
    [
        ({"model_index.json": {"_class_name": "FluxPipeline"}}, "flux"),
        ({"config.json": {"architectures": ["Qwen2ForCausalLM"]}}, "causal_lm"),
    ],
)
def test_the_hub_tells_the_family_once(
    files: dict[str, object], family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", _hub(files, tmp_path))
    assert family_of("someone/new").name == family
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    assert family_of("someone/new").name == family


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "neither model_index.json nor config.json"),
        ({"model_index.json": {"_class_name": "KolorsPipeline"}}, "is a KolorsPipeline, which"),
        ({"config.json": {"architectures": ["BertModel"]}}, "is a BertModel, not a ..ForCausalLM"),
    ],
)
def test_what_has_no_policy_is_one_line(
    files: dict[str, object], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", _hub(files, tmp_path))
    with pytest.raises(ParetuneError, match=told):
        family_of("someone/new")


def test_without_a_connection_known_recipes_are_planned_and_others_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(repository: str, name: str) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    for name in ("sd35-medium", "flux1-dev", "hunyuan-video", "wan2.2-a14b", "llama2-7b"):
        check_options(load_config(find_recipe(name)).model)
    with pytest.raises(ParetuneError, match="the hub cannot be reached to ask what someone/new is"):
        family_of("someone/new")


@pytest.mark.parametrize(
    ("path", "options", "told"),
    [
        ("pictures", {"load_t6": True}, r"unknown key model.options.load_t6; did you mean load_t5\?"),
        (
            "pictures", {"frames": 8},
            "unknown key model.options.frames; known: max_sequence_length, quantize, load_t5",
        ),
        ("pictures", {"load_t5": "yes"}, "model.options.load_t5 cannot be 'yes'"),
        (VIDEO, {"frames": 0}, "model.options.frames cannot be 0: Input should be greater than 0"),
        (VIDEO, {"shift": float("nan")}, "model.options.shift cannot be nan"),
        (VIDEO, {"load_t5": True}, "unknown key model.options.load_t5"),
        ("assistant", {"top_p": 2}, "model.options.top_p cannot be 2"),
    ],
)
def test_wrong_options_are_one_line(path: str, options: dict[str, object], told: str) -> None:
    with pytest.raises(ParetuneError, match=told) as caught:
        check_options(ModelConfig.model_validate({"path": path, "options": options}))
    assert "\n" not in str(caught.value)
