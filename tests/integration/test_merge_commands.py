"""`merge` on adapters that peft made: its answers are peft's, the mistakes one line."""

import errno
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from paretune.adapters import fold_tensors
from paretune.adapters import inputs as adapter_inputs
from paretune.adapters import tensors as tensor_files
from paretune.adapters.fold import fold_adapter
from paretune.adapters.inspect import inspect_adapters
from paretune.adapters.merge import merge_adapters
from paretune.adapters.read import AdapterFile, read_adapter
from paretune.ops.lowrank import distance, stack
from paretune.types import ParetuneError

from .peft_adapters import INPUTS, contents, make, sd3

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three adapter folders of one base, and what peft says that each changes."""
    root = tmp_path_factory.mktemp("adapters")
    return root, make(root)


def dense_mean(deltas, names, weights):
    total = sum(weights)
    modules = {module for name in names for module in deltas[name]}
    return {
        module: sum(
            w / total * deltas[name][module]
            for name, w in zip(names, weights, strict=True)
            if module in deltas[name]
        )
        for module in modules
    }


def test_exact_merge_is_pefts_dense_sum_and_loads_in_peft_and_diffusers(made, tmp_path):
    from peft import PeftModel

    root, deltas = made
    weights = [2.0, 1.0, 1.0]
    before = contents(root)
    report = merge_adapters([root / n for n in "abc"], weights, out=tmp_path / "out")
    assert contents(root) == before
    expected = dense_mean(deltas, "abc", weights)
    merged = read_adapter(tmp_path / "out")
    assert set(merged) == set(expected)
    for module, dense in expected.items():
        torch.testing.assert_close(merged[module].dense(), dense, atol=1e-6, rtol=1e-5)
    assert (report.relative_error, report.weights) == (0.0, [0.5, 0.25, 0.25])
    assert (report.least_rank, report.greatest_rank) == (4, 9)
    plain = sd3()
    with torch.no_grad():
        for module, dense in expected.items():
            plain.get_submodule(module).weight += dense
        want = plain(**INPUTS).sample
        by_peft = PeftModel.from_pretrained(sd3(), tmp_path / "out")
        torch.testing.assert_close(by_peft(**INPUTS).sample, want, atol=2e-5, rtol=1e-4)
        by_diffusers = sd3()
        by_diffusers.load_lora_adapter(
            tmp_path / "out" / "pytorch_lora_weights.safetensors", prefix="transformer"
        )
        torch.testing.assert_close(by_diffusers(**INPUTS).sample, want, atol=2e-5, rtol=1e-4)


def test_one_adapter_merged_is_itself_and_order_does_not_matter(made, tmp_path):
    root, _ = made
    merge_adapters([root / "c"], out=tmp_path / "one")
    original, merged = read_adapter(root / "c"), read_adapter(tmp_path / "one")
    assert all(distance(original[m], merged[m]) < 1e-5 for m in original)
    merge_adapters([root / "a", root / "b"], [1, 3], out=tmp_path / "ab")
    merge_adapters([root / "b", root / "a"], [3, 1], out=tmp_path / "ba")
    one, two = read_adapter(tmp_path / "ab"), read_adapter(tmp_path / "ba")
    assert all(distance(one[m], two[m]) < 1e-5 for m in one)


def test_compressed_merge_states_the_error_that_it_leaves(made, tmp_path):
    root, deltas = made
    report = merge_adapters([root / n for n in "abc"], rank=3, out=tmp_path / "out")
    expected = dense_mean(deltas, "abc", [1, 1, 1])
    merged = read_adapter(tmp_path / "out")
    lost = sum(float((merged[m].dense() - d).norm() ** 2) for m, d in expected.items())
    size = sum(float(d.norm() ** 2) for d in expected.values())
    assert report.relative_error == pytest.approx((lost / size) ** 0.5, rel=1e-3)
    assert all(merged.rank(m) == 3 for m in merged)
    assert "rank 3 by exact" in report.line()
    kept = merge_adapters([root / n for n in "abc"], energy=0.9, out=tmp_path / "energy")
    assert 0 < kept.relative_error <= 0.1**0.5 + 1e-6


@pytest.mark.parametrize("method", ["ties", "dare", "dare-q", "min-norm"])
def test_other_methods_write_adapters_too(made, tmp_path, method):
    root, _ = made
    report = merge_adapters([root / n for n in "abc"], method=method, rank=4, out=tmp_path / "out")
    assert all(read_adapter(tmp_path / "out").rank(m) <= 4 for m in read_adapter(tmp_path / "out"))
    assert sum(report.weights) == pytest.approx(1.0)


def test_nesterov_carries_its_momentum_from_folder_to_folder(made, tmp_path):
    root, _ = made
    merge_adapters([root / "a"], method="nesterov", out=tmp_path / "one")
    merge_adapters([root / "c"], method="nesterov", state=tmp_path / "one", out=tmp_path / "two")
    first, second = read_adapter(root / "a"), read_adapter(root / "c")
    two = read_adapter(tmp_path / "two")
    for module in two:
        expected = stack([second[module], first[module]], [0.7 * 1.9, 0.7 * 0.81])
        assert distance(two[module], expected) < 1e-4
    momentum = read_adapter(tmp_path / "two" / "momentum")
    expected = stack([second["proj_out"], first["proj_out"]], [1.0, 0.9])
    assert distance(momentum["proj_out"], expected) < 1e-4


def test_provenance_names_inputs_by_hash(made, tmp_path):
    root, _ = made
    merge_adapters([root / "a", root / "b"], method="ties", density=0.5, out=tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "provenance.json").read_text())
    weights = root / "b" / "adapter_model.safetensors"
    assert facts["inputs"][1]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (facts["method"], facts["options"]) == ("ties", {"density": 0.5})
    assert facts["relative_error"] > 0


def test_one_module_is_in_memory_at_a_time(made, tmp_path, monkeypatch):
    root, _ = made
    asked: list[str] = []
    read = AdapterFile.__getitem__
    monkeypatch.setattr(
        AdapterFile, "__getitem__", lambda self, m: (asked.append(m), read(self, m))[1]
    )
    merge_adapters([root / n for n in "abc"], out=tmp_path / "out")
    runs = [m for i, m in enumerate(asked) if i == 0 or asked[i - 1] != m]
    assert len(runs) == len(set(runs))  # every module's reads follow one another


def set_config(folder: Path, **values) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def copy_of(source: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": [1, -1]}, "not negative"), ({"weights": [0, 0]}, "all weights are zero"),
        ({"weights": [1, float("nan")]}, "finite"), ({"weights": [1]}, "1 weights for 2"),
        ({"method": "mean"}, "unknown merge method"), ({"method": "factor"}, "equal ranks"),
        ({"method": "search"}, "--by RECIPE"), ({"rank": 0}, "rank 0"),
        ({"method": "ties", "densety": 1}, "no option densety"),
    ],
)  # fmt: skip
def test_a_wrong_merge_is_one_line_and_leaves_nothing(made, tmp_path, arguments, message):
    root, _ = made
    before = contents(root)
    with pytest.raises(ParetuneError, match=message) as caught:
        merge_adapters([root / "a", root / "b"], out=tmp_path / "out", **arguments)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert contents(root) == before


def test_an_existing_output_folder_is_left_alone(made, tmp_path):
    root, _ = made
    (tmp_path / "out").mkdir()
    with pytest.raises(ParetuneError, match="exists already"):
        merge_adapters([root / "a"], out=tmp_path / "out")
    with pytest.raises(ParetuneError, match="exists already"):
        fold_adapter(root / "base", root / "a", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_adapters_of_different_bases_are_refused_unless_asked_to(made, tmp_path):
    root, _ = made
    one, two = copy_of(root / "a", tmp_path / "1"), copy_of(root / "c", tmp_path / "2")
    set_config(one, base_model_name_or_path="org/base")
    set_config(two, base_model_name_or_path="/elsewhere/base")
    with pytest.raises(ParetuneError, match="different base models"):
        merge_adapters([one, two], out=tmp_path / "out")
    merge_adapters([one, two], base_model="org/base", out=tmp_path / "out")
    assert read_adapter(tmp_path / "out").base_model == "org/base"


def test_modules_saved_whole_are_carried_when_equal_and_refused_when_not(made, tmp_path):
    root, _ = made
    one, two = copy_of(root / "a", tmp_path / "1"), copy_of(root / "c", tmp_path / "2")
    whole = "base_model.model.norm_out.linear.weight"
    for folder, value in ((one, 1.0), (two, 1.0)):
        weights = folder / "adapter_model.safetensors"
        save_file({**load_file(weights), whole: torch.full((32, 16), value)}, weights)
        set_config(folder, modules_to_save=["norm_out.linear"])
    merge_adapters([one, two], out=tmp_path / "out")
    merged = tmp_path / "out" / "adapter_model.safetensors"
    assert float(load_file(merged)[whole].min()) == 1.0
    assert not (tmp_path / "out" / "pytorch_lora_weights.safetensors").exists()
    save_file({**load_file(two / merged.name), whole: torch.zeros(32, 16)}, two / merged.name)
    with pytest.raises(ParetuneError, match=r"clash in norm_out\.linear\.weight"):
        merge_adapters([one, two], out=tmp_path / "again")
    fold_adapter(root / "base", tmp_path / "out", tmp_path / "folded")
    shards = [load_file(path) for path in (tmp_path / "folded").glob("*.safetensors")]
    assert any("norm_out.linear.weight" in s and float(s["norm_out.linear.weight"].min()) == 1.0
               for s in shards)  # fmt: skip


def test_frozen_weights_beside_factors_are_carried_when_their_holders_agree(tmp_path):
    """peft stores the weight of an adapted embedding; an adapter that leaves it alone has the same."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    def llama():
        torch.manual_seed(1)
        return LlamaForCausalLM(LlamaConfig(
            vocab_size=24, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        ))  # fmt: skip

    for name, targets in (("a", ["q_proj"]), ("b", ["q_proj", "embed_tokens"]), ("c", ["embed_tokens"])):
        model = get_peft_model(llama(), LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM"))
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.data = torch.randn(parameter.shape) * 0.3
        model.save_pretrained(tmp_path / name)
    merge_adapters([tmp_path / n for n in "abc"], out=tmp_path / "out", base_model="tiny")
    one, two = read_adapter(tmp_path / "b"), read_adapter(tmp_path / "c")
    name = "model.embed_tokens"
    expected = llama().get_submodule(name).weight + (one[name].dense() + two[name].dense()).T / 3
    merged = PeftModel.from_pretrained(llama(), tmp_path / "out").merge_and_unload()
    torch.testing.assert_close(merged.get_submodule(name).weight, expected, atol=1e-5, rtol=1e-5)
    weights = tmp_path / "c" / "adapter_model.safetensors"
    changed = load_file(weights)
    changed[f"base_model.model.{name}.base_layer.weight"] += 1
    save_file(changed, weights)
    with pytest.raises(ParetuneError, match=r"b and .*c clash in model\.embed_tokens\.base_layer\.weight"):
        merge_adapters([tmp_path / n for n in "abc"], out=tmp_path / "again", base_model="tiny")


def diffusers_file(path: Path, prefix: str) -> Path:
    names = (f"{prefix}x.lora_A.weight", f"{prefix}x.lora_B.weight")
    save_file({names[0]: torch.ones(1, 3), names[1]: torch.ones(2, 1)}, path)
    return path


def test_the_output_is_for_the_library_that_the_inputs_are_for(made, tmp_path):
    root, _ = made
    unet = diffusers_file(tmp_path / "unet.safetensors", "unet.")
    merge_adapters([unet], out=tmp_path / "for-unet")
    inner = load_file(tmp_path / "for-unet" / "pytorch_lora_weights.safetensors")
    assert set(inner) == {"unet.x.lora_A.weight", "unet.x.lora_B.weight"}
    other = diffusers_file(tmp_path / "other.safetensors", "transformer.")
    with pytest.raises(ParetuneError, match="different parts: transformer and unet"):
        merge_adapters([unet, other], out=tmp_path / "both")
    language = copy_of(root / "a", tmp_path / "language")
    set_config(language, task_type="CAUSAL_LM", auto_mapping=None)
    merge_adapters([language], out=tmp_path / "for-language")
    assert not (tmp_path / "for-language" / "pytorch_lora_weights.safetensors").exists()
    assert read_adapter(tmp_path / "for-language").config["task_type"] == "CAUSAL_LM"


def test_nothing_to_merge_is_refused(tmp_path):
    with pytest.raises(ParetuneError, match="at least one adapter"):
        merge_adapters([], out=tmp_path / "out")
    with pytest.raises(ParetuneError, match="at least one adapter"):
        inspect_adapters([])


def test_other_shapes_are_refused(made, tmp_path):
    root, _ = made
    torch.manual_seed(0)
    other = {"transformer.proj_out.lora_A.weight": torch.ones(2, 9),
             "transformer.proj_out.lora_B.weight": torch.ones(16, 2)}  # fmt: skip
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(ParetuneError, match="differ in proj_out"):
        merge_adapters([root / "a", tmp_path / "other.safetensors"], out=tmp_path / "out")
    with pytest.raises(ParetuneError, match="different models"):
        inspect_adapters([root / "a", tmp_path / "other.safetensors"])


def test_a_full_disk_is_one_line_and_leaves_nothing(made, tmp_path, monkeypatch):
    root, _ = made

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensor_files.TensorSpool, "add", full)
    with pytest.raises(ParetuneError, match="no space left"):
        merge_adapters([root / "a", root / "b"], out=tmp_path / "out")
    monkeypatch.setattr(fold_tensors, "_copy", full)
    with pytest.raises(ParetuneError, match="no space left"):
        fold_adapter(root / "base", root / "a", tmp_path / "folded")
    assert not list(tmp_path.iterdir())


def test_hub_ids_download_adapter_files_only(made, tmp_path, monkeypatch):
    import huggingface_hub

    root, _ = made
    asked: list[str] = []

    class Api:
        def list_repo_files(self, repo_id):
            return ["README.md", "adapter_config.json", "adapter_model.safetensors", "huge.bin"]

    def download(repo_id, name):
        asked.append(f"{repo_id}: {name}")
        return str(root / "a" / name)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert len(adapter_inputs.open_adapter("someone/lora")) == len(read_adapter(root / "a"))
    assert asked == ["someone/lora: adapter_config.json", "someone/lora: adapter_model.safetensors"]

    def offline(self, repo_id):
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(Api, "list_repo_files", offline)
    with pytest.raises(ParetuneError, match=r"neither here nor on the hub: We couldn't connect$"):
        adapter_inputs.open_adapter("someone/absent")
    with pytest.raises(ParetuneError, match="no adapter at"):
        adapter_inputs.open_adapter(tmp_path / "absent")


def test_a_hub_repository_without_one_adapter_is_refused(monkeypatch):
    with pytest.raises(ParetuneError, match="it holds none"):
        adapter_inputs._choose("a/b", ["README.md", "deep/x.safetensors"])
    with pytest.raises(ParetuneError, match=r"several \(x\.safetensors, y\.safetensors\)"):
        adapter_inputs._choose("a/b", ["x.safetensors", "y.safetensors"])
    assert adapter_inputs._choose("a/b", ["x.safetensors"]) == "x.safetensors"
