"""Code that a model's folder names is never run, whatever stdin says; its model is loaded where it can be."""

from __future__ import annotations

import ast
import builtins
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM

from paretune.adapters.transformers_names import names_of
from paretune.config import ModelConfig
from paretune.data.hub import load_hub
from paretune.foreign import loading as foreign
from paretune.models.detect import check_model
from paretune.models.loading import open_policy
from paretune.rewards.base import load_reward
from paretune.types import ParetuneError
from tests.integration.commands import command
from tests.language import make_gpt2_reward, make_llama

CODE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig):
    model_type = "own"
class Model(LlamaForCausalLM): ...
class Tokenizer(PreTrainedTokenizerFast): ...
"""


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What foreign code would write. Stdin says yes to every question."""
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    yield tmp_path / "marker"
    assert not (tmp_path / "marker").exists()


def change(file: Path, **values: Any) -> None:
    config = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def infect(folder: Path, marker: Path, own: bool = True) -> Path:
    """Put code beside a model and name it. own: a model that transformers has no class for."""
    (folder / "code.py").write_text(CODE.format(marker=str(marker)))
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    mapped = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model",
              "AutoModelForSequenceClassification": "own.Model"}  # fmt: skip
    change(folder / "config.json", auto_map=mapped, **({"model_type": "own"} if own else {}))
    return folder


def told(action: Any) -> str:
    with pytest.raises(ParetuneError) as raised:
        action()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_language_model_of_its_own_code_is_refused_when_it_is_planned(tmp_path: Path, marker: Path) -> None:
    folder = infect(make_llama(tmp_path / "m"), marker)
    for action in (lambda: check_model(str(folder)), lambda: open_policy(ModelConfig(path=str(folder)))):
        line = told(action)
        assert line.startswith(f"model.path: {folder} needs code of its own (config.json: own.Config)")
        assert "paretune runs no code of models" in line


def test_a_model_that_transformers_knows_is_loaded_natively(tmp_path: Path, marker: Path) -> None:
    folder = infect(make_llama(tmp_path / "m"), marker, own=False)
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "own.Tokenizer"]})
    policy = open_policy(ModelConfig(path=str(folder)))
    assert type(policy.transformer).__module__ == "transformers.models.llama.modeling_llama"
    assert type(policy.tokenizer).__module__.startswith("transformers.")


def test_a_tokenizer_of_its_own_code_is_refused(tmp_path: Path, marker: Path) -> None:
    folder = make_llama(tmp_path / "m")
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    change(folder / "tokenizer_config.json", tokenizer_class="OwnTokenizer",
           auto_map={"AutoTokenizer": ["own.Tokenizer", None]})  # fmt: skip
    line = told(lambda: open_policy(ModelConfig(path=str(folder))))
    assert "needs code of its own (tokenizer_config.json: own.Tokenizer)" in line


def test_a_reward_model_of_its_own_code_is_refused(tmp_path: Path, marker: Path) -> None:
    folder = infect(make_gpt2_reward(tmp_path / "m"), marker)
    line = told(lambda: load_reward("text_model", model=str(folder)))
    assert line.startswith(f"reward model {folder} needs code of its own (config.json: own.Config)")
    known = infect(make_gpt2_reward(tmp_path / "n"), marker, own=False)
    assert load_reward("text_model", model=str(known)).name == "text_model"


@pytest.mark.parametrize("weights", ["adapter_model.safetensors", "adapter_model.bin", None])
@pytest.mark.parametrize("kind", ["policy", "reward", "subfolder"])
def test_an_adapter_beside_a_model_is_not_put_on_it_in_silence(
    tmp_path: Path, kind: str, weights: str | None
) -> None:
    """transformers would load it, from a pickle too; a line before says to fold it in."""
    make = make_gpt2_reward if kind == "reward" else make_llama
    folder = make(tmp_path / "m" / "text_encoder")
    config = {"peft_type": "LORA", "base_model_name_or_path": "nobody/nothing", "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    if weights:
        (folder / weights).write_bytes(b"")
    actions: dict[str, Any] = {
        "policy": lambda: open_policy(ModelConfig(path=str(folder))),
        "reward": lambda: load_reward("text_model", model=str(folder)),
        "subfolder": lambda: foreign.load(LlamaForCausalLM, folder.parent, "m", subfolder="text_encoder"),
    }
    line = told(actions[kind])
    if kind == "reward" and weights == "adapter_model.bin":
        assert line.startswith(f"{folder / weights}: weights are read from safetensors alone")
    else:
        assert "holds an adapter beside the model (adapter_config.json)" in line


@pytest.mark.parametrize("name", ["pickscore", "geneval"])
def test_rewards_of_pictures_too(tmp_path: Path, marker: Path, name: str) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    (folder / "config.json").write_text(json.dumps({
        "model_type": "own", "auto_map": {"AutoConfig": "own.Config",
                                          "AutoModelForUniversalSegmentation": "own.Model"},
    }))  # fmt: skip
    options = {"pickscore": {"model": str(folder), "processor": str(folder)},
               "geneval": {"detector": str(folder), "clip": str(folder)}}  # fmt: skip
    told(lambda: load_reward(name, **options[name]))


@pytest.mark.parametrize("entry", [["own", "Model"], ["subprocess", "Popen"], ["diffusers_modules.x", "Y"]])
def test_a_part_of_another_library_is_refused(
    tiny_sd3: Path, tmp_path: Path, marker: Path, entry: list[str]
) -> None:
    folder = Path(shutil.copytree(tiny_sd3, tmp_path / "m"))
    (folder / "vae" / "own.py").write_text(CODE.format(marker=str(marker)))
    change(folder / "model_index.json", vae=entry)
    line = told(lambda: open_policy(ModelConfig(path=str(folder))))
    assert line.startswith(f"model.path: the vae of {folder} needs code of its own")


def test_a_file_that_stands_in_for_a_library_is_refused(tiny_sd3: Path, tmp_path: Path, marker: Path) -> None:
    folder = Path(shutil.copytree(tiny_sd3, tmp_path / "m"))
    (folder / "transformer" / "diffusers.py").write_text(CODE.format(marker=str(marker)))
    assert "the transformer of" in told(lambda: open_policy(ModelConfig(path=str(folder))))


def test_a_pipeline_of_its_own_code_is_refused(tiny_sd3: Path, tmp_path: Path, marker: Path) -> None:
    folder = Path(shutil.copytree(tiny_sd3, tmp_path / "m"))
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    change(folder / "model_index.json", _class_name=["own", "StableDiffusion3Pipeline"])
    line = told(lambda: open_policy(ModelConfig(path=str(folder))))
    assert line.startswith(f"model.path: the pipeline {folder} needs code of its own")
    change(folder / "model_index.json", _class_name={"a": 1})
    assert "its _class_name is not a name" in told(lambda: open_policy(ModelConfig(path=str(folder))))


def test_a_dataset_with_a_script_runs_nothing(tmp_path: Path, marker: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "d.py").write_text(CODE.format(marker=str(marker)))
    (folder / "train.jsonl").write_text('{"prompt": "hello"}\n')
    assert "scripts are no longer supported" in told(lambda: load_hub(f"hf:{folder}@train"))


def test_nothing_is_loaded_past_the_one_door() -> None:
    """`from_pretrained` of a class that can run a model's code is called in one file alone."""
    door = Path(foreign.__file__)
    sources = [p for p in door.parents[1].rglob("*.py") if p != door]
    assert len(sources) > 100
    past = [
        p.name for p in sources for node in ast.walk(ast.parse(p.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"from_pretrained", "from_config"} and not _never(node)
        and "Scheduler" not in ast.unparse(node.func)
    ]  # fmt: skip
    assert past == []
    assert '"trust_remote_code": False' in door.read_text()


def _never(call: ast.Call) -> bool:
    """Whether a call says that no code of the model's own is run."""
    said = [k.value for k in call.keywords if k.arg == "trust_remote_code"]
    return bool(said) and isinstance(said[0], ast.Constant) and said[0].value is False


def test_the_base_of_a_fold_runs_no_code(tmp_path: Path, marker: Path) -> None:
    """transformers knows this configuration, but no language model of it: the code has one."""
    folder = infect(make_llama(tmp_path / "m"), marker, own=False)
    change(folder / "config.json", model_type="clip_text_model", architectures=None)
    assert names_of(folder).tied == []


def test_the_command_asks_nobody(tmp_path: Path, marker: Path) -> None:
    folder = infect(make_llama(tmp_path / "m"), marker)
    words = command("sample", folder, "--prompt", "how", "--out", tmp_path / "out")
    done = subprocess.run(words, input="y\n" * 20, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"error: model.path: {folder} needs code of its own")
    assert not (tmp_path / "out").exists()
