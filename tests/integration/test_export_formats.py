"""`paretune export --format`: a run's final adapter for one tool, read back as the same changes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from paretune.adapters.read import read_adapter
from paretune.commands.export import export_adapter, export_format
from paretune.types import ParetuneError
from tests.made_run import make_run, make_texts_run


@pytest.fixture(scope="module")
def run(tiny_sd3, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("formats") / "run", tiny_sd3)


@pytest.mark.parametrize(
    ("form", "files"),
    [
        ("comfyui", ["out.safetensors", "provenance.json"]),
        ("kohya", ["out.safetensors", "provenance.json"]),
        ("peft", ["adapter_config.json", "adapter_model.safetensors", "provenance.json"]),
        ("diffusers", ["provenance.json", "pytorch_lora_weights.safetensors"]),
    ],
)
def test_a_run_is_exported_for_one_tool(run, tmp_path, form, files):
    assert export_format(run, tmp_path / "out", None, form) == 0.0
    export_adapter(run, tmp_path / "usual", None)
    expected, found = read_adapter(tmp_path / "usual"), read_adapter(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
    if form in ("peft", "diffusers"):
        assert set(found) == set(expected)
    for module in found:
        wanted = expected[module].dense() if module in expected else torch.zeros(found.shape(module))
        torch.testing.assert_close(found[module].dense(), wanted, atol=1e-5, rtol=1e-4)
    assert set(expected) <= set(found)


def test_a_rank_and_the_names_of_the_original(run, tmp_path):
    error = export_format(run, tmp_path / "out", 1, "comfyui")
    assert 0 < error < 1
    keys = {key.split(".lora_")[0] for key in load_file(tmp_path / "out" / "out.safetensors")}
    assert keys == {
        "diffusion_model.joint_blocks.0.x_block.attn.qkv", "diffusion_model.joint_blocks.0.x_block.attn.proj",
        "diffusion_model.joint_blocks.0.context_block.attn.qkv",
    }  # fmt: skip


@pytest.mark.parametrize("rank", [0, -3])
@pytest.mark.parametrize("form", [None, "kohya"])
def test_a_rank_that_is_none_is_one_line(run, tmp_path, form, rank):
    with pytest.raises(ParetuneError, match=f"--rank {rank} cannot be used; it is at least 1"):
        export_adapter(run, tmp_path / "x", rank) if form is None else export_format(
            run, tmp_path / "x", rank, form
        )
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_and_an_unknown_format_are_left_alone(run, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ParetuneError, match="exists already"):
        export_format(run, tmp_path / "out", None, "kohya")
    with pytest.raises(ParetuneError, match="--format onnx is none of"):
        export_format(run, tmp_path / "new", None, "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_language_models_adapter_is_pefts(tiny_llama, tmp_path):
    texts = make_texts_run(tmp_path / "run", tiny_llama)
    with pytest.raises(ParetuneError, match="a language model's adapter is peft's"):
        export_format(texts, tmp_path / "out", None, "comfyui")
    export_format(texts, tmp_path / "out", None, "peft")
    assert not (tmp_path / "out" / "pytorch_lora_weights.safetensors").exists()
    assert Path(tmp_path / "out" / "adapter_model.safetensors").exists()
