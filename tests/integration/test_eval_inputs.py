"""`paretune eval` takes what merge and inspect take: one adapter in every form gives the same figures."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from paretune.adapters.formats import in_format
from paretune.adapters.write import write_adapter
from paretune.commands import measure
from paretune.ops.lowrank import LowRank
from paretune.recipes import load_config
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe
from tests.executing import InThisProcess

MODULES = [f"transformer_blocks.0.attn.{name}" for name in ("to_q", "to_v")]
PEFT, DIFFUSERS = "adapter_model.safetensors", "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def made(tiny_sd3, tmp_path_factory):
    """The recipe and one adapter, in all the forms that it comes in."""
    root = tmp_path_factory.mktemp("inputs")
    recipe = tiny_recipe(root / "recipe", tiny_sd3)
    generator = torch.Generator().manual_seed(0)
    deltas = {
        name: LowRank(torch.randn(16, 2, generator=generator), torch.randn(2, 16, generator=generator))
        for name in MODULES
    }
    write_adapter(root / "both", deltas, "base")
    write_adapter(root / "old", {f"model.{name}": delta for name, delta in deltas.items()}, "base")
    (root / "diffusers").mkdir()
    shutil.copy(root / "both" / DIFFUSERS, root / "diffusers" / DIFFUSERS)
    shutil.copy(root / "both" / DIFFUSERS, root / "one file.safetensors")
    tensors = load_file(root / "both" / DIFFUSERS)
    save_file({k.removeprefix("transformer."): v for k, v in tensors.items()}, root / "bare.safetensors")
    with in_format(root / "comfyui", "comfyui", "sd3") as place:
        write_adapter(place, deltas, "base")
    return load_config(recipe), root


@pytest.fixture
def measured(made, monkeypatch, tmp_path):
    """Measure adapters of the folder `made`; gives back their means by name."""
    monkeypatch.setattr(measure, "open_executor", InThisProcess)
    monkeypatch.chdir(made[1])

    def run(*names: str, **options):
        table = measure.measure_adapters(made[0], names, tmp_path / "out", lambda _: None, **options)
        return table["methods"]

    return run


def test_every_form_of_one_adapter_measures_the_same(measured, made, monkeypatch):
    import huggingface_hub

    files = ["adapter_config.json", PEFT]
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, repository: files)
    local = made[1] / "both"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repository, name: str(local / name))
    forms = ["both", "diffusers", "one file.safetensors", "bare.safetensors", f"both/{PEFT}", "owner/name",
             "comfyui", "comfyui/comfyui.safetensors"]  # fmt: skip
    means = measured(*forms)
    assert list(means) == ["base", *forms]
    assert means["both"] != means["base"]
    for form in forms:
        assert means[form] == pytest.approx(means["both"], abs=1e-6)


def test_renamed_modules_are_measured_under_their_new_names(measured):
    with pytest.raises(ParetuneError, match=r"the model does not have"):
        measured("old")
    means = measured("old", "both", renames=["model="])
    assert means["old"] == pytest.approx(means["both"], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "told"), [("nowhere", "no adapter at nowhere"), ("recipe", "holds no safetensors file")]
)
def test_what_is_no_adapter_is_refused_before_anything_is_measured(measured, tmp_path, name, told):
    with pytest.raises(ParetuneError, match=told):
        measured("both", name)
    assert not (tmp_path / "out").exists()


def test_tensors_stored_whole_are_refused_for_they_would_be_left_out(measured, made, tmp_path):
    root = tmp_path / "whole"
    shutil.copytree(made[1] / "both", root)
    (root / DIFFUSERS).unlink()
    tensors = load_file(root / PEFT)
    save_file({**tensors, "base_model.model.proj_out.weight": torch.zeros(16, 16)}, root / PEFT)
    with pytest.raises(ParetuneError, match=r"proj_out\.weight whole.*fold it into the base first"):
        measured(str(root))
