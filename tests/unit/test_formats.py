"""`merge --format`: what is written for other tools reads back the same, by us and by diffusers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from paretune.adapters.merge import merge_adapters
from paretune.adapters.original_names import TABLES, spelled
from paretune.adapters.read import Layout, read_adapter, write_adapter
from paretune.ops.lowrank import LowRank

from .test_cli import call
from .test_foreign_keys import deltas

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
H = 6


def rows(original, place):
    if original.swap == "always":
        return 2 * H
    return H * original.shares[place]


def made(family, width=H, skip=()):
    """An adapter of every module that the family's table has, in two blocks; ranks 2 and 3."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for original in TABLES[family]:
        for number in ("0", "1") if "{i}" in original.name else ("",):
            for place, target in enumerate(original.targets):
                name = spelled(target, number)
                rank = 2 + place % 2
                tall = rows(original, place)
                if original.swap == "halves":
                    tall = (6 if number == "0" else 2) * H
                if name not in skip:
                    found[name] = LowRank(
                        torch.randn(tall, rank, generator=generator),
                        torch.randn(rank, width, generator=generator),
                    )
    return found


def same(read, expected):
    assert set(read) == set(expected)
    for module, delta in expected.items():
        dense = read[module].dense() if isinstance(read[module], LowRank) else read[module]
        torch.testing.assert_close(dense, delta.dense(), atol=1e-5, rtol=1e-4, msg=module)


@pytest.fixture
def merge(monkeypatch, capsys, tmp_path):
    """Run `paretune merge a --out out WORDS` on an adapter; its errors are an assertion's."""
    monkeypatch.chdir(tmp_path)

    def run(adapter, *words, layouts=None, base="base"):
        write_adapter("a", adapter, base, layouts=layouts)
        return call(monkeypatch, capsys, "merge", "a", "--out", "out", *words)

    return run


@pytest.mark.parametrize("form", ["comfyui", "kohya"])
@pytest.mark.parametrize("family", list(TABLES))
def test_what_is_written_reads_back(merge, family, form):
    adapter = made(family)
    code, out, err = merge(adapter, "--format", form, "--family", family)
    assert (code, err) == (0, "")
    assert out.startswith("out: ")
    assert sorted(path.name for path in Path("out").iterdir()) == ["out.safetensors", "provenance.json"]
    same(read_adapter("out"), adapter)
    start = "lora_unet_" if form == "kohya" else "diffusion_model."
    assert all(key.startswith(start) for key in load_file("out/out.safetensors"))
    assert json.loads(Path("out/provenance.json").read_text())["format"] == form
    with safe_open("out/out.safetensors", "pt") as file:
        assert json.loads(file.metadata()["paretune"])["made_by"] == "paretune merge"
    assert not list(Path().glob(".*partial"))


def blocks_only(adapter):
    return {name: delta for name, delta in adapter.items() if "blocks" in name and "linear1" not in name}


@pytest.mark.parametrize("form", ["comfyui", "kohya"])
def test_diffusers_reads_what_is_written_for_flux(merge, form):
    from diffusers import FluxPipeline

    parts = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")  # diffusers knows them at one width only
    skip = [f"single_transformer_blocks.{i}.{part}" for i in (0, 1) for part in parts]
    adapter = blocks_only(made("flux", skip=skip))
    assert merge(adapter, "--format", form, "--family", "flux")[0] == 0
    same(deltas(FluxPipeline.lora_state_dict("out", weight_name="out.safetensors")), adapter)


@pytest.mark.parametrize("form", ["comfyui", "kohya"])
def test_diffusers_reads_flux_single_blocks_at_their_width(merge, form):
    from diffusers import FluxPipeline

    stem = "single_transformer_blocks.37."
    adapter = {
        stem + part: LowRank(torch.randn(size, 2), torch.randn(2, 5))
        for part, size in (("attn.to_q", 3072), ("attn.to_v", 3072), ("proj_mlp", 12288), ("proj_out", 3072))
    }
    assert merge(adapter, "--format", form, "--family", "flux")[0] == 0
    read = deltas(FluxPipeline.lora_state_dict("out", weight_name="out.safetensors"))
    assert read.pop(stem + "attn.to_k").abs().max() == 0  # the part of linear1 that is not adapted
    same(read, adapter)


def test_diffusers_reads_what_is_written_for_hunyuan_video(merge):
    from diffusers import HunyuanVideoPipeline

    adapter = made("hunyuan_video")
    broken = ("refiner_blocks", "norm_out")  # diffusers splits and swaps their A as well as their B
    parts = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    single = [f"single_transformer_blocks.{i}.{part}" for i in (0, 1) for part in parts]
    adapter = {n: d for n, d in adapter.items() if n not in single and not any(b in n for b in broken)}
    assert merge(adapter, "--format", "comfyui", "--family", "hunyuan-video")[0] == 0
    same(deltas(HunyuanVideoPipeline.lora_state_dict("out", weight_name="out.safetensors")), adapter)


@pytest.mark.parametrize("form", ["comfyui", "kohya"])
def test_diffusers_reads_what_is_written_for_wan(merge, form):
    from diffusers import WanPipeline

    adapter = {n: d for n, d in made("wan").items() if n.startswith("blocks.") or form == "comfyui"}
    adapter.pop("patch_embedding", None)  # diffusers has no name for it
    assert merge(adapter, "--format", form)[0] == 0
    same(deltas(WanPipeline.lora_state_dict("out", weight_name="out.safetensors")), adapter)


@pytest.mark.parametrize(
    ("form", "files"),
    [
        ("peft", ["adapter_config.json", "adapter_model.safetensors", "provenance.json"]),
        ("diffusers", ["provenance.json", "pytorch_lora_weights.safetensors"]),
    ],
)
def test_one_librarys_files(merge, form, files):
    adapter = made("sd3")
    assert merge(adapter, "--format", form)[0] == 0
    assert sorted(path.name for path in Path("out").iterdir()) == files
    same(read_adapter("out"), adapter)


def test_diffusers_format_is_what_diffusers_loads(merge):
    from diffusers import StableDiffusion3Pipeline

    adapter = made("sd3")
    assert merge(adapter, "--format", "diffusers")[0] == 0
    same(deltas(StableDiffusion3Pipeline.lora_state_dict("out")), adapter)


def test_a_convolution_keeps_its_kernel(merge):
    adapter = {"pos_embed.proj": LowRank(torch.randn(4, 2), torch.randn(2, 3 * 2 * 2))}
    layouts = {"pos_embed.proj": Layout("conv", (2, 2))}
    assert merge(adapter, "--format", "comfyui", layouts=layouts)[0] == 0
    stored = load_file("out/out.safetensors")["diffusion_model.x_embedder.proj.lora_A.weight"]
    assert stored.shape == (2, 3, 2, 2)
    same(read_adapter("out"), adapter)
    assert read_adapter("out").layouts == layouts


def attention(name="transformer_blocks.0.attn.to_q", size=H):
    return {name: LowRank(torch.randn(size, 2), torch.randn(2, H))}


@pytest.mark.parametrize(
    ("base", "key"),
    [
        ("black-forest-labs/FLUX.1-dev", "double_blocks_0_img_attn_qkv"),
        ("stabilityai/stable-diffusion-3.5-medium", "joint_blocks_0_x_block_attn_qkv"),
        ("hunyuanvideo-community/HunyuanVideo", "double_blocks_0_img_attn_qkv"),
    ],
)
def test_the_base_models_name_tells_the_family(merge, base, key):
    assert merge(attention(), "--format", "kohya", base=base)[0] == 0
    assert f"lora_unet_{key}.lora_down.weight" in load_file("out/out.safetensors")


def test_the_next_version_of_a_family_is_not_taken_for_it(merge):
    """musubi-tuner divides the attention of HunyuanVideo 1.5 otherwise than that of HunyuanVideo."""
    base = "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v"
    code, _, err = merge(attention(), "--format", "kohya", base=base)
    assert code == 2
    assert "has other names in these tools than HunyuanVideo, which are not known here: write peft" in err


@pytest.mark.parametrize(
    ("adapter", "words", "told"),
    [
        (attention(), ["--format", "gguf"], "--format gguf is none of peft, diffusers, comfyui, kohya"),
        (attention(), ["--format", "kohya", "--family", "sdxl"], "--family sdxl is none of flux"),
        (attention(), ["--family", "flux"], "--family is for --format"),
        (attention(), ["--format", "peft", "--family", "flux"], "--family is for --format comfyui and kohya"),
        (attention(), ["--format", "kohya"], "add --family, one of flux, hunyuan_video, sd3, wan"),
        (attention("x.q"), ["--format", "kohya"], "modules such as x.q are of none of"),
        (attention("x.q"), ["--format", "kohya", "--family", "flux"], "x.q has no name in flux's original"),
        (
            attention() | attention("transformer_blocks.0.attn.to_k", 4),
            ["--format", "comfyui", "--family", "flux"], "the parts of double_blocks.0.img_attn.qkv do not",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(merge, adapter, words, told):
    code, _, err = merge(adapter, *words)
    assert code == 2
    assert told in err
    assert len(err.strip().splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["a"]


def test_tensors_stored_whole_have_no_place_in_other_tools_files(merge, tmp_path):
    from safetensors.torch import save_file

    from paretune.types import ParetuneError

    write_adapter("whole", attention(), "flux", component=None)
    file = "whole/adapter_model.safetensors"
    save_file({**load_file(file), "base_model.model.head.weight": torch.ones(2, 2)}, file)
    merge_adapters(["whole"], out="merged")
    from paretune.adapters.formats import in_format

    for form, words in (("kohya", "stored whole"), ("diffusers", "whole tensors")):
        with pytest.raises(ParetuneError, match=words), in_format(Path("out"), form) as place:
            merge_adapters(["whole"], out=place)
        assert not Path("out").exists()
