"""From a recipe's words to TRL's, and what is refused in one line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file

from paretune.adapters.fold import fold_adapter
from paretune.adapters.store import save_delta
from paretune.cli import app
from paretune.config import LoraConfig, ModelConfig, RunConfig
from paretune.data.hub import load_hub
from paretune.data.records import as_prompt
from paretune.models.causal_lm.family import TextOptions
from paretune.models.causal_lm.policy import CausalLMPolicy
from paretune.models.detect import check_model
from paretune.models.family import families
from paretune.models.lora import fold
from paretune.models.options import read_options
from paretune.models.peft_adapters import adapter_deltas, adapter_parameters, lora_config
from paretune.models.sizes import parameters_of
from paretune.ops.lowrank import LowRank
from paretune.planning.estimate import estimate
from paretune.planning.methods import build_plan
from paretune.recipes import find_recipe, load_config
from paretune.samples.media import medium_of
from paretune.stages.map import mixture_of
from paretune.training.language import supervised
from paretune.training.language.settings import batches_of, trl_arguments
from paretune.training.language.trainer import LanguageTrainer
from paretune.training.objectives.preferences import DPO, KTO
from paretune.training.objectives.table import objective_names
from paretune.training.objectives.trl import Batches
from paretune.training.trainers import check_objective
from paretune.types import ParetuneError, Prompt
from tests.language import language_recipe, make_gpt2, make_gpt2_reward, make_llama


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> RunConfig:
    return load_config(language_recipe(tmp_path_factory.mktemp("recipe"), tiny_llama))


def _with(config: RunConfig, **changes: dict[str, object]) -> RunConfig:
    raw = config.model_dump()
    for section, values in changes.items():
        raw[section] |= values
    return RunConfig.model_validate(raw)


def test_batches(config: RunConfig) -> None:
    assert batches_of(_with(config, train={"micro_batch": 3}), 24) == Batches(3, 4, 2)
    assert batches_of(_with(config, train={"micro_batch": 100}), 24) == Batches(12, 1, 2)
    assert batches_of(_with(config, train={"micro_batch": 5}), 24) == Batches(4, 3, 2)
    with pytest.raises(ParetuneError, match="does not divide"):
        batches_of(config, 9)


def test_grpo_gets_the_recipe_and_its_options(config: RunConfig, tmp_path: Path) -> None:
    changed = _with(
        config, objective={"options": {"loss_type": "dr_grpo", "use_vllm": "auto", "clip_range": 0.2},
                           "advantage_std": "global"},
    )
    made = trl_arguments(changed, "grpo", 0.04, Batches(2, 3, 2), "cpu", 2**40, tmp_path)
    assert (made.beta, made.epsilon, made.learning_rate) == (0.04, 0.2, 0.02)
    assert (made.per_device_train_batch_size, made.gradient_accumulation_steps) == (2, 3)
    assert (made.steps_per_generation, made.num_generations, made.generation_batch_size) == (6, 4, 12)
    assert (made.loss_type, made.scale_rewards, made.use_vllm) == ("dr_grpo", "batch", False)


def test_options_that_trl_has_not_or_that_the_recipe_says(config: RunConfig, tmp_path: Path) -> None:
    def told(**options: object) -> str:
        with pytest.raises(ParetuneError) as caught:
            trl_arguments(_with(config, objective={"options": options}), "grpo", 0.0, Batches(4, 1, 2),
                          "cpu", 0, tmp_path, {"temperature": 1.0})  # fmt: skip
        return str(caught.value)

    assert "did you mean top_k" in told(topk=3)
    assert "learning_rate: another key of the recipe" in told(learning_rate=1.0)
    assert "temperature: another key of the recipe" in told(temperature=2.0)


def test_every_objective_has_a_trainer_and_a_medium_its_own(config: RunConfig) -> None:
    pictures, clips, texts = (set(objective_names(kind)) for kind in ("pictures", "clips", "texts"))
    assert {"nft", "awm", "sft", "flow_grpo"} <= pictures & clips
    assert (pictures - clips, clips - pictures) == ({"patch_dpo"}, {"dense_dpo"})
    assert not texts & (pictures | clips)
    assert texts | pictures | clips == set(objective_names())
    check_objective(config)
    with pytest.raises(ParetuneError, match="nft does not train"):
        check_objective(_with(config, objective={"name": "nft", "options": {}}))
    with pytest.raises(ParetuneError, match="selma"):
        check_objective(config.model_copy(update={"methods": ("selma",)}))


@pytest.mark.parametrize(
    "key",
    ["train.keep=2", "objective.shared_noise=true", "objective.advantage_clip=1", "objective.anchor=base"],
)
def test_keys_that_trl_has_nothing_for_are_refused(tiny_llama: Path, tmp_path: Path, key: str) -> None:
    recipe = language_recipe(tmp_path, tiny_llama)
    check_objective(load_config(recipe))
    with pytest.raises(ParetuneError, match=rf"^{key.partition('=')[0]} is for flow models"):
        check_objective(load_config(recipe, [key]))


def test_one_of_several_gpus_is_taken(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.state import AcceleratorState, PartialState
    from trl import GRPOConfig

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", lambda device: None)
    assert GRPOConfig(output_dir=str(tmp_path), bf16=False).n_gpu == 2  # which TRL's trainers refuse
    made = trl_arguments(config, "grpo", 0.0, Batches(2, 2, 2), "cuda:1", 0, tmp_path)
    assert (made.n_gpu, str(made.device), str(PartialState().device)) == (1, "cuda:1", "cuda:1")
    assert "ACCELERATE_TORCH_DEVICE" not in os.environ
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["nothing"], "no recipe nothing"),
        (["assistant", "--set", "model.pth=x"], "did you mean path"),
        (["pictures"], "no recipe pictures"),
        (["quickstart"], "pictures is no language model"),
        (["assistant", "--epochs", "0"], "--epochs must be above 0"),
        (["assistant", "--set", "lora.targets=[wrong]"], "lora.targets: this model has no module wrong"),
        (["assistant", "--out", "."], ". exists"),
    ],
)
def test_mistakes_before_supervised_fine_tuning_are_one_line(
    flags: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["paretune", "sft", "--out", str(tmp_path / "new"), *flags])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    err = capsys.readouterr().err
    assert stopped.value.code == 2
    assert told in err
    assert err.count("\n") == 1


def test_the_entry_before_the_command_says_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        supervised.main()
    assert stopped.value.code == 2
    told = "error: this is now `paretune sft RECIPE --out FOLDER`, with the same options\n"
    assert capsys.readouterr().err == told


def test_pairs(tiny_llama: Path) -> None:
    prompts = [Prompt("fix", {"chosen": "yes", "rejected": "no"}), Prompt("clean")]
    texts = ["fix please", "clean please"]
    row = {"prompt": "fix please", "chosen": "yes", "rejected": "no"}
    assert DPO.rows("dpo", prompts, texts, [0]) == [row]
    assert [row["label"] for row in KTO.rows("kto", prompts, texts, [0])] == [True, False]
    with pytest.raises(ParetuneError, match="'clean' has no"):
        DPO.rows("dpo", prompts, texts, [0, 1])


def test_a_folder_tells_its_family(tiny_llama: Path, tmp_path: Path) -> None:
    assert check_model(str(tiny_llama)) is families()["causal_lm"]
    assert check_model("assistant") is families()["causal_lm"]
    reward = make_gpt2_reward(tmp_path / "reward")
    with pytest.raises(ParetuneError, match="GPT2ForSequenceClassification"):
        check_model(str(reward))
    empty = make_llama(tmp_path / "pickle")
    (empty / "model.safetensors").rename(empty / "pytorch_model.bin")
    with pytest.raises(ParetuneError, match="only a pickle"):
        check_model(str(empty))


BAD_OPTIONS = {
    "unknown key model.options.max_token; did you mean max_tokens": {"max_token": 3},
    "max_tokens cannot be '9'": {"max_tokens": "9"},
    "temperature cannot be -1": {"temperature": -1},
    "a text that holds {prompt}": {"template": "Human:"},
}


@pytest.mark.parametrize("told", BAD_OPTIONS)
def test_wrong_options_are_one_line(told: str) -> None:
    with pytest.raises(ParetuneError) as caught:
        read_options(TextOptions, ModelConfig.model_validate({"options": BAD_OPTIONS[told]}))
    assert told in str(caught.value)


def _trainer(config: RunConfig, folder: Path) -> LanguageTrainer:
    task = build_plan(config).methods[0].rounds[0].tasks[0]
    return LanguageTrainer(config, task, folder, mixture_of(config, task), None, "cpu")


def _policy(path: Path, **options: object) -> CausalLMPolicy:
    whole = {"max_tokens": 6, **options}
    return CausalLMPolicy(ModelConfig.model_validate({"path": str(path), "options": whole}))


def test_prompts_are_written_by_template(tiny_llama: Path, tmp_path: Path) -> None:
    assert _policy(tiny_llama).render(["fix"]) == ["fix"]
    assert _policy(tiny_llama, template="tell me {prompt}").render(["fix"]) == ["tell me fix"]
    chat = make_llama(tmp_path / "chat", chat=True)
    assert _policy(chat).render(["fix"]) == ["fix please"]
    assert _policy(chat, template="plain").render(["fix"]) == ["fix"]
    with pytest.raises(ParetuneError, match="no chat template"):
        _policy(tiny_llama, template="chat").render(["fix"])


def test_a_prompt_that_does_not_fit_is_named(tiny_llama: Path) -> None:
    with pytest.raises(ParetuneError, match=r"'fix fix.* has 30 tokens.*holds 26: shorten it"):
        _policy(tiny_llama, max_tokens=6).render(["fix " * 30])


def test_a_held_out_prompt_that_does_not_fit_is_named_before_training(
    tiny_llama: Path, tmp_path: Path
) -> None:
    long = tmp_path / "long.txt"
    long.write_text("fix\n" + "fix " * 30 + "\n")
    recipe = language_recipe(tmp_path, tiny_llama)
    held_out = f"rewards.no.eval_prompts={long}"
    with pytest.raises(ParetuneError, match=r"'fix fix.* has 30 tokens.*shorten it"):
        _trainer(load_config(recipe, [held_out]), tmp_path)
    _trainer(load_config(recipe, [held_out, "evaluate.prompts=1"]), tmp_path)  # it is not asked


def test_targets_that_a_model_has_not_are_one_line(tmp_path: Path) -> None:
    config = load_config(language_recipe(tmp_path, make_gpt2(tmp_path / "gpt2")))
    with pytest.raises(ParetuneError, match=r"^lora\.targets: .*no module q_proj.*c_attn, c_proj, c_fc"):
        _trainer(config, tmp_path)


# peft sets it right by itself, and says so.
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_gpt2_is_a_causal_lm_and_folds_as_peft_does(tmp_path: Path) -> None:
    folder = make_gpt2(tmp_path / "gpt2")
    assert check_model(str(folder)) is families()["causal_lm"]
    policy = _policy(folder)
    assert len(policy.answer(["fix the table"], 0, 1)) == 1
    lora = LoraConfig(rank=2, targets=("c_attn", "c_proj"))
    model = get_peft_model(_policy(folder).transformer, lora_config(lora, ()))
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.normal_(std=0.3)
    deltas = adapter_deltas(model, adapter_parameters(model))
    before = policy.transformer.get_submodule("transformer.h.0.attn.c_proj").weight.clone()  # square
    fold(policy.transformer, deltas)
    merged = model.merge_and_unload().state_dict()
    assert not torch.equal(before, policy.transformer.get_submodule("transformer.h.0.attn.c_proj").weight)
    for name, weight in policy.transformer.state_dict().items():
        torch.testing.assert_close(weight, merged[name], atol=1e-5, rtol=1e-5)
    # The same by files: our adapters do not say that a Conv1D keeps its square weight transposed.
    save_delta(tmp_path / "adapter", deltas, str(folder), {}, None)
    fold_adapter(folder, tmp_path / "adapter", tmp_path / "folded")
    for name, weight in load_file(tmp_path / "folded" / "model.safetensors").items():
        torch.testing.assert_close(weight, merged[name], atol=1e-5, rtol=1e-5)
    name, delta = next(iter(deltas.items()))
    with pytest.raises(ParetuneError, match="is for another model"):
        fold(policy.transformer, {name: LowRank(delta.B[:-1], delta.A)})


def test_a_damaged_language_model_is_one_line(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "llama")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ParetuneError, match=r"model\.path: .*llama cannot be loaded: \S"):
        _policy(folder)
    with pytest.raises(ParetuneError, match=r"model\.safetensors is damaged"):
        parameters_of(str(folder))
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ParetuneError, match="git lfs pull"):
        parameters_of(str(folder))


def test_a_missing_pad_token_is_the_end_token(tmp_path: Path) -> None:
    policy = _policy(make_llama(tmp_path / "bare", pad=False), max_tokens=4)
    assert policy.tokenizer.pad_token == "</s>"
    assert len(policy.answer(["fix", "tell me please"], 0, 2)) == 2
    tokens = tmp_path / "bare" / "tokenizer_config.json"
    settings = json.loads(tokens.read_text())
    settings.pop("eos_token")
    tokens.write_text(json.dumps(settings))
    special = tmp_path / "bare" / "special_tokens_map.json"
    special.unlink(missing_ok=True)
    with pytest.raises(ParetuneError, match="neither a padding nor an end token"):
        _policy(tmp_path / "bare")


def test_answers_depend_on_the_seed_alone(tiny_llama: Path) -> None:
    policy = _policy(tiny_llama, max_tokens=8)
    prompts = ["fix the table", "clean"]
    first = policy.answer(prompts, 3, 2)
    assert policy.answer(prompts, 3, 2) == first
    assert policy.answer(prompts, 4, 2) != first


def test_dialogues_are_split_at_the_last_answer(tmp_path: Path) -> None:
    start = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: how?\n\nAssistant:"
    prompt = as_prompt({"chosen": start + " yes", "rejected": start + " no"}, "row")
    assert (prompt.text, dict(prompt.metadata)) == (start, {"chosen": " yes", "rejected": " no"})
    with pytest.raises(ParetuneError, match="row: neither"):
        as_prompt({"chosen": "hm", "rejected": "no"}, "row")
    with pytest.raises(ParetuneError, match="write it as"):
        load_hub("hf:Anthropic/hh-rlhf")


def test_a_dataset_of_the_hub_may_be_a_folder(tmp_path: Path) -> None:
    rows = [{"prompt": "fix"}, {"prompt": "clean"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = load_hub(f"hf:{tmp_path}@train")
    assert [p.text for p in prompts] == ["fix", "clean"]
    with pytest.raises(ParetuneError, match="cannot be loaded"):
        load_hub(f"hf:{tmp_path}@nothing")


@pytest.mark.parametrize("split", ["train", "train[:2]"])
def test_an_empty_file_of_a_dataset_is_called_empty(tmp_path: Path, split: str) -> None:
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(ParetuneError, match=r"train\.jsonl is empty"):
        load_hub(f"hf:{tmp_path}@{split}")


def test_a_split_cut_to_nothing_is_an_empty_dataset(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"prompt": "fix"}\n')
    with pytest.raises(ParetuneError, match=r"train\[:0\].*no data"):
        load_hub(f"hf:{tmp_path}@train[:0]")


def test_an_error_without_words_is_reported_by_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object, **__: object) -> None:
        raise StopIteration

    monkeypatch.setattr("datasets.load_dataset", silent)
    with pytest.raises(ParetuneError, match="cannot be loaded: StopIteration"):
        load_hub(f"hf:{tmp_path}@test")


def test_the_big_recipe_is_planned_without_a_download() -> None:
    config = load_config(find_recipe("llama2-7b"))
    assert medium_of(config.model).name == "texts"
    check_objective(config)
    plan = build_plan(config)
    costs = estimate(config, plan, "cuda")
    assert costs.parameters == pytest.approx(6.74e9)
    assert costs.memory_gb is not None
    assert 15 < costs.memory_gb < 80
    assert costs.hours["mapreduce"] > 1
    assert plan.methods[0].samples == 4 * 2 * 100 * 32 * 8
    assert "128 tokens" in costs.sampling
