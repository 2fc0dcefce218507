"""`fold` and `inspect` on adapters that peft made: the fold is peft's merge_and_unload."""

import json

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from paretune.adapters import fold_tensors
from paretune.adapters.fold import fold_adapter
from paretune.adapters.inspect import heatmap, inspect_adapters, render
from paretune.adapters.read import read_adapter
from paretune.types import ParetuneError

from .peft_adapters import SETTINGS, make, peft_model, sd3

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three adapter folders of one base, and what peft says that each changes."""
    root = tmp_path_factory.mktemp("adapters")
    return root, make(root)


@pytest.mark.parametrize("block", [1, 1 << 20], ids=["row by row", "at once"])
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_fold_equals_pefts_merge_and_unload(made, tmp_path, monkeypatch, name, block):
    from diffusers import SD3Transformer2DModel

    root, _ = made
    monkeypatch.setattr(fold_tensors, "BLOCK", block)
    report = fold_adapter(root / "base", root / name, tmp_path / "out")
    folded = SD3Transformer2DModel.from_pretrained(tmp_path / "out").state_dict()
    expected = peft_model(name, list(SETTINGS).index(name)).merge_and_unload().state_dict()
    assert folded.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(folded[key], tensor, atol=1e-6, rtol=1e-5)
    assert report.modules == len(read_adapter(root / name))
    shards = sorted(path.name for path in (root / "base").glob("*.safetensors"))
    assert len(shards) > 1
    assert sorted(path.name for path in (tmp_path / "out").glob("*.safetensors")) == shards


def test_fold_into_a_pipeline_copies_its_other_parts_and_rounds_once(made, tmp_path):
    root, deltas = made
    pipeline = tmp_path / "pipe"
    sd3().to(torch.bfloat16).save_pretrained(pipeline / "transformer")
    (pipeline / "model_index.json").write_text("{}")
    (pipeline / "vae").mkdir()
    (pipeline / "vae" / "model.safetensors").write_bytes(b"kept as it is")
    fold_adapter(pipeline, root / "a", tmp_path / "out")
    assert (tmp_path / "out" / "vae" / "model.safetensors").read_bytes() == b"kept as it is"
    name = "transformer/diffusion_pytorch_model.safetensors"
    before, after = load_file(pipeline / name), load_file(tmp_path / "out" / name)
    expected = (before["proj_out.weight"].float() + deltas["a"]["proj_out"]).bfloat16()
    assert after["proj_out.weight"].dtype == torch.bfloat16
    torch.testing.assert_close(after["proj_out.weight"], expected)
    assert torch.equal(after["proj_out.bias"], before["proj_out.bias"])


def test_fold_transposes_embeddings_and_conv1d_and_finds_shorter_names(tmp_path):
    b, a = torch.randn(4, 2), torch.randn(2, 6)
    tensors = {
        "base_model.model.transformer.wte.lora_embedding_A": a.clone(),
        "base_model.model.transformer.wte.lora_embedding_B": b.clone(),
        "base_model.model.transformer.h.c_attn.lora_A.weight": a,
        "base_model.model.transformer.h.c_attn.lora_B.weight": b,
    }
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "fan_in_fan_out": True}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    base = {"wte.weight": torch.zeros(6, 4), "h.c_attn.weight": torch.zeros(6, 4)}
    (tmp_path / "base").mkdir()
    save_file(base, tmp_path / "base" / "model.safetensors")
    fold_adapter(tmp_path / "base", folder, tmp_path / "out")
    folded = load_file(tmp_path / "out" / "model.safetensors")
    torch.testing.assert_close(folded["wte.weight"], (b @ a).T)
    torch.testing.assert_close(folded["h.c_attn.weight"], (b @ a).T)


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=False,
    ))  # fmt: skip


def test_adapted_embeddings_and_heads_fold_as_peft_merges_them(tmp_path):
    """peft stores their frozen weights too, which must not take the place of the change."""
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "embed_tokens", "lm_head"]
    llama().save_pretrained(tmp_path / "base")
    model = get_peft_model(llama(), LoraConfig(r=2, lora_alpha=6, target_modules=targets))
    for key, parameter in model.named_parameters():
        if "lora_" in key:
            parameter.data = torch.randn(parameter.shape) * 0.3
    model.save_pretrained(tmp_path / "lora")
    assert any("base_layer" in key for key in load_file(tmp_path / "lora" / "adapter_model.safetensors"))
    fold_adapter(tmp_path / "base", tmp_path / "lora", tmp_path / "out")
    folded = load_file(tmp_path / "out" / "model.safetensors")
    expected = model.merge_and_unload().state_dict()
    for key, tensor in folded.items():
        torch.testing.assert_close(tensor, expected[key], atol=1e-6, rtol=1e-5)
    before = load_file(tmp_path / "base" / "model.safetensors")
    moved = [key for key in folded if not torch.equal(folded[key], before[key])]
    assert len(moved) == len(targets)


def test_a_flag_of_transposed_weights_does_not_count_for_a_model_that_has_none(tmp_path):
    """peft sets the flag back for a linear layer; a square matrix does not show that it is wrong."""
    from peft import PeftModel

    llama().save_pretrained(tmp_path / "base")
    b, a, name = torch.randn(16, 2), torch.randn(2, 16), "model.layers.0.self_attn.q_proj"
    lora = peft_folder(tmp_path / "lora", {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    (lora / "adapter_config.json").write_text(json.dumps({**config, "fan_in_fan_out": True}))
    fold_adapter(tmp_path / "base", lora, tmp_path / "out")
    (lora / "adapter_config.json").write_text(json.dumps(config))
    expected = PeftModel.from_pretrained(llama(), lora).merge_and_unload().state_dict()[f"{name}.weight"]
    folded = load_file(tmp_path / "out" / "model.safetensors")[f"{name}.weight"]
    torch.testing.assert_close(folded, expected, atol=1e-5, rtol=1e-5)


def peft_folder(folder, tensors):
    folder.mkdir()
    save_file({f"base_model.model.{k}": v for k, v in tensors.items()}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1, "lora_alpha": 1}')
    return folder


def pair(module):
    return {f"{module}.lora_A.weight": torch.ones(1, 4), f"{module}.lora_B.weight": torch.ones(4, 1)}


@pytest.mark.parametrize(
    ("tensors", "base", "message"),
    [
        (pair("block.proj"), ["proj", "other.block.proj"], "several tensors named like block"),
        (pair("block.proj") | pair("proj"), ["proj"], r"the base has no block\.proj"),
        (pair("a.proj") | pair("b.proj"), ["proj", "c.a.proj", "d.b.proj"], r"the base has no"),
        (pair("proj"), ["a.proj", "b.proj"], "several tensors named like proj"),
        (pair("proj") | {"proj.weight": torch.ones(4, 4)}, ["proj"], r"changes proj\.weight twice"),
        (
            {**pair("x"), "proj.weight": torch.ones(4, 4), "proj.base_layer.weight": torch.ones(4, 4)},
            ["x", "proj"], r"changes proj\.weight twice",
        ),
    ],
)  # fmt: skip
def test_names_match_by_one_rule_and_a_weight_has_one_source(tmp_path, tensors, base, message):
    lora = peft_folder(tmp_path / "lora", tensors)
    (tmp_path / "base").mkdir()
    save_file({f"{n}.weight": torch.zeros(4, 4) for n in base}, tmp_path / "base" / "model.safetensors")
    with pytest.raises(ParetuneError, match=message):
        fold_adapter(tmp_path / "base", lora, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({}, "no safetensors weights"),
        ({"proj_out.weight": torch.zeros(16, 16)}, "the base has no transformer_blocks"),
        (None, "is not a folder: fold reads local files alone"),
    ],
)
def test_a_base_that_does_not_fit_is_one_line(made, tmp_path, base, message):
    root, _ = made
    if base is not None:
        (tmp_path / "base").mkdir()
    if base:
        save_file(base, tmp_path / "base" / "model.safetensors")
    with pytest.raises(ParetuneError, match=message):
        fold_adapter(tmp_path / "base", root / "a", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.zeros(16, 15), "it is for another model"),
        (torch.zeros(16, 16, dtype=torch.int8), "fold into a float model"),
        (torch.full((16, 16), 60000.0, dtype=torch.float16), "leaves the range of F16"),
    ],
)
def test_a_base_weight_that_cannot_take_the_change_is_one_line(tmp_path, weight, message):
    lora = {"transformer.x.lora_A.weight": torch.ones(1, 16),
            "transformer.x.lora_B.weight": torch.full((16, 1), 9000.0)}  # fmt: skip
    save_file(lora, tmp_path / "lora.safetensors")
    (tmp_path / "base").mkdir()
    save_file({"x.weight": weight}, tmp_path / "base" / "model.safetensors")
    with pytest.raises(ParetuneError, match=message):
        fold_adapter(tmp_path / "base", tmp_path / "lora.safetensors", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "lora.safetensors"]


def test_an_incomplete_base_is_one_line(made, tmp_path):
    root, _ = made
    base = tmp_path / "base"
    base.mkdir()
    index = base / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"x": "model-1.safetensors"}}')
    with pytest.raises(ParetuneError, match=r"lacks model-1\.safetensors"):
        fold_adapter(base, root / "a", tmp_path / "out")
    index.write_text("[]")
    with pytest.raises(ParetuneError, match="is not a readable weight index"):
        fold_adapter(base, root / "a", tmp_path / "out")
    (base / "model_index.json").write_text("{}")
    with pytest.raises(ParetuneError, match="no folder transformer or unet"):
        fold_adapter(base, root / "a", tmp_path / "out")


def test_an_index_of_weights_that_are_not_copied_is_not_copied_either(made, tmp_path):
    root, _ = made
    base = tmp_path / "base"
    sd3().save_pretrained(base, max_shard_size="20KB")
    kept = {path.name for path in base.iterdir()}
    assert "diffusion_pytorch_model.safetensors.index.json" in kept
    (base / "diffusion_pytorch_model.bin.index.json").write_text('{"weight_map": {"x": "model-1.bin"}}')
    (base / "model-1.bin").write_bytes(b"pickle")
    half = "diffusion_pytorch_model.safetensors.index.fp16.json"
    (base / half).write_text('{"weight_map": {"x": "model.fp16-1.safetensors"}}')
    (base / "model.fp16-1.safetensors").write_bytes(b"another variant")
    fold_adapter(base, root / "a", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == kept | {"fold.json"}


def test_the_index_of_a_variant_that_is_folded_is_kept(made, tmp_path):
    root, _ = made
    base = tmp_path / "base"
    sd3().save_pretrained(base, max_shard_size="20KB", variant="fp16")
    kept = {path.name for path in base.iterdir()}
    assert "diffusion_pytorch_model.safetensors.index.fp16.json" in kept
    fold_adapter(base, root / "a", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == kept | {"fold.json"}
    from diffusers import SD3Transformer2DModel

    SD3Transformer2DModel.from_pretrained(tmp_path / "out", variant="fp16")


def test_inspect_tells_norms_energies_and_cosines(made, tmp_path):
    root, deltas = made
    found = inspect_adapters([root / n for n in "abc"])
    flat = {
        name: torch.cat([
            deltas[name].get(m, torch.zeros_like(deltas["a"][m])).flatten() for m in deltas["a"]
        ])
        for name in "abc"
    }  # fmt: skip
    for i, x in enumerate("abc"):
        assert found.adapters[i].norm == pytest.approx(float(flat[x].norm()), rel=1e-5)
        for j, y in enumerate("abc"):
            cosine = float(torch.cosine_similarity(flat[x], flat[y], dim=0))
            assert found.cosines[i][j] == pytest.approx(cosine, abs=1e-5)
    energies = found.adapters[0].energy_by_rank
    first = sum(float(torch.linalg.svdvals(d)[0] ** 2) for d in deltas["a"].values())
    assert energies[1] == pytest.approx(first / float(flat["a"].norm() ** 2), rel=1e-4)
    assert energies[2] == pytest.approx(1.0)
    assert found.adapters[2].ranks == "2 to 4"
    assert json.loads(json.dumps(found.to_dict()))["cosines"] == found.cosines
    console = Console(record=True, width=160)
    console.print(render(found))
    text = console.export_text()
    assert "Cosines" in text
    assert "proj_out" in text
    picture = heatmap(found, tmp_path / "cosines.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ParetuneError, match="cannot write"):
        heatmap(found, picture / "below-a-file.png")
