"""`merge --sum`, `--no-normalise` and negative weights: the weights as they are, said in the provenance."""

import json
from pathlib import Path

import pytest
import torch

from paretune.adapters.read import read_adapter
from paretune.adapters.write import write_adapter
from paretune.ops.lowrank import LowRank
from paretune.ops.merging import merge_experts

from .test_cli import call


@pytest.fixture
def merge(monkeypatch, capsys, tmp_path):
    """Run `paretune merge a b --out out WORDS`: a and b change `m` by diag(1, 0) and diag(2, 4)."""
    for name, diagonal in (("a", [1.0, 0.0]), ("b", [2.0, 4.0])):
        delta = LowRank(torch.diag(torch.tensor(diagonal)), torch.eye(2))
        write_adapter(tmp_path / name, {"m": delta}, "base")
    monkeypatch.chdir(tmp_path)

    def run(*words: str, inputs: tuple[str, ...] = ("a", "b")):
        return call(monkeypatch, capsys, "merge", *inputs, "--out", "out", *words)

    return run


def diagonal() -> list[float]:
    dense = read_adapter("out")["m"].dense()
    return [round(float(x), 5) for x in dense.diagonal()]


@pytest.mark.parametrize(
    ("words", "expected", "weights"),
    [
        (["--sum"], [3, 4], [1, 1]),
        (["--weights", "0.7,0.4", "--no-normalise"], [1.5, 1.6], [0.7, 0.4]),
        (["--weights", "1,-0.5", "--no-normalise"], [0, -2], [1, -0.5]),
        (["--weights", "-1,1", "--no-normalise"], [1, 4], [-1, 1]),
        (["--weights", "2,0", "--no-normalise"], [2, 0], [2, 0]),
        (["--weights", "1,-1", "--no-normalise", "--rank", "1"], [0, -4], [1, -1]),
        (["--sum", "--method", "compressed", "--rank", "2"], [3, 4], [1, 1]),
        (["--sum", "--method", "dare", "--option", "density=1"], [3, 4], [1, 1]),
        (["--sum", "--method", "dare-q", "--option", "density=1"], [3, 4], [1, 1]),
    ],
)
def test_weights_as_they_are(merge, words, expected, weights):
    code, out, err = merge(*words)
    assert (code, err) == (0, "")
    assert "weights taken as they are" in out
    assert diagonal() == expected
    facts = json.loads(Path("out/provenance.json").read_text())
    assert facts["normalised"] is False
    assert [told["weight"] for told in facts["inputs"]] == weights


def test_a_mean_says_that_it_is_one(merge):
    assert merge("--weights", "3,1")[0] == 0
    facts = json.loads(Path("out/provenance.json").read_text())
    assert (facts["normalised"], [told["weight"] for told in facts["inputs"]]) == (True, [0.75, 0.25])
    assert diagonal() == [1.25, 1.0]


def test_the_sum_of_an_adapter_and_its_negative_is_zero(merge):
    assert merge("--weights", "1,-1", "--no-normalise", inputs=("b", "b"))[0] == 0
    assert torch.equal(read_adapter("out")["m"].dense(), torch.zeros(2, 2))


def test_one_adapter_scaled(merge):
    assert merge("--weights", "-2", "--no-normalise", inputs=("b",))[0] == 0
    assert diagonal() == [-4, -8]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--sum", "--weights", "1,2"], "--sum takes every adapter once; for weights give --no-normalise"),
        (["--weights", "1,-1"], "weight -1.0 cannot be used"),
        (["--weights", "1,-1"], "--no-normalise subtracts"),
        (["--weights", "0,0", "--no-normalise"], "all weights are zero"),
        (["--weights", "nan,1", "--no-normalise"], "weight nan cannot be used"),
        (["--weights", "1e308,inf", "--no-normalise"], "weight inf cannot be used"),
        (["--weights", "1", "--no-normalise"], "1 weights for 2 adapters"),
        (["--weights", "1e39,1", "--no-normalise"], "m"),
        (["--sum", "--method", "ties"], "ties averages: weights as they are go with exact, compressed, dare"),
        (["--sum", "--method", "factor"], "factor averages"),
        (["--sum", "--method", "min-norm"], "min-norm averages"),
        (["--sum", "--method", "nesterov"], "nesterov averages"),
    ],
)
def test_what_cannot_be_is_one_line(merge, words, told):
    code, _, err = merge(*words)
    assert code == 2
    assert told in err
    assert len(err.strip().splitlines()) == 1
    assert not Path("out").exists()


def test_tensors_stored_whole_have_no_weights(merge):
    from safetensors.torch import load_file, save_file

    file = Path("a/adapter_model.safetensors")
    save_file({**load_file(file), "base_model.model.head.weight": torch.ones(2, 2)}, file)
    assert merge(inputs=("a",))[0] == 0
    import shutil

    shutil.rmtree("out")
    code, _, err = merge("--weights", "2", "--no-normalise", inputs=("a",))
    assert (code, "head.weight" in err) == (2, True)


def test_raw_weights_of_one_adapter_are_that_adapter():
    delta = LowRank(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0]]))
    for method, options in (("exact", {}), ("compressed", {"rank": 1}), ("dare", {"density": 1.0})):
        merged = merge_experts([{"m": delta}], [1.0], method, normalise=False, **options).deltas["m"]
        torch.testing.assert_close(merged.dense(), torch.tensor([[3.0, 4.0], [6.0, 8.0]]))
