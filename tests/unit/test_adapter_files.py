"""Adapter files: others' are read as peft and diffusers apply them, ours are loaded by both."""

import errno
import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from paretune.adapters.read import Layout, read_adapter, write_adapter
from paretune.ops.lowrank import LowRank, distance
from paretune.types import ParetuneError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


class Tiny(nn.Module):
    """One module of each kind that LoRA adapts, in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.block = nn.ModuleDict({"proj": nn.Linear(8, 12), "last": nn.Linear(12, 5)})
        self.conv = nn.Conv2d(3, 6, 3)
        self.proj = nn.Linear(6, 4)

    def forward(self, tokens, image):
        text = self.block["last"](self.block["proj"](self.table(tokens)))
        return text.sum((1, 2)) + self.proj(self.conv(image).mean((2, 3))).sum(1)


INPUTS = (torch.tensor([[1, 2, 10]]), torch.linspace(-1, 1, 75).view(1, 3, 5, 5))
TARGETS = ["table", "block.proj", "block.last", "conv", "proj"]


def tiny(seed: int = 0) -> Tiny:
    torch.manual_seed(seed)
    return Tiny()


def peft_adapter(folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, **config):
    """Save a random peft adapter of Tiny; returns what peft itself says each ΔW is."""
    from peft import LoraConfig, get_peft_model

    settings_ = {"r": 3, "lora_alpha": 6, "target_modules": TARGETS, **config}
    model = get_peft_model(tiny(), LoraConfig(**settings_), autocast_adapter_dtype=False)
    generator = torch.Generator().manual_seed(seed)
    deltas = {}
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator).to(dtype)
    for name, module in model.base_model.model.named_modules():
        if hasattr(module, "get_delta_weight"):
            deltas[name] = module.float().get_delta_weight("default").detach()
            module.to(dtype)
    model.save_pretrained(folder)
    return deltas


def as_stored(delta: LowRank, layout: Layout, like: torch.Tensor) -> torch.Tensor:
    dense = delta.dense()
    return dense.T if layout.kind == "embedding" else dense.view(like.shape)


@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(
    st.integers(1, 4),
    st.sampled_from([1.0, 5, 16]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_peft_folders_are_read_as_peft_applies_them(tmp_path_factory, r, alpha, rs, pattern, dtype):
    folder = tmp_path_factory.mktemp("adapter")
    config = {"r": r, "lora_alpha": alpha, "use_rslora": rs}
    if pattern:
        # "proj" must reach block.proj too, "^proj" only the outermost: peft matches name ends.
        config |= {"rank_pattern": {"^proj": 2, "conv": 1}, "alpha_pattern": {"proj": 7}}
    expected = peft_adapter(folder, dtype=dtype, **config)
    adapter = read_adapter(folder)
    assert set(adapter) == set(expected) == set(TARGETS)
    for name, delta in expected.items():
        ours = as_stored(adapter[name], adapter.layouts[name], delta)
        torch.testing.assert_close(ours, delta, atol=1e-5, rtol=1e-5)
        assert adapter.rank(name) == adapter[name].rank


def adapter_of(ranks: dict[str, int]) -> tuple[dict[str, LowRank], dict[str, Layout]]:
    torch.manual_seed(3)
    shapes = {"table": (8, 11), "block.proj": (12, 8), "block.last": (5, 12), "conv": (6, 27)}
    shapes["proj"] = (4, 6)
    deltas = {
        name: LowRank(torch.randn(shapes[name][0], r), torch.randn(r, shapes[name][1]))
        for name, r in ranks.items()
    }
    return deltas, {"table": Layout("embedding"), "conv": Layout("conv", (3, 3))}


@pytest.mark.parametrize(
    "ranks",
    [dict.fromkeys(TARGETS, 2), {"proj": 1, "block.proj": 3, "table": 3, "conv": 4}],
    ids=["equal", "different"],
)
def test_what_we_write_plain_peft_loads_with_the_same_effect(tmp_path, ranks):
    from peft import PeftModel

    deltas, layouts = adapter_of(ranks)
    folder = write_adapter(tmp_path / "out", deltas, "tiny", {"why": "test"}, None, layouts)
    expected = tiny()
    with torch.no_grad():
        for name, delta in deltas.items():
            weight = expected.get_submodule(name).weight
            weight += as_stored(delta, layouts.get(name, Layout()), weight)
        loaded = PeftModel.from_pretrained(tiny(), folder)
        torch.testing.assert_close(loaded(*INPUTS), expected(*INPUTS))
    back = read_adapter(folder)
    assert back.base_model == "tiny"
    assert all(distance(back[name], delta) < 1e-5 for name, delta in deltas.items())
    assert json.loads((folder / "provenance.json").read_text()) == {"why": "test"}
    assert not (folder / "pytorch_lora_weights.safetensors").exists()


def sd3():
    from diffusers import SD3Transformer2DModel

    torch.manual_seed(1)
    return SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16,
        pooled_projection_dim=16, out_channels=4, pos_embed_max_size=8,
        dual_attention_layers=(0,),
    )  # fmt: skip


@pytest.mark.parametrize("ranks", [(2, 2), (2, 5)], ids=["equal", "different"])
def test_what_we_write_plain_diffusers_loads_with_the_same_effect(tmp_path, ranks):
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

    expected = sd3()
    names = [n for n, m in expected.named_modules() if isinstance(m, nn.Linear) and "attn" in n]
    names.append("proj_out")
    deltas = {}
    for i, name in enumerate(names):
        m, n = expected.get_submodule(name).weight.shape
        r = ranks[i % 3 == 0]
        deltas[name] = LowRank(torch.randn(m, r) * 0.3, torch.randn(r, n) * 0.3)
    folder = write_adapter(tmp_path / "out", deltas, "tiny-sd3")
    parts = ("vae", "text_encoder", "text_encoder_2", "text_encoder_3")
    parts += ("tokenizer", "tokenizer_2", "tokenizer_3")
    pipe = StableDiffusion3Pipeline(
        transformer=sd3(), scheduler=FlowMatchEulerDiscreteScheduler(), **dict.fromkeys(parts)
    )
    pipe.load_lora_weights(str(folder))
    inputs = {
        "hidden_states": torch.randn(1, 4, 8, 8), "encoder_hidden_states": torch.randn(1, 5, 16),
        "pooled_projections": torch.randn(1, 16), "timestep": torch.tensor([500.0]),
    }  # fmt: skip
    with torch.no_grad():
        before = expected(**inputs).sample
        for name, delta in deltas.items():
            expected.get_submodule(name).weight += delta.dense()
        after = expected(**inputs).sample
        torch.testing.assert_close(pipe.transformer(**inputs).sample, after, atol=2e-5, rtol=1e-4)
    assert float((after - before).abs().max()) > 0.1
    inner = read_adapter(folder / "pytorch_lora_weights.safetensors")
    assert inner.component == "transformer"
    assert all(distance(inner[name], delta) < 1e-5 for name, delta in deltas.items())


def factors(prefix: str, a: str, b: str, r: int = 2) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{a}": torch.ones(r, 3), f"{prefix}.{b}": torch.ones(4, r)}


@pytest.mark.parametrize(
    ("names", "alpha", "value"),
    [
        (("lora_A.weight", "lora_B.weight"), None, 2.0),
        (("lora.down.weight", "lora.up.weight"), None, 2.0),
        (("lora_down.weight", "lora_up.weight"), 1.0, 1.0),
        (("lora_A.default.weight", "lora_B.default.weight"), 4.0, 4.0),
    ],
)
def test_diffusers_files_of_every_naming_and_alpha(tmp_path, names, alpha, value):
    tensors = factors("transformer.blocks.0.to_q", *names)
    if alpha is not None:
        tensors["transformer.blocks.0.to_q.alpha"] = torch.tensor(alpha)
    save_file(tensors, tmp_path / "style.safetensors")
    adapter = read_adapter(tmp_path)
    assert list(adapter) == ["blocks.0.to_q"]
    assert (adapter.component, adapter.base_model) == ("transformer", None)
    assert float(adapter["blocks.0.to_q"].dense()[0, 0]) == value
    assert adapter.get("blocks.1.to_q") is None


def broken(folder: Path, change: str) -> Path:
    """An adapter folder that is wrong in one way."""
    peft_adapter(folder)
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    settings_ = json.loads(config.read_text())
    tensors = load_file(weights)
    first = "base_model.model.block.proj.lora_A.weight"
    match change:
        case "dora" | "bias" | "peft_type" | "init" | "alpha" | "pattern" | "below" | "regex" | "auto":
            key, value = {
                "dora": ("use_dora", True), "bias": ("bias", "all"),
                "peft_type": ("peft_type", "LOHA"), "init": ("init_lora_weights", "pissa"),
                "alpha": ("lora_alpha", "6"), "pattern": ("rank_pattern", [1]),
                "below": ("lora_alpha", -6), "regex": ("alpha_pattern", {"(proj": 2}),
                "auto": ("auto_mapping", "Tiny"),
            }[change]  # fmt: skip
            config.write_text(json.dumps({**settings_, key: value}))
        case "json":
            config.write_text("{")
        case "list":
            config.write_text("[]")
        case "rank":
            config.write_text(json.dumps({**settings_, "r": 5}))
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "garbage":
            weights.write_bytes(b"\x80\x04pickled" * 9)
        case "nan":
            tensors[first][0, 0] = float("nan")
        case "half":
            del tensors[first]
        case "magnitude":
            tensors["base_model.model.block.proj.lora_magnitude_vector"] = torch.ones(12)
        case "lokr":
            tensors = {"transformer.a.lokr_w1": torch.ones(2, 2)}
        case "kohya":
            tensors = factors("lora_unet_a", "lora_down.weight", "lora_up.weight")
        case "text":
            tensors = factors("text_encoder.a", "lora_A.weight", "lora_B.weight")
        case "none":
            tensors = {"weight": torch.ones(2)}
        case "fit":
            tensors[first] = torch.ones(2, 8)
        case "zero":
            tensors[first] = torch.ones(0, 8)
            tensors[first.replace("_A", "_B")] = torch.ones(12, 0)
        case "alphas":
            tensors["base_model.model.block.proj.alpha"] = torch.ones(2)
    if change in {"nan", "half", "magnitude", "lokr", "kohya", "text", "none", "fit", "zero", "alphas"}:
        save_file(tensors, weights)
    if change in {"bin", "empty"}:
        weights.unlink()
    if change == "bin":
        (folder / "adapter_model.bin").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("dora", "DoRA"), ("bias", "biases"), ("peft_type", "LOHA"), ("init", "pissa"),
        ("alpha", "not all numbers"), ("pattern", "rank_pattern is no mapping"),
        ("json", "is not readable JSON"), ("list", "is not an adapter configuration"),
        ("rank", "rank 3, its configuration says 5"),
        ("truncated", "damaged or was cut short"), ("garbage", "damaged or was cut short"),
        ("nan", "NaN or infinite values in base_model.model.block.proj"),
        ("half", "lacks the A factor of block.proj"), ("magnitude", "DoRA"),
        ("lokr", "LoKr"),
        ("kohya", "kohya"), ("text", "text-encoder"), ("none", "no LoRA tensors"),
        ("below", "not all numbers of zero or more"), ("auto", "auto_mapping is no mapping"),
        ("regex", r"\(proj in its alpha_pattern is no pattern"),
        ("zero", "have rank 0"), ("alphas", r"alpha of block\.proj is not a single number but \[2\]"),
        ("fit", "do not fit"), ("bin", "is a pickle file"), ("empty", "holds no adapter_model"),
    ],
)  # fmt: skip
def test_what_is_not_plain_lora_is_refused_in_one_line(tmp_path, change, message):
    folder = broken(tmp_path / "adapter", change)
    with pytest.raises(ParetuneError, match=message) as caught:
        dict(read_adapter(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stored", ["{", "[]"])
def test_damaged_diffusers_metadata_is_refused(tmp_path, stored):
    path = tmp_path / "style.safetensors"
    tensors = factors("transformer.a", "lora_A.weight", "lora_B.weight")
    save_file(tensors, path, metadata={"lora_adapter_metadata": stored})
    with pytest.raises(ParetuneError, match="lora_adapter_metadata is no"):
        read_adapter(path)
    save_file(tensors, path, metadata={"lora_adapter_metadata": '{"transformer.r": 2, '
              '"transformer.lora_alpha": 8}'})  # fmt: skip
    assert read_adapter(path).scale("a") == 4.0


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("diffusion_model.blocks.0.q", "ComfyUI key names: load and save it once with diffusers"),
        ("transformer.double_blocks.0.img_attn.qkv", "original FLUX or HunyuanVideo key names"),
        ("single_blocks.0.linear1", "original FLUX or HunyuanVideo key names"),
        ("lora_transformer_blocks_0_attn_to_q", "kohya key names"),
        ("lora_unet_blocks_0_attn_to_q", "kohya key names"),
        ("lycoris_blocks_0_attn_to_q", "LyCORIS key names"),
    ],
)
def test_key_names_of_other_tools_are_refused_in_one_line(tmp_path, module, told):
    path = tmp_path / "style.safetensors"
    for names in (("lora_A.weight", "lora_B.weight"), ("lora_down.weight", "lora_up.weight")):
        save_file(factors(module, *names), path)
        with pytest.raises(ParetuneError, match=told) as caught:
            read_adapter(path)
        assert "\n" not in str(caught.value)
    whole = factors("transformer.a", "lora_A.weight", "lora_B.weight")
    whole["transformer.diffuser.weight"] = torch.ones(3)
    save_file(whole, path)
    assert list(read_adapter(path).whole) == ["diffuser.weight"]
    save_file({**whole, "transformer.norm.diff": torch.ones(3)}, path)
    with pytest.raises(ParetuneError, match=r"norm\.diff\): whole changes, no factors"):
        read_adapter(path)


def test_pefts_tensors_without_their_configuration_are_refused(tmp_path):
    """Their scale would be taken as 1, whatever it is."""
    folder = tmp_path / "a"
    peft_adapter(folder, lora_alpha=12)
    other = tmp_path / "style.safetensors"
    other.write_bytes((folder / "adapter_model.safetensors").read_bytes())
    (folder / "adapter_config.json").unlink()
    for place in (folder, other):
        with pytest.raises(ParetuneError, match="without their scale: put its adapter_config") as caught:
            read_adapter(place)
        assert "\n" not in str(caught.value)


def test_paths_that_hold_no_adapter_are_refused(tmp_path):
    with pytest.raises(ParetuneError, match="no adapter at"):
        read_adapter(tmp_path / "absent")
    for name in ("a.safetensors", "b.safetensors"):
        save_file(factors("unet.a", "lora_A.weight", "lora_B.weight"), tmp_path / name)
    with pytest.raises(ParetuneError, match="several safetensors files"):
        read_adapter(tmp_path)
    (tmp_path / "old.ckpt").write_bytes(b"")
    with pytest.raises(ParetuneError, match="pickle"):
        read_adapter(tmp_path / "old.ckpt")


@pytest.mark.parametrize("size", [6, 60000], ids=["at the end", "at once"])
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, size):
    """Closing the file that waits for the header writes once more, and fails once more."""
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: Path("/dev/full").open("wb"))  # noqa: SIM115
    delta = LowRank(torch.ones(4, 1), torch.ones(1, size))
    with pytest.raises(ParetuneError, match="no space left"):
        write_adapter(tmp_path / "out", {"proj": delta}, "tiny")

    def full(dir):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(ParetuneError, match="no space left"):
        write_adapter(tmp_path / "out", {"proj": delta}, "tiny")
    assert list(tmp_path.iterdir()) == []


def test_writing_refuses_an_existing_folder_and_leaves_nothing_behind(tmp_path):
    deltas, layouts = adapter_of({"proj": 1})
    folder = write_adapter(tmp_path / "out", deltas, "tiny", layouts=layouts)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ParetuneError, match="exists already"):
        write_adapter(folder, deltas, "other")
    with pytest.raises(ParetuneError, match="changes no module"):
        write_adapter(tmp_path / "empty", {}, "tiny")
    zero = LowRank(torch.zeros(4, 0), torch.zeros(0, 6))
    with pytest.raises(ValueError, match="rank 0"):
        write_adapter(tmp_path / "zero", {"proj": zero}, "tiny")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
