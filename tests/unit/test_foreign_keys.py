"""Adapters in other tools' key names: what paretune reads is what diffusers' own converters make of them."""

import json

import pytest
import torch
from safetensors.torch import save_file

from paretune.adapters.fold import fold_adapter
from paretune.adapters.inspect import inspect_adapters
from paretune.adapters.merge import merge_adapters
from paretune.adapters.original_names import TABLES, XLABS, spelled
from paretune.adapters.read import read_adapter
from paretune.types import ParetuneError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
H = 6  # the width of the tiny models


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def rows_of(original, width=H):
    """How many rows the original's weight has: its parts', six modulations, or twice the width."""
    if original.swap == "always":
        return 2 * width
    return width * sum(original.shares)


def tensors(names, form, width=H, rank=2, alpha=None):
    """LoRA tensors of the modules `names` (name -> rows) in a form ("lora_A/lora_B" or "down/up" ..)."""
    down, up = form.split("/")
    made = {}
    for i, (name, rows) in enumerate(names.items()):
        made[f"{name}.{down}.weight"] = random(rank, width) + i
        made[f"{name}.{up}.weight"] = random(rows, rank) - i
        if alpha is not None:
            made[f"{name}.alpha"] = torch.tensor(float(alpha))
    return made


def deltas(state):
    """module -> ΔW of diffusers' state dict, without the component's name."""
    return {
        name.removesuffix(".lora_A.weight").removeprefix("transformer."):
            state[name.replace("lora_A", "lora_B")] @ a
        for name, a in state.items() if "lora_A" in name
    }  # fmt: skip


def check(path, state, expected):
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, path)
    adapter = read_adapter(path)
    assert adapter.component == "transformer"
    assert set(adapter) == set(expected)
    for module, delta in expected.items():
        torch.testing.assert_close(adapter[module].dense(), delta, atol=1e-5, rtol=1e-4, msg=module)
    return adapter


FLUX = {
    "double_blocks.{i}.img_attn.qkv": 3 * H, "double_blocks.{i}.txt_attn.qkv": 3 * H,
    "double_blocks.{i}.img_attn.proj": H, "double_blocks.{i}.txt_attn.proj": H,
    "double_blocks.{i}.img_mlp.0": 4 * H, "double_blocks.{i}.txt_mlp.2": H,
    "double_blocks.{i}.img_mod.lin": 6 * H, "double_blocks.{i}.txt_mod.lin": 6 * H,
    "single_blocks.{i}.linear2": H, "single_blocks.{i}.modulation.lin": 3 * H,
}  # fmt: skip
VIDEO = {
    "double_blocks.{i}.img_attn_qkv": 3 * H, "double_blocks.{i}.txt_attn_qkv": 3 * H,
    "double_blocks.{i}.img_attn_proj": H, "double_blocks.{i}.txt_attn_proj": H,
    "double_blocks.{i}.img_mlp.fc1": 4 * H, "double_blocks.{i}.txt_mlp.fc2": H,
    "double_blocks.{i}.img_mod.linear": 6 * H, "single_blocks.{i}.linear2": H,
    "single_blocks.{i}.modulation.linear": 3 * H, "final_layer.linear": H,
    "final_layer.adaLN_modulation.1": 2 * H, "img_in.proj": H, "guidance_in.mlp.0": H,
    "vector_in.out_layer": H, "time_in.mlp.2": H,
    "txt_in.individual_token_refiner.blocks.{i}.mlp.fc1": 4 * H, "txt_in.t_embedder.mlp.0": H,
    "txt_in.individual_token_refiner.blocks.{i}.self_attn_proj": H, "txt_in.c_embedder.linear_2": H,
}  # fmt: skip
WAN = {original.name: H for original in TABLES["wan"] if "patch" not in original.name}


def blocks(table, count=2, flat=False):
    names = {}
    for name, rows in table.items():
        for i in range(count if "{i}" in name else 1):
            names[spelled(name, str(i), flat)] = rows
    return names


def prefixed(names, prefix):
    return {prefix + name: rows for name, rows in names.items()}


@pytest.mark.parametrize("alpha", [None, 1, 4])
def test_flux_of_kohya(tmp_path, alpha):
    from diffusers import FluxPipeline

    names = prefixed(blocks(FLUX, flat=True), "lora_unet_")
    state = tensors(names, "lora_down/lora_up", alpha=alpha)
    check(tmp_path / "x.safetensors", state, deltas(FluxPipeline.lora_state_dict(dict(state))))


def test_flux_of_kohya_at_its_real_width(tmp_path):
    """diffusers' converter knows the first linear layer of single blocks at 3072 alone."""
    from diffusers import FluxPipeline

    state = tensors({"lora_unet_single_blocks_7_linear1": 7 * 3072}, "lora_down/lora_up", alpha=1)
    expected = deltas(FluxPipeline.lora_state_dict(dict(state)))
    assert [len(delta) for delta in expected.values()] == [3072, 3072, 3072, 12288]
    check(tmp_path / "x.safetensors", state, expected)


@pytest.mark.parametrize("prefix", ["diffusion_model.", "model.diffusion_model."])
@pytest.mark.parametrize("form", ["lora_down/lora_up", "lora_A/lora_B"])
def test_flux_of_comfyui(tmp_path, prefix, form):
    from diffusers import FluxPipeline

    theirs = tensors(prefixed(blocks(FLUX), "diffusion_model."), "lora_down/lora_up", alpha=3)
    ours = tensors(prefixed(blocks(FLUX), prefix), form, alpha=3)
    check(tmp_path / "x.safetensors", ours, deltas(FluxPipeline.lora_state_dict(theirs)))


@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_flux_of_xlabs(tmp_path, prefix):
    from diffusers import FluxPipeline

    table = {original.name: H * sum(original.shares) for original in XLABS}
    state = tensors(prefixed(blocks(table), prefix), "down/up")
    check(tmp_path / "x.safetensors", state, deltas(FluxPipeline.lora_state_dict(dict(state))))


@pytest.mark.parametrize(
    "prefix", ["", "base_model.model.", "transformer."], ids=["authors", "fal", "prefixed"]
)
def test_flux_of_the_authors_and_fal_has_no_scale(tmp_path, prefix):
    from diffusers import FluxPipeline

    theirs = tensors(prefixed(blocks(FLUX, flat=True), "lora_unet_"), "lora_down/lora_up")
    ours = tensors(prefixed(blocks(FLUX), prefix), "lora_A/lora_B")
    check(tmp_path / "x.safetensors", ours, deltas(FluxPipeline.lora_state_dict(theirs)))


def test_flux_of_onetrainer(tmp_path):
    names = {f"transformer_blocks.1.attn.{part}": H for part in ("to_q", "add_k_proj", "to_out.0")}
    names["single_transformer_blocks.1.attn.to_v"] = H
    flat = {"lora_transformer_" + name.replace(".", "_"): rows for name, rows in names.items()}
    state = tensors(flat, "lora_down/lora_up", alpha=1)
    from diffusers import FluxPipeline

    expected = deltas(FluxPipeline.lora_state_dict(dict(state)))
    assert set(expected) == set(names)
    check(tmp_path / "x.safetensors", state, expected)


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "transformer."])
def test_hunyuan_video_of_the_authors_and_comfyui(tmp_path, prefix):
    from diffusers import HunyuanVideoPipeline

    state = tensors(prefixed(blocks(VIDEO), prefix), "lora_A/lora_B")
    both = dict(state)
    # diffusers swaps the halves of A too, which is wrong (it keeps ΔW's columns of other rows): undo that.
    a = f"{prefix}final_layer.adaLN_modulation.1.lora_A.weight"
    both[a] = both[a].roll(1, dims=0)
    check(tmp_path / "x.safetensors", state, deltas(HunyuanVideoPipeline.lora_state_dict(both)))


def test_hunyuan_video_of_musubi_tuner(tmp_path):
    from diffusers import HunyuanVideoPipeline

    table = {name: rows for name, rows in VIDEO.items() if not name.startswith("final_layer.ada")}
    state = tensors(prefixed(blocks(table, flat=True), "lora_unet_"), "lora_down/lora_up", alpha=1)
    theirs = tensors(blocks(table), "lora_A/lora_B")
    expected = deltas(HunyuanVideoPipeline.lora_state_dict(theirs))
    check(tmp_path / "x.safetensors", state, {name: delta / 2 for name, delta in expected.items()})


@pytest.mark.parametrize("form", ["lora_down/lora_up", "lora_A/lora_B"])
def test_wan_of_comfyui(tmp_path, form):
    from diffusers import WanPipeline

    state = tensors(prefixed(blocks(WAN), "diffusion_model."), form)
    check(tmp_path / "x.safetensors", state, deltas(WanPipeline.lora_state_dict(dict(state))))


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_wan_of_its_authors(tmp_path, prefix):
    from diffusers import WanPipeline

    torch.manual_seed(3)
    named = tensors(prefixed(blocks(WAN), "diffusion_model."), "lora_A/lora_B")
    state = {f"{prefix}{key.removeprefix('diffusion_model.')}": value for key, value in named.items()}
    check(tmp_path / "x.safetensors", state, deltas(WanPipeline.lora_state_dict(dict(named))))


def test_wan_of_musubi_tuner(tmp_path):
    from diffusers import WanPipeline

    table = {name: rows for name, rows in WAN.items() if name.startswith("blocks")}
    state = tensors(prefixed(blocks(table, flat=True), "lora_unet_"), "lora_down/lora_up", alpha=1)
    check(tmp_path / "x.safetensors", state, deltas(WanPipeline.lora_state_dict(dict(state))))


class Zeros(dict):
    """A checkpoint that has every tensor: zeros where none is given."""

    def pop(self, key, *_):
        return super().pop(key, torch.zeros(2 * H, H) if key.endswith("weight") else torch.zeros(6 * H))


@pytest.mark.parametrize("prefix", ["diffusion_model.", "lora_unet_", ""])
def test_sd3_of_kohya_and_comfyui(tmp_path, prefix):
    """The converter of SD3's whole checkpoints, which is linear, gives what becomes of a change of them."""
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    sizes = {
        "x_block.attn.qkv": 3, "x_block.attn2.qkv": 3, "context_block.attn.qkv": 3, "x_block.attn.proj": 1,
        "x_block.attn2.proj": 1, "context_block.attn.proj": 1, "x_block.mlp.fc1": 4, "x_block.mlp.fc2": 1,
        "context_block.mlp.fc1": 4, "x_block.adaLN_modulation.1": 6,
    }  # fmt: skip
    names = {f"joint_blocks.{i}.{name}": H * size for i in (0, 1) for name, size in sizes.items()}
    del names["joint_blocks.1.context_block.attn.proj"], names["joint_blocks.1.context_block.mlp.fc1"]
    names |= {"joint_blocks.0.context_block.adaLN_modulation.1": 6 * H,
              "joint_blocks.1.context_block.adaLN_modulation.1": 2 * H,
              "final_layer.adaLN_modulation.1": 2 * H, "final_layer.linear": H, "y_embedder.mlp.2": H,
              "t_embedder.mlp.0": H}  # fmt: skip
    bare = tensors(names, "lora_A/lora_B")
    dense = {name.replace("lora_A.", ""): bare[name.replace("lora_A", "lora_B")] @ a
             for name, a in bare.items() if "lora_A" in name}  # fmt: skip
    size = {"context_embedder.weight": torch.zeros(H, H)}
    converted = convert_sd3_transformer_checkpoint_to_diffusers(Zeros({**dense, **size}))
    expected = {name.removesuffix(".weight"): tensor for name, tensor in converted.items()
                if name.endswith(".weight") and tensor.abs().sum() > 0}  # fmt: skip
    flat = prefix == "lora_unet_"
    form = "lora_down/lora_up" if flat else "lora_A/lora_B"
    spelling = {prefix + (name.replace(".", "_") if flat else name): rows for name, rows in names.items()}
    state = tensors(spelling, form)
    if prefix == "":  # bare names are known by their blocks
        state = {name: tensor for name, tensor in state.items() if name.startswith("joint")} | {
            name: tensor for name, tensor in state.items() if not name.startswith("joint")
        }
    check(tmp_path / "x.safetensors", state, expected)


def test_what_reads_adapters_reads_these_too(tmp_path):
    state = tensors({"lora_unet_double_blocks_0_img_attn_qkv": 3 * H}, "lora_down/lora_up", alpha=4)
    save_file(state, tmp_path / "kohya.safetensors")
    q, k, v = (2 * state["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"]
               @ state["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"]).chunk(3)  # fmt: skip
    merge_adapters([tmp_path / "kohya.safetensors"] * 2, out=tmp_path / "merged")
    merged = read_adapter(tmp_path / "merged")
    for part, delta in zip(("to_q", "to_k", "to_v"), (q, k, v), strict=True):
        torch.testing.assert_close(merged[f"transformer_blocks.0.attn.{part}"].dense(), delta)
    inspection = inspect_adapters([tmp_path / "kohya.safetensors", tmp_path / "merged"])
    assert inspection.cosines[0][1] == pytest.approx(1)
    (tmp_path / "base").mkdir()
    parts = ("to_q", "to_k", "to_v")
    base = {f"transformer_blocks.0.attn.{part}.weight": torch.zeros(H, H) for part in parts}
    save_file(base, tmp_path / "base" / "diffusion_pytorch_model.safetensors")
    fold_adapter(tmp_path / "base", tmp_path / "kohya.safetensors", tmp_path / "out")
    from safetensors.torch import load_file

    folded = load_file(tmp_path / "out" / "diffusion_pytorch_model.safetensors")
    torch.testing.assert_close(folded["transformer_blocks.0.attn.to_k.weight"], k)


def test_keys_that_keep_an_adapters_name(tmp_path):
    state = {"transformer.x.lora_A.default_0.weight": torch.ones(1, 2),
             "transformer.x.lora_B.default_0.weight": torch.ones(2, 1),
             "transformer.y.lora_embedding_A.style": torch.ones(1, 5),
             "transformer.y.lora_embedding_B.style": torch.ones(2, 1)}  # fmt: skip
    save_file(state, tmp_path / "x.safetensors")
    adapter = read_adapter(tmp_path / "x.safetensors")
    assert list(adapter) == ["x", "y"]
    assert adapter["x"].dense().tolist() == [[1, 1], [1, 1]]
    state["transformer.x.lora_A.other.weight"] = torch.ones(1, 2)
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(ParetuneError, match="two A factors for x"):
        read_adapter(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"lora_unet_down_blocks_0_attentions_0_proj_in": H}, "kohya key names.* HunyuanVideo's and Wan's"),
        ({"lora_te1_text_model_encoder_layers_0_mlp_fc1": H}, "kohya key names of a text encoder"),
        ({"lora_unet_double_blocks_0_img_attn_qkv": 3 * H, "lora_te1_x": H}, "key names of a text encoder"),
        ({"diffusion_model.input_blocks.0.q": H}, "ComfyUI key names"),
        ({"double_blocks.0.img_attn.qkv": 4}, "its 4 rows do not split into transformer_blocks.0.attn.to_q"),
        ({"single_blocks.0.linear1": 8}, "its 8 rows do not split"),
        ({"double_blocks.0.img_attn.qkv": 3 * H, "else.q": H}, r"\(else\.q\): the original FLUX"),
        (
            {"double_blocks.0.img_attn.qkv": 3 * H, "diffusion_model.double_blocks.0.img_attn.qkv": 3 * H},
            "changes transformer_blocks.0.attn.to_q twice",
        ),
    ],
)
def test_what_no_table_has_is_one_line(tmp_path, names, told):
    save_file(tensors(names, "lora_down/lora_up"), tmp_path / "x.safetensors")
    with pytest.raises(ParetuneError, match=told) as refused:
        read_adapter(tmp_path / "x.safetensors")
    assert "\n" not in str(refused.value)


def test_a_peft_adapter_of_the_original_model_keeps_its_names(tmp_path):
    state = tensors({"base_model.model.double_blocks.0.img_attn.qkv": 3 * H}, "lora_A/lora_B")
    save_file(state, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    assert list(read_adapter(tmp_path)) == ["double_blocks.0.img_attn.qkv"]


@pytest.mark.parametrize(
    "stored",
    [
        {"x.qweight": torch.zeros(1, 2, dtype=torch.int32), "x.qzeros": torch.zeros(1, 1, dtype=torch.int32),
         "x.scales": torch.ones(1, 2)},
        {"model.x.qweight": torch.zeros(1, 2, dtype=torch.int32)},
        {"x.weight_packed": torch.zeros(1, 2, dtype=torch.int32), "x.weight_scale": torch.ones(1)},
    ],
)  # fmt: skip
def test_a_quantised_base_is_reported_as_what_it_is(tmp_path, stored):
    save_file(tensors({"x": 2}, "lora_A/lora_B", width=2), tmp_path / "lora.safetensors")
    (tmp_path / "base").mkdir()
    save_file(stored, tmp_path / "base" / "model.safetensors")
    with pytest.raises(ParetuneError, match=r"the base is quantised .* fold into the float model"):
        fold_adapter(tmp_path / "base", tmp_path / "lora.safetensors", tmp_path / "out")
