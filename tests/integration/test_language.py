"""Experts of a language model by TRL, and a whole run: the big recipe on tiny models of its classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from paretune.adapters.store import load_delta, save_delta
from paretune.planning.methods import build_plan
from paretune.planning.plan import ExpertTask
from paretune.recipes import load_config
from paretune.rewards.base import FunctionReward
from paretune.stages.map import mixture_of
from paretune.training.checkpoint import Stopped
from paretune.training.language.trainer import LanguageTrainer
from paretune.training.mixture import Mixture, PromptSet
from paretune.types import Prompt
from tests.language import language_recipe, make_gpt2_reward, make_llama

from .commands import call


def _trainer(folder: Path, model: Path, parents: Any = None, **changes: Any) -> LanguageTrainer:
    config = load_config(language_recipe(folder, model, **changes))
    own = build_plan(config).methods[0].rounds[0].tasks[0]
    return LanguageTrainer(config, own, folder, mixture_of(config, own), parents, "cpu")


def _run(trainer: LanguageTrainer) -> dict[str, torch.Tensor]:
    return {n: d.dense() for n, d in trainer.run(lambda event: None, lambda: False).items()}


def _values(trainer: LanguageTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in trainer.state.parameters.items()}


def test_an_expert_learns_a_simple_reward_and_leaves_our_rows(tiny_llama: Path, tmp_path: Path) -> None:
    train = {"epochs": 6, "prompts_per_epoch": 3, "group_size": 16, "learning_rate": 0.1}
    changes = _run(_trainer(tmp_path, tiny_llama, train=train))
    assert {n.split(".")[-1] for n in changes} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["reward"] > rows[0]["reward"] + 0.1
    assert {"loss", "kl", "grad_norm", "reward_std", "seconds_sample", "seconds_train"} <= rows[0].keys()
    assert not (tmp_path / "trl").exists()


def test_going_on_from_a_checkpoint_is_bit_identical(tiny_llama: Path, tmp_path: Path) -> None:
    train = {"epochs": 4, "ema_decay": 0.9, "lr_scheduler": "linear"}
    whole = _trainer(tmp_path / "whole", tiny_llama, train=train)
    _run(whole)
    first = _trainer(tmp_path / "parts", tiny_llama, train=train)
    seen: list[object] = []
    with pytest.raises(Stopped):
        first.run(seen.append, lambda: len(seen) >= 2)
    assert first.state.epoch == 2
    second = _trainer(tmp_path / "parts", tiny_llama, train=train)
    second.resume("", None)
    _run(second)
    assert (second.state.epoch, second.state.updates) == (4, 8)
    assert all(torch.equal(_values(second)[n], p) for n, p in _values(whole).items())
    assert all(torch.equal(second.state.ema[n], t) for n, t in whole.state.ema.items())
    rows = [[json.loads(x)["reward"] for x in (tmp_path / n / "metrics.jsonl").read_text().splitlines()]
            for n in ("whole", "parts")]  # fmt: skip
    assert rows[0] == rows[1]


def test_targets_and_an_anchor(tiny_llama: Path, tmp_path: Path) -> None:
    trainer = _trainer(
        tmp_path, tiny_llama, lora={"targets": ["q_proj"]}, objective={"kl": 0.1}, train={"group_size": 8}
    )
    assert {n.split(".")[-1] for n in _run(trainer)} == {"q_proj"}
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["kl"] > 0


def test_earlier_rounds_are_folded_and_the_adapter_is_plain_peft(tiny_llama: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    first = _trainer(tmp_path / "one", tiny_llama)
    deltas = first.run(lambda event: None, lambda: False)
    second = _trainer(tmp_path / "two", tiny_llama, parents=deltas)
    name = "model.layers.0.self_attn.q_proj"
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    folded = base.get_submodule(name).weight + deltas[name].dense()
    torch.testing.assert_close(second.policy.transformer.get_submodule(name).weight, folded)
    files = save_delta(tmp_path / "saved", deltas, str(tiny_llama), {}, component=None)
    assert files == ["adapter_model.safetensors", "adapter_config.json"]
    assert load_delta([tmp_path / "saved"])[name].dense().allclose(deltas[name].dense())
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        adapted = PeftModel.from_pretrained(base, tmp_path / "saved")(ids).logits
        torch.testing.assert_close(
            adapted, _trainer(tmp_path / "three", tiny_llama, parents=deltas).policy.transformer(ids).logits
        )


def test_a_joint_expert_weighs_the_rewards_and_a_cost_counts_down(tiny_llama: Path, tmp_path: Path) -> None:
    def words(texts: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
        return [float(len(text.split())) for text in texts]

    config = load_config(language_recipe(tmp_path, tiny_llama))
    task = ExpertTask("joint", ("a", "b"), 1, 0, 1, scoring="all")
    rewards = [FunctionReward(words, name) for name in ("long", "short")]
    rewards[1].higher_is_better = False
    prompts = [Prompt("fix"), Prompt("clean")]
    mixture = Mixture([PromptSet(r, prompts, w) for r, w in zip(rewards, (1.0, 3.0), strict=True)], "all")
    trainer = LanguageTrainer(config, task, tmp_path, mixture, None, "cpu")
    seen: list[dict[str, Any]] = []
    trainer.run(seen.append, lambda: False)
    assert seen[0]["reward"] > 0
    from paretune.training.language.scoring import Scoring
    from paretune.training.language.watch import Watch

    watch = Watch(task, config.train, tmp_path, 1, trainer.state, seen.append, lambda: False)
    scoring = Scoring(mixture, watch, 2, 5.0)
    texts, index = ["a b", "a", "a b c", "a"], [0, 0, 1, 1]
    long, short = (f(completions=texts, index=index) for f in scoring.functions())
    assert (long, short) == ([2, 1, 3, 1], [-2, -1, -3, -1])
    assert scoring.arguments(config.objective)["reward_weights"] == [1.0, 3.0]
    apart = Mixture([PromptSet(r, [p]) for r, p in zip(rewards, prompts, strict=True)], "own")
    own = [f(completions=texts, index=index) for f in Scoring(apart, watch, 2, 5.0).functions()]
    assert own == [[2, 1, None, None], [None, None, -3, -1]]


PAIRED = (
    "dpo", "ipo", "hinge", "robust", "sppo_hard", "apo_zero", "apo_down", "simpo", "cpo", "orpo", "kto",
)  # fmt: skip


@pytest.mark.parametrize("objective", PAIRED)
def test_preference_pairs_raise_the_chosen_answer(tiny_llama: Path, tmp_path: Path, objective: str) -> None:
    pairs = [{"prompt": p, "chosen": "yes yes", "rejected": "no maybe"} for p in ("fix", "clean", "tell me")]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    rewards = {"yes": {"reward": "length", "prompts": str(file), "eval_prompts": str(file)}}
    options = {"beta": 0.5, **({"label_smoothing": 0.1} if objective == "robust" else {})}
    trainer = _trainer(
        tmp_path, tiny_llama, rewards=rewards, objective={"name": objective, "options": options},
        train={"epochs": 3, "prompts_per_epoch": 2, "learning_rate": 0.05},
    )  # fmt: skip
    _run(trainer)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == [1, 2, 3]
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """recipes/llama2-7b.yaml run whole on tiny models of the same classes."""
    folder = tmp_path_factory.mktemp("big")
    model = make_llama(folder / "llama", positions=128)
    lines = [
        {"chosen": f"\n\nHuman: {p}\n\nAssistant: yes {p}", "rejected": f"\n\nHuman: {p}\n\nAssistant: no"}
        for p in ("how do i clean the window", "fix the table", "tell me please")
    ]
    data = folder / "data"
    data.mkdir()
    for split in ("train", "test"):
        (data / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {
        "model.path": model, "model.dtype": "float32", "model.options.max_tokens": 6, "rounds": 2,
        "model.gradient_checkpointing": "false",
        "train.epochs": 1, "train.prompts_per_epoch": 2, "train.group_size": 2, "lora.rank": 2,
        "train.learning_rate": 0.01, "evaluate.prompts": 3, "executor.device": "cpu", "executor.threads": 1,
    }  # fmt: skip
    for seed, name in enumerate(("helpful", "harmless"), start=1):
        settings[f"rewards.{name}.options.model"] = make_gpt2_reward(folder / name, seed=seed)
        settings[f"rewards.{name}.options.max_length"] = 64
        settings[f"rewards.{name}.prompts"] = f"hf:{data}@train"
        settings[f"rewards.{name}.eval_prompts"] = f"hf:{data}@test"
    flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    (folder / "flags.json").write_text(json.dumps(flags))
    methods = "methods=[mapreduce, rewarded_soup, morl_dr]"
    done = call("run", "llama2-7b", "--out", folder / "run", "--quiet", *flags, "--set", methods)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_big_recipe_runs_whole(big: Path) -> None:
    summary = json.loads((big / "run" / "summary.json").read_text())
    assert list(summary["methods"]) == [
        "base", "expert:helpful", "expert:harmless", "rewarded_soup", "morl_dr", "mapreduce@1", "mapreduce@2",
        "mapreduce",
    ]  # fmt: skip
    assert len({tuple(means.values()) for means in summary["methods"].values()}) > 5
    assert summary["budget"]["mapreduce"] == summary["budget"]["morl_dr"] == 16
    final = big / "run" / "final"
    assert not (final / "pytorch_lora_weights.safetensors").exists()
    assert load_file(final / "adapter_model.safetensors").keys() >= {
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    }
    page = (big / "run" / "report.html").read_text()
    assert page.count("<blockquote>") >= 6
    assert "<img" not in page
    assert "base<small>helpful " in page
    assert "base<small>harmless " in page


def test_the_result_exports_as_a_model_and_folds(big: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    assert call("export", big / "run", "--out", tmp_path / "model", "--pipeline").returncode == 0
    done = call("fold", big / "llama", big / "run" / "final", "--out", tmp_path / "folded")
    assert done.returncode == 0, done.stderr
    exported, folded, base = (
        AutoModelForCausalLM.from_pretrained(path)
        for path in (tmp_path / "model", tmp_path / "folded", big / "llama")
    )
    for name, weight in exported.state_dict().items():
        torch.testing.assert_close(weight, folded.state_dict()[name])
    assert any(not torch.equal(w, base.state_dict()[n]) for n, w in exported.state_dict().items())


def test_supervised_fine_tuning_before_the_run(big: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from paretune.recipes import find_recipe
    from paretune.training.language.supervised import supervise

    flags = json.loads((big / "flags.json").read_text())[1::2]
    config = load_config(find_recipe("llama2-7b"), flags)
    assert supervise(config, tmp_path / "sft", epochs=2, rate=0.01) == 6
    base, taught = (AutoModelForCausalLM.from_pretrained(p) for p in (big / "llama", tmp_path / "sft"))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(base.state_dict()[name], taught.state_dict()[name])
    assert [p.name for p in tmp_path.iterdir()] == ["sft"]


def test_a_reward_that_returns_nan_is_one_line_and_training_goes_on_from_before_it(
    tiny_llama: Path, tmp_path: Path
) -> None:
    recipe = language_recipe(tmp_path, tiny_llama, executor={"workers": 1}, rounds=1)
    trouble, seen = tmp_path / "trouble", tmp_path / "seen"
    with (tmp_path / "rewards.py").open("a") as file:  # well for one epoch
        file.write(
            "\nfrom pathlib import Path\n"
            f"trouble, seen, right = Path({str(trouble)!r}), Path({str(seen)!r}), yes\n"
            "def yes(texts, prompts):\n"
            "    if trouble.exists() and seen.exists():\n        return [float('nan')] * len(texts)\n"
            "    seen.touch()\n    return right(texts, prompts)\n"
        )
    trouble.touch()
    failed = call("run", recipe, "--out", tmp_path / "out", "--quiet")
    assert failed.returncode == 2
    (line,) = failed.stderr.splitlines()
    assert "reward 'yes'" in line
    assert "nan" in line
    expert = tmp_path / "out" / "round-1" / "experts" / "yes"
    assert [p.name for p in (expert / "checkpoints").iterdir()] == ["epoch-0001"]
    trouble.unlink()
    resumed = call("run", recipe, "--out", tmp_path / "out", "--quiet", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    rows = (expert / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["update"] for row in rows] == [1, 2]
