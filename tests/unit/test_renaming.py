"""Adapters of one base under two names: seen, told, and mended by --rename."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from paretune.adapters.fold import fold_adapter
from paretune.adapters.inspect import inspect_adapters
from paretune.adapters.merge import merge_adapters
from paretune.adapters.read import read_adapter
from paretune.adapters.renaming import Rename, alias, aliases, read_renames
from paretune.adapters.write import write_adapter
from paretune.ops.lowrank import LowRank
from paretune.types import ParetuneError

from .test_cli import call

OLD = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.0.mlp.up_proj"]
NEW = [name.replace("model.", "model.language_model.") for name in OLD]


def lora(folder: Path, names: list[str], value: float = 1.0) -> Path:
    """An adapter that adds `value` to the first entry of each module's 2 x 2 weight."""
    deltas = {name: LowRank(torch.tensor([[value], [0.0]]), torch.tensor([[1.0, 0.0]])) for name in names}
    return write_adapter(folder, deltas, "base", component=None)


@pytest.mark.parametrize(
    ("rename", "before", "after"),
    [
        ("model.layers=model.language_model.layers", OLD[0], NEW[0]),
        ("model.layers=model.language_model.layers", NEW[0], NEW[0]),
        ("layers=language_model.layers", OLD[0], NEW[0]),
        ("layers=language_model.layers", NEW[0], NEW[0]),
        ("language_model=", NEW[0], OLD[0]),
        ("model.=", "model.x.q", "x.q"),
        ("=model", "x.q", "model.x.q"),
        ("=model", "model.x.q", "model.x.q"),
        ("h=layers", "hh.h.0.ch", "hh.layers.0.ch"),
        ("q=k", "a.q", "a.k"),
        ("q=", "q", "q"),
    ],
)
def test_a_rename_replaces_whole_parts_once(rename, before, after):
    assert read_renames([rename])[0](before) == after


@pytest.mark.parametrize(
    ("theirs", "ours", "rule"),
    [
        (OLD, NEW, "model.layers=model.language_model.layers"),
        (NEW, OLD, "model.language_model.layers=model.layers"),
        (["layers.0.q", "layers.1.q"], ["model.layers.0.q", "model.layers.1.q"], "=model"),
        (["model.layers.0.q"], ["layers.0.q"], "model="),
        (["blocks.0.q"], ["blocks.1.q"], None),
        (["blocks.0.attn1.q"], ["blocks.0.attn2.q"], None),
        (["encoder.layers.0.q"], ["decoder.layers.0.q"], None),
        (["a.q"], ["b.v"], None),
    ],
)
def test_what_differs_by_parts_more_is_one_name(theirs, ours, rule):
    found = alias(theirs, ours)
    assert (None if found is None else str(found)) == rule
    if found is not None:
        assert [found(name) for name in theirs] == ours


def test_names_that_begin_otherwise_are_offered_where_nothing_is_shared():
    assert alias(["text.layers.0.q"], ["model.layers.0.q"], inserted_only=False) == Rename("text", "model")
    assert alias(["double_blocks.0.q"], ["single_blocks.0.q"], inserted_only=False) is None


def test_two_names_of_one_base_are_refused_and_renamed_on_request(tmp_path):
    """Merged without a word, each would be halved: 1 and 3 give .5 and 1.5, where 2 is right."""
    a, b = lora(tmp_path / "a", OLD, 1.0), lora(tmp_path / "b", NEW, 3.0)
    rule = "--rename model.language_model.layers=model.layers"
    for work in (lambda: merge_adapters([a, b], out=tmp_path / "out"), lambda: inspect_adapters([a, b])):
        with pytest.raises(ParetuneError, match=rule) as refused:
            work()
        assert f"{a} and {b}" in str(refused.value)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
    merge_adapters([a, b], out=tmp_path / "out", renames=["model.language_model.layers=model.layers"])
    merged = read_adapter(tmp_path / "out")
    assert list(merged) == OLD
    assert [merged[name].dense()[0, 0].item() for name in merged] == [2.0, 2.0, 2.0]
    merge_adapters([a, b], out=tmp_path / "other", renames=["model.layers=model.language_model.layers"])
    assert list(read_adapter(tmp_path / "other")) == NEW


@pytest.mark.parametrize(
    ("theirs", "shape"),
    [(["attn.to_q", "blocks.0.proj_out"], 2), (["x.attn.to_q", "x.proj_out"], 3)],
    ids=["one shared, one other", "other shapes"],
)
def test_modules_whose_names_end_alike_may_be_different(tmp_path, theirs, shape):
    """FLUX has a last `proj_out`, and one in each single block."""
    a = lora(tmp_path / "a", ["attn.to_q", "proj_out"])
    wide = {name: LowRank(torch.ones(shape, 1), torch.ones(1, shape)) for name in theirs}
    if shape == 2:
        wide["attn.to_q"] = LowRank(torch.ones(2, 1), torch.ones(1, 2))
    b = write_adapter(tmp_path / "b", wide, "base", component=None)
    all_names = {*theirs, "attn.to_q", "proj_out"}
    assert merge_adapters([a, b], out=tmp_path / "out", normalise=False).modules == len(all_names)
    inspect_adapters([a, b])


def test_rules_that_fit_alike_come_in_order():
    theirs = [f"model.layers.{i}.q" for i in range(2)]
    ours = [f"model.{part}.layers.{i}.q" for part in ("encoder", "decoder") for i in range(2)]
    found = aliases(theirs, ours)
    assert [str(rule) for rule in found] == [
        f"model.layers=model.{part}.layers" for part in ("decoder", "encoder")
    ]  # fmt: skip


def test_fold_does_not_choose_between_an_encoder_and_a_decoder(tmp_path):
    a = lora(tmp_path / "a", [f"model.layers.{i}.q" for i in range(2)])
    names = [f"model.{part}.layers.{i}.q" for part in ("encoder", "decoder") for i in range(2)]
    with pytest.raises(ParetuneError, match="several tensors named like model"):
        fold_adapter(base(tmp_path / "base", names), a, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_share_of_renamed_modules_is_seen_too(tmp_path):
    a, b = lora(tmp_path / "a", ["lm_head", *OLD]), lora(tmp_path / "b", ["lm_head", *NEW])
    with pytest.raises(ParetuneError, match="--rename"):
        merge_adapters([a, b], out=tmp_path / "out")
    with pytest.raises(ParetuneError, match="--rename"):
        merge_adapters([a, b], out=tmp_path / "out", normalise=False)


def test_adapters_of_other_modules_are_summed_but_not_averaged(tmp_path):
    a, b = lora(tmp_path / "a", ["blocks.0.attn.q"]), lora(tmp_path / "b", ["blocks.0.mlp.up"])
    with pytest.raises(ParetuneError, match=r"share no module \(blocks\.0\.attn\.q .*\.mlp\.up.*--sum"):
        merge_adapters([a, b], out=tmp_path / "out")
    merge_adapters([a, b], out=tmp_path / "out", normalise=False)
    merged = read_adapter(tmp_path / "out")
    assert {name: merged[name].dense()[0, 0].item() for name in merged} == {
        "blocks.0.attn.q": 1.0, "blocks.0.mlp.up": 1.0,
    }  # fmt: skip
    assert inspect_adapters([a, b]).cosines == [[1.0, 0.0], [0.0, 1.0]]


def test_one_of_three_that_shares_nothing_is_named(tmp_path):
    folders = [lora(tmp_path / n, [m]) for n, m in (("a", "x.q"), ("b", "x.q"), ("c", "y.v"))]
    with pytest.raises(ParetuneError, match=f"{folders[2]} and {folders[0]} share no module"):
        merge_adapters(folders, out=tmp_path / "out")


def test_some_modules_of_the_other_are_enough(tmp_path):
    a, b = lora(tmp_path / "a", ["x.q", "x.k"]), lora(tmp_path / "b", ["x.q"])
    assert merge_adapters([a, b], out=tmp_path / "out").modules == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rename", "layers"], "--rename wants OLD=NEW"),
        (["--rename", "a=a"], "--rename wants OLD=NEW"),
        (["--rename", "elsewhere=there"], "changes no module's name; they are called like model.layers.0"),
        (["--rename", "0=1"], "gives two modules of"),
    ],
)
def test_a_wrong_rename_is_one_line(monkeypatch, capsys, tmp_path, words, told):
    lora(tmp_path / "a", OLD)
    monkeypatch.chdir(tmp_path)
    code, _, err = call(monkeypatch, capsys, "merge", "a", "a", "--out", "out", *words)
    assert code == 2
    assert told in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def base(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    save_file({f"{name}.weight": torch.zeros(2, 2) for name in names}, folder / "model.safetensors")
    return folder


def folded(folder: Path) -> Any:
    from safetensors.torch import load_file

    return {n: t[0, 0].item() for n, t in load_file(folder / "model.safetensors").items()}


@pytest.mark.parametrize(("names", "stored"), [(OLD, NEW), (NEW, OLD)])
def test_fold_finds_a_base_whose_middle_names_differ(tmp_path, names, stored):
    """A vision-language checkpoint's language model, before and after transformers renamed it."""
    a, root = lora(tmp_path / "a", names), base(tmp_path / "base", [*stored, "visual.blocks.0.q"])
    fold_adapter(root, a, tmp_path / "out")
    expected = {f"{n}.weight": 1.0 for n in stored} | {"visual.blocks.0.q.weight": 0.0}
    assert folded(tmp_path / "out") == expected


def test_fold_takes_a_rename_as_typed(monkeypatch, capsys, tmp_path):
    lora(tmp_path / "a", ["text.first.q"])
    base(tmp_path / "base", ["body.one.q"])
    monkeypatch.chdir(tmp_path)
    code, _, err = call(monkeypatch, capsys, "fold", "base", "a", "--out", "out")
    assert (code, "it is for another model, or give --rename OLD=NEW" in err) == (2, True)
    code, _, err = call(
        monkeypatch, capsys, "fold", "base", "a", "--out", "out", "--rename", "text.first=body.one"
    )
    assert (code, err) == (0, "")
    assert folded(tmp_path / "out") == {"body.one.q.weight": 1.0}


def test_inspect_takes_a_rename_as_typed(monkeypatch, capsys, tmp_path):
    lora(tmp_path / "a", OLD)
    lora(tmp_path / "b", NEW)
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(
        monkeypatch, capsys, "inspect", "a", "b", "--json", "--rename", "model.language_model=model"
    )
    assert code == 0
    import json

    told = json.loads(out)
    assert told["cosines"] == [[1.0, 1.0], [1.0, 1.0]]
    assert told["adapters"][1]["modules"][0] == {
        "name": OLD[0], "shape": [2, 2], "rank": 1, "effective_rank": 1, "scale": 1.0, "norm": 1.0,
    }  # fmt: skip
