"""Other people's models, damaged: each is one line before anything is drawn, or works as it is.

`use` does all that a run does with a model: it is planned, opened, and draws a sample.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from paretune.models.facts import check_options
from paretune.models.flow import Sampling
from paretune.models.loading import open_policy
from paretune.planning.estimate import estimate
from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.samples.media import medium_of
from paretune.types import ParetuneError
from tests.conftest import tiny_recipe
from tests.language import language_recipe, make_llama

# Sizes of a sample that is drawn in a moment, by the parts that tell the families apart.
SMALL = {
    "flux": ["model.height=16", "model.width=16", "model.options.max_sequence_length=16"],
    "hunyuan": ["model.height=16", "model.width=16", "model.options.frames=5",
                "model.options.max_sequence_length=16"],
}  # fmt: skip
KINDS = ("tiny_sd3", "tiny_sd3_t5", "tiny_flux", "tiny_hunyuan", "tiny_llama")


def use(model: Path, **options: Any) -> None:
    """Plan, open, draw."""
    language = (model / "tokenizer.json").exists()
    recipe = (language_recipe if language else tiny_recipe)(model.parent / "recipe", model)
    more = [f"model.options.{key}={value}" for key, value in options.items()]
    kind = model.parent.name
    config = load_config(recipe, [*SMALL.get(kind, []), *more])
    check_options(config.model)
    estimate(config, build_plan(config), "cpu")
    policy = open_policy(config.model)
    medium_of(config.model).draw_each(policy, "fix the table", [1], Sampling(2, 3.0, batch=1))


@pytest.fixture
def copied(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a tiny model, to damage."""

    def copy(kind: str) -> Path:
        place = tmp_path / kind.removeprefix("tiny_") / "model"
        return Path(shutil.copytree(request.getfixturevalue(kind), place))

    return copy


def told(model: Path, **options: Any) -> str:
    """The one line that using a model ends in; "" where it works."""
    line = ""
    try:
        use(model, **options)
    except ParetuneError as error:
        line = str(error)
    assert "\n" not in line
    assert len(line) < 800
    return line


def change(path: Path, **values: Any) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def weights_of(folder: Path) -> Path:
    """The one file of weights of a folder."""
    return next(folder.glob("*.safetensors"))


def edit(path: Path, how: Callable[[dict[str, torch.Tensor], str], None]) -> str:
    """Change the tensors of a file; returns the name of the one that was in the middle of its list."""
    tensors = load_file(path)
    names = [name for name in sorted(tensors) if tensors[name].is_floating_point() and tensors[name].dim()]
    name = names[len(names) // 2]
    how(tensors, name)
    save_file(tensors, path, {"format": "pt"})
    return name


PARTS = [
    ("tiny_sd3", "transformer"), ("tiny_sd3", "vae"), ("tiny_sd3", "text_encoder"),
    ("tiny_sd3_t5", "text_encoder_3"), ("tiny_flux", "transformer"), ("tiny_flux", "text_encoder_2"),
    ("tiny_hunyuan", "text_encoder"), ("tiny_hunyuan", "vae"), ("tiny_llama", ""),
]  # fmt: skip


def _put(value: float) -> Callable[[dict[str, torch.Tensor], str], None]:
    def put(tensors: dict[str, torch.Tensor], name: str) -> None:
        tensors[name].view(-1)[0] = value

    return put


def _drop(tensors: dict[str, torch.Tensor], name: str) -> None:
    del tensors[name]


def _extra(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[f"{name}.more"] = torch.zeros(2)


def _other_shape(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = torch.zeros(3, *tensors[name].shape)


WRONG: dict[str, tuple[Callable[[dict[str, torch.Tensor], str], None], str]] = {
    "missing": (_drop, "its weights lack {name}"),
    "unexpected": (_extra, "its weights hold {name}.more, which the model of its config.json does not have"),
    "nan": (_put(float("nan")), "its weights hold NaN or infinite values in {name}"),
    "infinite": (_put(float("-inf")), "its weights hold NaN or infinite values in {name}"),
    "shape": (_other_shape, r"its weights do not fit its config.json: {name} is \[3, "),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_tensors_that_are_not_whole_are_named(
    copied: Callable[[str], Path], kind: str, part: str, wrong: str
) -> None:
    model = copied(kind)
    how, line = WRONG[wrong]
    name = edit(weights_of(model / part), how)
    options = {"load_t5": "true"} if kind == "tiny_sd3_t5" else {}
    found = told(model, **options)
    plain = name.split(".", 1)[-1]  # transformers names some as it did before
    assert plain in found
    assert line.split("{name}")[0] in found
    assert f"model{'/' + part if part else ''}: " in found


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_model_works(copied: Callable[[str], Path], kind: str) -> None:
    assert told(copied(kind)) == ""


def test_tied_tensors_and_constants_are_no_damage(tmp_path: Path) -> None:
    model = make_llama(tmp_path / "model", tied=True)
    edit(weights_of(model), lambda tensors, _: tensors.update(
        {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))  # fmt: skip
    assert "lm_head.weight" not in load_file(weights_of(model))
    assert told(model) == ""


def test_a_text_encoder_out_of_a_whole_clip_is_no_damage(copied: Callable[[str], Path]) -> None:
    model = copied("tiny_sd3")
    more = {"vision_model.post_layernorm.weight": torch.ones(2), "logit_scale": torch.ones(1),
            "text_model.embeddings.position_ids": torch.arange(16)[None]}  # fmt: skip
    edit(weights_of(model / "text_encoder"), lambda tensors, _: tensors.update(more))
    assert told(model) == ""


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda model: (model / name).write_bytes(content) and None


def _folder(name: str) -> Callable[[Path], None]:
    def replace(model: Path) -> None:
        (model / name).unlink()
        (model / name).mkdir()

    return replace


def _set(name: str, **values: Any) -> Callable[[Path], None]:
    return lambda model: change(model / name, **values)


def _without(name: str) -> Callable[[Path], None]:
    return lambda model: shutil.rmtree(model / name)


def _lost_shard(part: str, stem: str) -> Callable[[Path], None]:
    """Two files, of which the index names a third."""

    def split(model: Path) -> None:
        file = weights_of(model / part)
        tensors = load_file(file)
        places = dict.fromkeys(tensors, f"{stem}-00001-of-00002.safetensors")
        save_file(tensors, file.with_name(f"{stem}-00001-of-00002.safetensors"), {"format": "pt"})
        places[sorted(tensors)[0]] = f"{stem}-00002-of-00002.safetensors"
        file.unlink()
        index = {"metadata": {"total_size": 1}, "weight_map": places}
        (model / part / f"{stem}.safetensors.index.json").write_text(json.dumps(index))

    return split


DEEP = b"[" * 100_000 + b"]" * 100_000
CONFIG, INDEX = "transformer/config.json", "model_index.json"
DAMAGES: list[tuple[str, Callable[[Path], None], str]] = [
    ("tiny_sd3", _set(INDEX, _class_name=["a"]), "needs code of its own"),
    ("tiny_sd3", _set(INDEX, _class_name=7), "model_index.json"),
    ("tiny_sd3", _set(INDEX, vae=[]), "lacks its vae"),
    ("tiny_sd3", _set(INDEX, text_encoder=["transformers"]), "cannot be loaded"),
    ("tiny_sd3", _set(CONFIG, _class_name=["a"]), CONFIG),
    ("tiny_sd3", _write(CONFIG, DEEP), f"{CONFIG} is damaged: its brackets are too deep"),
    ("tiny_sd3", _write(INDEX, DEEP), f"{INDEX} is damaged: its brackets are too deep"),
    ("tiny_sd3", _write(CONFIG, b'{"a": "\xff\xfe"}'), f"{CONFIG} is damaged: it is not UTF-8"),
    ("tiny_sd3", _write(CONFIG, b"[1]"), f"{CONFIG} is damaged: it holds no JSON object"),
    ("tiny_sd3", _write(CONFIG, b""), f"{CONFIG} is damaged"),
    ("tiny_sd3", _folder(CONFIG), f"{CONFIG} is damaged: Is a directory"),
    ("tiny_sd3", _folder(INDEX), f"{INDEX} is damaged: Is a directory"),
    *((kind, _set(CONFIG, patch_size=size), f"{CONFIG} is damaged: patch_size is {size!r}")
      for kind in ("tiny_sd3", "tiny_hunyuan") for size in (0, -2, "x", 1.5, True, [])),
    ("tiny_flux", _set(CONFIG, in_channels=0), "in_channels is 0"),
    ("tiny_flux", _set(CONFIG, num_layers=10**9), "num_layers is 1000000000, and no model has more than"),
    ("tiny_sd3", _set("vae/config.json", block_out_channels="x"), "block_out_channels is 'x'"),
    ("tiny_sd3", _set("vae/config.json", scaling_factor=0), "scaling_factor is 0"),
    ("tiny_sd3", _set("vae/config.json", scaling_factor=float("nan")), "scaling_factor is nan"),
    ("tiny_sd3", _set("text_encoder/config.json", layer_norm_eps="x"), "text_encoder"),
    ("tiny_sd3", _set("scheduler/scheduler_config.json", shift="x"), ""),
    ("tiny_sd3", _without("tokenizer"), "lacks its tokenizer"),
    ("tiny_flux", _without("tokenizer_2"), "lacks its tokenizer_2"),
    ("tiny_hunyuan", _without("tokenizer"), "lacks its tokenizer"),
    ("tiny_sd3", _without("scheduler"), "lacks its scheduler"),
    ("tiny_sd3", lambda m: weights_of(m / "vae").write_bytes(b"") and None, "is damaged"),
    ("tiny_sd3", lambda m: weights_of(m / "transformer").write_bytes(b"") and None, "safetensors is damaged"),
    ("tiny_sd3", _lost_shard("transformer", "diffusion_pytorch_model"), "model/transformer cannot be loaded"),
    ("tiny_llama", _lost_shard("", "model"), "model cannot be loaded"),
    ("tiny_llama", _set("config.json", architectures=7), "config.json is damaged: architectures is 7"),
    ("tiny_llama", _set("config.json", architectures="Llama"), "architectures is 'Llama'"),
    ("tiny_llama", _set("config.json", architectures=[7]), "architectures is [7]"),
    ("tiny_llama", _set("config.json", architectures=[]), "not a ..ForCausalLM"),
    ("tiny_llama", _set("config.json", num_hidden_layers=3), "its weights lack model.layers.2."),
    ("tiny_llama", _set("config.json", num_hidden_layers=1), "its weights hold model.layers.1."),
    ("tiny_llama", _set("config.json", num_attention_heads=0), "num_attention_heads is 0"),
    ("tiny_llama", _set("config.json", rms_norm_eps=float("nan")), "NaN or infinite"),
    ("tiny_llama", _set("generation_config.json", eos_token_id={"a": 1}), "does not work as its files say"),
    ("tiny_llama", _set("tokenizer_config.json", model_max_length="x"), "does not work as its files say"),
    ("tiny_llama", _write("config.json", DEEP), "config.json is damaged: its brackets are too deep"),
    ("tiny_llama", _write("tokenizer.json", b"{"), "model cannot be loaded"),
    ("tiny_llama", _write("chat_template.jinja", b"{% for m in %}"), "its chat template fails"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "damage", "line"), DAMAGES, ids=[f"{i}" for i in range(len(DAMAGES))])
def test_a_damage_is_one_line(
    copied: Callable[[str], Path], kind: str, damage: Callable[[Path], None], line: str
) -> None:
    model = copied(kind)
    damage(model)
    found = told(model)
    assert line in found
    assert found
