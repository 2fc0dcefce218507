"""Settings, factors, weights and outputs that are no numbers, by file and key; patterns that never end."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from paretune.adapters import patterns as name_patterns
from paretune.adapters.fold import fold_adapter
from paretune.adapters.inspect import inspect_adapters
from paretune.adapters.merge import merge_adapters
from paretune.adapters.patterns import first_matches
from paretune.adapters.read import read_adapter, write_adapter
from paretune.ops.lowrank import LowRank
from paretune.types import ParetuneError


def folder(root: Path, fill: float = 1.0, dtype: torch.dtype = torch.float32, **config: Any) -> Path:
    """A peft adapter of one module, block.proj: A is 2 x 4, B is 3 x 2, all entries `fill`."""
    root.mkdir(parents=True)
    tensors = {
        "base_model.model.block.proj.lora_A.weight": torch.full((2, 4), fill, dtype=dtype),
        "base_model.model.block.proj.lora_B.weight": torch.full((3, 2), fill, dtype=dtype),
    }
    save_file(tensors, root / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, **config}
    (root / "adapter_config.json").write_text(json.dumps(config))
    return root


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"lora_alpha": 1e308}, r"block\.proj times its scale 5e\+307 is beyond float32"),
        ({"lora_alpha": float("nan")}, "alphas are not all numbers of zero or more: lora_alpha is nan"),
        ({"lora_alpha": float("inf")}, "lora_alpha is inf"),
        ({"lora_alpha": -4}, "lora_alpha is -4"),
        ({"lora_alpha": "4"}, "lora_alpha is '4'"),
        ({"lora_alpha": True}, "lora_alpha is True"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"lora_alpha": [4]}, r"lora_alpha is \[4\]"),
        ({"lora_alpha": 10**400}, r"lora_alpha is 10+\.\."),
        ({"r": 0}, "ranks are not all whole numbers above zero: r is 0"),
        ({"r": 2.5}, r"r is 2\.5"),
        ({"r": -2}, "r is -2"),
        ({"r": float("nan")}, "r is nan"),
        ({"r": float("inf")}, "r is inf"),
        ({"r": False}, "r is False"),
        ({"r": 3}, "has rank 2, its configuration says 3"),
        ({"rank_pattern": {"proj": 0}}, "rank_pattern of proj is 0"),
        ({"rank_pattern": {"proj": "2"}}, "rank_pattern of proj is '2'"),
        ({"rank_pattern": [2]}, "its rank_pattern is no mapping"),
        ({"alpha_pattern": {"proj": 1e308}}, r"block\.proj times its scale"),
        ({"alpha_pattern": {"proj": float("nan")}}, "alpha_pattern of proj is nan"),
        ({"alpha_pattern": {"elsewhere": float("inf")}}, "alpha_pattern of elsewhere is inf"),
        ({"use_rslora": "false"}, "its use_rslora is 'false', not true or false"),
        ({"fan_in_fan_out": "no"}, "its fan_in_fan_out is 'no'"),
    ],
)
def test_a_number_that_is_none_is_refused_by_file_and_key(tmp_path, config, told):
    lora = folder(tmp_path / "lora", **config)
    for work in (lambda: merge_adapters([lora], out=tmp_path / "out"), lambda: inspect_adapters([lora])):
        with pytest.raises(ParetuneError, match=told) as refused:
            work()
        assert "lora/adapter_model.safetensors" in str(refused.value)
        assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]


@pytest.mark.parametrize("fill", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_factors_that_hold_no_numbers_are_refused_by_name(tmp_path, fill, dtype):
    lora = folder(tmp_path / "lora", fill, dtype)
    with pytest.raises(ParetuneError, match=r"safetensors holds NaN or infinite values in \S+lora_"):
        merge_adapters([lora], out=tmp_path / "out")


def test_an_alpha_tensor_is_checked_too(tmp_path):
    for name, value, told in (("a", float("inf"), r"in x\.alpha"), ("b", 3e38, "x times its scale")):
        tensors = {"x.lora_down.weight": torch.ones(1, 4), "x.lora_up.weight": torch.full((4, 1), 9.0)}
        save_file({**tensors, "x.alpha": torch.tensor(value)}, tmp_path / f"{name}.safetensors")
        with pytest.raises(ParetuneError, match=told):
            merge_adapters([tmp_path / f"{name}.safetensors"], out=tmp_path / "out")


@pytest.mark.parametrize(
    "options", [{}, {"method": "compressed", "rank": 1}, {"method": "ties"}, {"method": "dare"}, {"rank": 1}],
    ids=str,
)  # fmt: skip
def test_a_change_beyond_float32_is_refused_though_its_factors_are_within(tmp_path, options):
    """1e25 * 1e25 is no float32."""
    loras = [folder(tmp_path / name, 1e25) for name in "ab"]
    with pytest.raises(ParetuneError, match=r"block\.proj"):
        merge_adapters(loras, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["ties", "dare", "dare-q"])
def test_infinite_changes_of_both_signs_are_no_merge_of_zeros(tmp_path, method):
    """Opposite infinities elect no sign: the merged change was zero, without a word."""
    loras = [folder(tmp_path / name, 1e25) for name in "ab"]
    for lora, sign in zip(loras, (1, -1), strict=True):
        tensors = load_file(lora / "adapter_model.safetensors")
        tensors["base_model.model.block.proj.lora_B.weight"] *= sign
        save_file(tensors, lora / "adapter_model.safetensors")
    with pytest.raises(ParetuneError, match=r"block\.proj: an adapter's change leaves the range of float32"):
        merge_adapters(loras, out=tmp_path / "out", method=method)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "weights", [[float("nan"), 1], [float("inf"), 1], [1e308, 1e308], [-1, 2], [0, 0], [1]], ids=str
)
def test_weights_that_make_no_mean_are_refused(tmp_path, weights):
    loras = [folder(tmp_path / name) for name in "ab"]
    with pytest.raises(ParetuneError, match="weight"):
        merge_adapters(loras, weights, out=tmp_path / "out")


def test_a_stored_tensor_of_no_numbers_is_neither_merged_nor_folded(tmp_path):
    from safetensors.torch import load_file

    lora = folder(tmp_path / "lora")
    file = lora / "adapter_model.safetensors"
    save_file({**load_file(file), "base_model.model.head.weight": torch.tensor([[float("nan")]])}, file)
    (tmp_path / "base").mkdir()
    base = {"block.proj.weight": torch.zeros(3, 4), "head.weight": torch.zeros(1, 1)}
    save_file(base, tmp_path / "base" / "model.safetensors")
    with pytest.raises(ParetuneError, match=r"model\.safetensors holds NaN or infinite values in \S+head"):
        merge_adapters([lora], out=tmp_path / "out")
    with pytest.raises(ParetuneError, match=r"holds NaN or infinite values in \S+head\.weight"):
        fold_adapter(tmp_path / "base", lora, tmp_path / "out")


def test_a_whole_tensor_too_large_for_the_base_is_refused(tmp_path):
    from safetensors.torch import load_file

    lora = folder(tmp_path / "lora")
    file = lora / "adapter_model.safetensors"
    save_file({**load_file(file), "base_model.model.head.weight": torch.tensor([[1e6]])}, file)
    (tmp_path / "base").mkdir()
    base = {"block.proj.weight": torch.zeros(3, 4), "head.weight": torch.zeros(1, 1, dtype=torch.float16)}
    save_file(base, tmp_path / "base" / "model.safetensors")
    with pytest.raises(ParetuneError, match="too large for F16"):
        fold_adapter(tmp_path / "base", lora, tmp_path / "out")


def test_what_holds_no_numbers_is_not_written(tmp_path):
    bad = LowRank(torch.tensor([[float("nan")]]), torch.ones(1, 1))
    with pytest.raises(ParetuneError, match="the change of x holds NaN"):
        write_adapter(tmp_path / "out", {"x": bad}, "base")


def test_a_configuration_without_r_means_pefts_default(tmp_path):
    """peft takes r = 8, so alpha 16 is a scale of 2."""
    root = tmp_path / "lora"
    root.mkdir()
    tensors = {"base_model.model.x.lora_A.weight": torch.ones(8, 4),
               "base_model.model.x.lora_B.weight": torch.ones(3, 8)}  # fmt: skip
    save_file(tensors, root / "adapter_model.safetensors")
    (root / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 16}')
    assert read_adapter(root).scale("x") == 2.0


NAMES = ["layers.0.q_proj", "layers.1.q_proj", "layers.1.k_proj", "q_proj", "mylayers.1.q_proj", "a+b"]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("q_proj", [0, 1, 3, 4]), ("1.q_proj", [1, 4]), (r"1\.q_proj", [1, 4]), ("layers.1.q_proj", [1]),
        ("^q_proj", [3]), ("^layers.1.k_proj$", [2]), ("proj", []), (r"layers\.\d+\.q_proj", [0, 1]),
        (".*k_proj", [2]), ("layers.(0|1).q_proj", [0, 1]), (r"a\+b", [5]),
    ],
)  # fmt: skip
def test_patterns_match_as_pefts_do(pattern, wanted):
    from peft.utils.other import get_pattern_key

    assert [i for i, name in enumerate(NAMES) if name in first_matches([pattern], NAMES)] == wanted
    assert [i for i, name in enumerate(NAMES) if get_pattern_key([pattern], name) == pattern] == wanted


def test_the_first_pattern_that_matches_counts():
    patterns = [r"layers\.\d\.k.*", "^layers.0.q_proj", "q_proj", "layers.1.q_proj"]
    assert first_matches(patterns, NAMES) == {
        "layers.0.q_proj": "^layers.0.q_proj", "layers.1.q_proj": "q_proj", "layers.1.k_proj": patterns[0],
        "q_proj": "q_proj", "mylayers.1.q_proj": "q_proj",
    }  # fmt: skip


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize(
    "pattern",
    ["(a|a)*b", "(.*)*x", r"((\w|\.)+)+x", "(.*){40}x", ".*.*.*.*.*.*.*.*.*.*.*.*x", "(a|a)" * 40 + "x",
     r"(\w+\.?)+\d", "(?:(?:a?){99}){99}x"],
)  # fmt: skip
def test_a_catastrophic_pattern_is_stopped(tmp_path, monkeypatch, key, pattern):
    monkeypatch.setattr(name_patterns, "SECONDS", 0.5)
    root = folder(tmp_path / "lora", **{key: {pattern: 2}})
    name = "a" * 60
    tensors = {f"base_model.model.{name}.lora_A.weight": torch.ones(2, 4),
               f"base_model.model.{name}.lora_B.weight": torch.ones(3, 2)}  # fmt: skip
    save_file(tensors, root / "adapter_model.safetensors")
    start = time.monotonic()
    with pytest.raises(ParetuneError) as refused:
        read_adapter(root)
    assert f"{pattern} in its {key} takes more than 0.5 s to match" in str(refused.value)
    assert time.monotonic() - start < 60  # in one process it would take years


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "[z-a]", "(?P<x", "a**"])
def test_a_pattern_that_is_none_is_refused(tmp_path, pattern):
    root = folder(tmp_path / "lora", rank_pattern={pattern: 2})
    with pytest.raises(ParetuneError, match="is no pattern: ") as refused:
        read_adapter(root)
    assert f"{pattern} in its rank_pattern is" in str(refused.value)


def test_target_modules_are_not_matched_at_all(tmp_path):
    """The file names its modules; what peft trained by is read no more."""
    bad = "(a|a)*b"
    root = folder(tmp_path / "lora", target_modules=bad, exclude_modules=bad, layers_pattern=bad)
    assert list(read_adapter(root)) == ["block.proj"]
