"""Experts trained by losses on lists of answers: every loss learns, and equals TRL's where TRL has it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.tpo import TPOConfig, TPOTrainer

from paretune.config import ModelConfig
from paretune.data.answer_lists import read_answers
from paretune.models.causal_lm.answer_ids import answer_ids, ending_ids, tokenizer_digest
from paretune.models.causal_lm.policy import CausalLMPolicy
from paretune.models.peft_adapters import lora_config
from paretune.planning.estimate import estimate
from paretune.planning.methods import build_plan
from paretune.recipes import load_config
from paretune.stages.map import mixture_of
from paretune.training.checkpoint import Stopped
from paretune.training.language.lists import ListTrainer
from paretune.training.language.settings import trl_arguments
from paretune.training.language.tokenised import ListCollator, tokenised
from paretune.training.language.trainer import LanguageTrainer
from paretune.training.language.two_policies import TwoPolicyTrainer
from paretune.training.objectives.list_table import list_losses
from paretune.training.objectives.preferences import DPO, NEVER_CUT
from paretune.training.objectives.settings import read_options
from paretune.training.objectives.trl import Batches
from paretune.training.trainers import check_objective
from paretune.types import ParetuneError, Prompt
from tests.language import language_recipe, make_llama, make_tokenizer

TEXTS = ("yes yes", "maybe", "no no no")


def _digest(model: Path) -> str:
    return tokenizer_digest(CausalLMPolicy(ModelConfig.model_validate({"path": str(model)})))


def _record(prompt: str, digest: str) -> dict[str, Any]:
    """A record that holds what any loss needs: scores, margin, drift, token weights, steps."""
    answers: list[dict[str, Any]] = []
    for place, text in enumerate(TEXTS):
        first, space, rest = text.partition(" ")
        steps = [first, space + rest] if rest else [first]
        answers.append({
            "text": text, "scores": {"quality": 1.0 - place / 2}, "steps": steps,
            "step_weights": [2.0, 1.0][: len(steps)], "token_weights": [0.1] * (len(text.split()) + 1),
        })  # fmt: skip
    return {"prompt": prompt, "answers": answers, "margin": 1.0, "drift": 0.2, "tokenizer": digest}


def _records(model: Path) -> list[dict[str, Any]]:
    return [_record(prompt, _digest(model)) for prompt in ("fix", "clean", "tell me")]


def _trainer(
    folder: Path, model: Path, name: str, records: list[dict[str, Any]] | None = None,
    options: dict[str, Any] | None = None, **changes: Any,
) -> LanguageTrainer:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "records.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records or _records(model)))
    train = {"epochs": 3, "prompts_per_epoch": 2, "learning_rate": 0.05, **changes.pop("train", {})}
    recipe = language_recipe(
        folder, model, objective={"name": name, "options": options or {}}, train=train, **changes
    )
    files = [f"rewards.yes.{key}={file}" for key in ("prompts", "eval_prompts")]
    config = load_config(recipe, files)
    check_objective(config)
    own = build_plan(config).methods[0].rounds[0].tasks[0]
    return LanguageTrainer(config, own, folder, mixture_of(config, own), None, "cpu")


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _run(trainer: LanguageTrainer) -> dict[str, torch.Tensor]:
    return {n: d.dense() for n, d in trainer.run(lambda event: None, lambda: False).items()}


def _values(trainer: LanguageTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in trainer.state.parameters.items()}


GENTLE = {"srpo": 0.01}  # its squares overshoot at the rate of the others
OWN = {"srpo": {}, "triple_tpo": {"beta": 0.5, "alpha": 0.1}}  # the best answer's likelihood would outweigh


@pytest.mark.parametrize("name", list(list_losses()))
def test_every_loss_learns(tiny_llama: Path, tmp_path: Path, name: str) -> None:
    train = {"learning_rate": GENTLE.get(name, 0.05)}
    options = OWN.get(name, {"beta": 0.5})
    _run(_trainer(tmp_path, tiny_llama, name, options=options, train=train))
    rows = _rows(tmp_path)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["margin"] > rows[0]["margin"]


@pytest.mark.parametrize(
    ("name", "options"),
    [("list_dpo", {"refresh_every": 3}), ("ofs_dpo", {"every": 3, "slow_rate": 0.5}), ("tree_tpo", {})],
)
def test_going_on_from_a_checkpoint_is_bit_identical(
    tiny_llama: Path, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    train = {"epochs": 4, "ema_decay": 0.5, "lr_scheduler": "linear", "learning_rate": 0.02}
    whole = _trainer(tmp_path / "whole", tiny_llama, name, options=options, train=train)
    done = _run(whole)
    first = _trainer(tmp_path / "parts", tiny_llama, name, options=options, train=train)
    seen: list[object] = []
    with pytest.raises(Stopped):
        first.run(seen.append, lambda: len(seen) >= 2)
    second = _trainer(tmp_path / "parts", tiny_llama, name, options=options, train=train)
    second.resume("", None)
    again = _run(second)
    assert all(torch.equal(_values(second)[n], p) for n, p in _values(whole).items())
    assert all(torch.equal(again[n], delta) for n, delta in done.items())
    assert [r["loss"] for r in _rows(tmp_path / "whole")] == [r["loss"] for r in _rows(tmp_path / "parts")]


def test_a_refreshed_reference_changes_what_is_learned(tiny_llama: Path, tmp_path: Path) -> None:
    options = ({}, {"refresh_every": 1}, {"refresh_every": 1000})
    fixed, fresh, late = (
        _run(_trainer(tmp_path / str(i), tiny_llama, "list_dpo", options=given))
        for i, given in enumerate(options)
    )
    assert all(torch.equal(fixed[n], late[n]) for n in fixed)  # an untouched copy is the start
    assert any(not torch.equal(fixed[n], fresh[n]) for n in fixed)
    rows = [_rows(tmp_path / str(i))[-1]["margin"] for i in (0, 1)]
    assert rows[1] < rows[0]  # it is measured from a reference that follows


def test_two_policies_are_trained_and_one_is_the_expert(tiny_llama: Path, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, tiny_llama, "ofs_dpo", options={"every": 2, "slow_rate": 0.5})
    deltas = _run(trainer)
    values = _values(trainer)
    slow = [name for name in values if ".slow." in name]
    assert len(slow) * 2 == len(values) == 2 * 2 * len(deltas)
    assert all(float(values[name].abs().max()) > 0 for name in slow)
    name = next(iter(deltas))
    factors = {k: v for k, v in values.items() if f"{name}.lora" in k and ".default." in k}
    a, b = (next(v for k, v in factors.items() if f"lora_{side}" in k) for side in "AB")
    torch.testing.assert_close(deltas[name], 2 * b @ a)  # alpha / rank


@pytest.mark.parametrize(("losses", "exchanged"), [((2.0, 1.0), True), ((1.0, 2.0), False)])
def test_the_better_policy_becomes_the_fast_one(losses: tuple[float, float], exchanged: bool) -> None:
    """With its values, its average and its moments; the losses are those of the fast and of the slow one."""
    layer = torch.nn.ModuleDict({name: torch.nn.Linear(1, 1, bias=False) for name in ("default", "slow")})
    model = torch.nn.ModuleDict({"layer": layer})
    fast, slow = (layer[name].weight for name in ("default", "slow"))
    with torch.no_grad():
        fast.fill_(1.0)
        slow.fill_(2.0)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    optimiser.state[fast], optimiser.state[slow] = {"moment": 10.0}, {"moment": 20.0}
    trainer: Any = object.__new__(TwoPolicyTrainer)
    trainer.model, trainer.optimizer, trainer.options = model, optimiser, SimpleNamespace(every=4)
    own = {"default": 0.1, "slow": 0.2}
    trainer.averages = {f"layer.{name}.weight": torch.tensor([[value]]) for name, value in own.items()}
    trainer.sums = torch.tensor([*losses, 1.0], dtype=torch.float64)
    trainer.after_update(3)
    assert float(fast.detach()) == 1.0  # it is not time yet
    trainer.after_update(4)
    order = slice(None, None, -1) if exchanged else slice(None)
    assert [float(p.detach()) for p in (fast, slow)] == [1.0, 2.0][order]
    assert [optimiser.state[p]["moment"] for p in (fast, slow)] == [10.0, 20.0][order]
    assert [float(v) for v in trainer.averages.values()] == pytest.approx([0.1, 0.2][order])
    assert not trainer.sums.any()


# ---------------------------------------------------------------- the same as TRL's

PAIRS = [([3, 4], [14, 14, 15, 1], [15, 1]), ([5], [16, 1], [15, 15, 15, 1])]  # prompt, better, worse
CASES = [
    ("list_dpo", {}, {"loss_type": ["sigmoid"], "beta": 0.1}),
    ("ln_dpo", {}, {"loss_type": ["sigmoid_norm"], "beta": 5.0}),
    ("ld_dpo", {"alpha": 0.3}, {"loss_type": ["sigmoid"], "beta": 0.1, "ld_alpha": 0.3}),
]


def _noisy(trainer: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    for name, parameter in trainer.model.named_parameters():
        if ".default." in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return trainer


def _loss_of(trainer: Any) -> float:
    batch = next(iter(trainer.get_train_dataloader()))
    return float(trainer.compute_loss(trainer.model, batch).detach())


class _AsGiven:
    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


class _DPO(_AsGiven, DPOTrainer): ...


class _TPO(_AsGiven, TPOTrainer): ...


def _settings(folder: Path, kind: Any = DPOConfig, rows: int = 2, **more: Any) -> Any:
    return kind(output_dir=str(folder), per_device_train_batch_size=rows, use_cpu=True, bf16=False,
                report_to=[], gradient_checkpointing=False, remove_unused_columns=False, **more)  # fmt: skip


def _ours(model: Path, folder: Path, name: str, options: dict[str, Any], lists: list[Any]) -> float:
    policy = CausalLMPolicy(ModelConfig.model_validate({"path": str(model)}))
    config = load_config(language_recipe(folder, model, objective={"name": name, "options": options}))
    rows = [
        {"ids": [prompt + a for a in answers], "starts": [len(prompt)] * len(answers),
         "given": [[1.0] * len(a) for a in answers], "steps": [[0] * len(a) for a in answers],
         "values": [0.0] * len(answers), "margin": 0.0, "weight": 1.0}
        for prompt, *answers in lists
    ]  # fmt: skip
    kind = list_losses()[name]
    trainer = ListTrainer(
        objective=kind, options=read_options(config.objective), model=policy.transformer,
        args=_settings(folder / "trl", rows=len(rows), max_length=None, beta=kind.beta),
        train_dataset=Dataset.from_list(rows), processing_class=policy.tokenizer,
        peft_config=lora_config(config.lora, policy.targets),
    )  # fmt: skip
    return _loss_of(_noisy(trainer))


def _theirs(model: Path, folder: Path, kind: Any, settings: Any, rows: list[dict[str, Any]]) -> float:
    policy = CausalLMPolicy(ModelConfig.model_validate({"path": str(model)}))
    config = load_config(language_recipe(folder, model))
    trainer = kind(
        model=policy.transformer, args=settings, train_dataset=Dataset.from_list(rows),
        processing_class=policy.tokenizer, peft_config=lora_config(config.lora, policy.targets),
    )  # fmt: skip
    return _loss_of(_noisy(trainer))


@pytest.mark.parametrize(("name", "options", "theirs"), CASES)
def test_our_loss_is_that_of_trl(
    tiny_llama: Path, tmp_path: Path, name: str, options: dict[str, Any], theirs: dict[str, Any]
) -> None:
    rows = [dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), pair, strict=True)) for pair in PAIRS]
    wanted = _theirs(
        tiny_llama, tmp_path / "trl", _DPO, _settings(tmp_path / "out", max_length=None, **theirs), rows
    )
    found = _ours(tiny_llama, tmp_path / "ours", name, options, PAIRS)
    assert found == pytest.approx(wanted, abs=1e-6)


def test_simpo_is_that_of_trl(tiny_llama: Path, tmp_path: Path) -> None:
    words = make_tokenizer().convert_ids_to_tokens(range(20))
    rows = [
        dict(zip(("prompt", "chosen", "rejected"), (" ".join(words[i] for i in ids if i > 1) for ids in pair),
                 strict=True))
        for pair in PAIRS
    ]  # fmt: skip
    rows = [{**row, "chosen": " " + row["chosen"], "rejected": " " + row["rejected"]} for row in rows]
    settings = _settings(
        tmp_path / "out", CPOConfig, max_length=100, loss_type="simpo", cpo_alpha=0.0, simpo_gamma=1.4,
        beta=2.5,
    )  # fmt: skip
    wanted = _theirs(tiny_llama, tmp_path / "trl", CPOTrainer, settings, rows)
    found = _ours(tiny_llama, tmp_path / "ours", "list_simpo", {}, PAIRS)
    assert found == pytest.approx(wanted, abs=1e-6)


def test_triple_tpo_is_that_of_trl_for_one_record(tiny_llama: Path, tmp_path: Path) -> None:
    names = ("prompt_ids", "reference_ids", "chosen_ids", "rejected_ids")
    triple = ([3, 4], [14, 14, 15, 1], [16, 1], [15, 15, 1])
    settings = _settings(tmp_path / "out", TPOConfig, rows=1, max_length=None, beta=0.01)
    wanted = _theirs(
        tiny_llama, tmp_path / "trl", _TPO, settings, [dict(zip(names, triple, strict=True))]
    )
    found = _ours(tiny_llama, tmp_path / "ours", "triple_tpo", {}, [triple])
    assert found == pytest.approx(wanted, abs=1e-6)


# ---------------------------------------------------------------- tokens and records


def _rows_of(model: Path, record: dict[str, Any], name: str = "list_dpo") -> dict[str, Any]:
    policy = CausalLMPolicy(ModelConfig.model_validate({"path": str(model), "options": {"max_tokens": 4}}))
    kind = list_losses()[name]
    rows = kind.records(name, [Prompt(record["prompt"], record)], [0], kind.options_kind())
    return tokenised(policy, rows)[0]


def test_a_prefix_is_read_and_not_trained_and_a_step_does_not_end(tiny_llama: Path) -> None:
    step = {"prompt": "fix", "prefix": " the table",
            "answers": [{"text": " soap", "ends": False}, {"text": " water"}]}  # fmt: skip
    words = make_tokenizer().get_vocab()
    row = _rows_of(tiny_llama, step)
    assert row["ids"] == [
        [words[w] for w in ("fix", "the", "table", "soap")],
        [words[w] for w in ("fix", "the", "table", "water", "</s>")],
    ]
    assert row["starts"] == [3, 3]
    batch = ListCollator(0)([row])
    assert batch["answer_mask"].tolist() == [[False] * 3 + [True, False], [False] * 3 + [True, True]]


def test_a_shorter_list_is_filled_up_and_the_copy_is_not_trained(tiny_llama: Path) -> None:
    two = {"prompt": "fix", "answers": [{"text": t, "scores": {"q": s}} for t, s in (("yes", 1), ("no", 0))]}
    three = {**two, "answers": [*two["answers"], {"text": "maybe", "scores": {"q": -1}}]}
    batch = ListCollator(0)([_rows_of(tiny_llama, r, "adpo_text") for r in (two, three)])
    assert batch["present"].tolist() == [[True, True, False], [True, True, True]]
    assert not bool(batch["answer_mask"][2].any())
    assert torch.equal(batch["input_ids"][2], batch["input_ids"][0])
    assert batch["values"].tolist() == [[1, 0, 0], [1, 0, -1]]


def test_an_answer_ends_as_the_chat_template_ends_it(tmp_path: Path) -> None:
    chat = make_llama(tmp_path / "chat", chat=True)  # its template writes "please" after every turn
    policy = CausalLMPolicy(ModelConfig.model_validate({"path": str(chat)}))
    words = make_tokenizer().get_vocab()
    assert ending_ids(policy) == [words["please"]]
    assert answer_ids(policy, ["yes", " no"], [1]) == [words["yes"], words["no"], 1]


def _fault(record: dict[str, Any], name: str = "list_dpo") -> str:
    with pytest.raises(ParetuneError) as caught:
        list_losses()[name].check_prompts(name, [Prompt("fix", record)])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_records_without_what_a_loss_needs_are_one_line_that_names_the_prompt(tiny_llama: Path) -> None:
    pair = {"chosen": "yes", "rejected": "no"}
    assert "the prompt 'fix' has neither" in _fault({"chosen": "yes"})
    assert "needs \"token_weights\"" in _fault(pair, "cdpo")
    assert "needs a \"margin\"" in _fault(pair, "madpo_text")
    assert "needs a \"weight\"" in _fault(pair, "sem_dpo_text")
    assert "needs a score of every answer" in _fault(pair, "adpo_text")
    assert "trains on 3 answers or more: the prompt 'fix' has 2" in _fault(pair, "triple_tpo")
    ranked = {"answers": [{"text": "yes", "rank": 1}, {"text": "no", "rank": 3}]}
    assert "the ranks of its 2 answers are 1, 3, not 1 to 2" in _fault(ranked)
    assert "answer 2 has no \"text\"" in _fault({"answers": [{"text": "yes"}, {"text": " "}]})
    odd = {"answers": [{"text": "yes", "scores": {"a": float("nan")}}, {"text": "no"}]}
    assert "\"a\" is a number" in _fault(odd)
    backwards = {"answers": [{"text": "no", "rank": 2}, {"text": "yes", "rank": 1}]}
    assert [a.text for a in read_answers(Prompt("fix", backwards)).answers] == ["yes", "no"]
    triple = {**pair, "reference": "yes yes"}
    assert [a.text for a in read_answers(Prompt("fix", triple)).answers] == ["yes yes", "yes", "no"]


def test_token_weights_of_another_tokenizer_or_length_are_one_line(tiny_llama: Path) -> None:
    record = _record("fix", "0123456789abcdef")
    with pytest.raises(ParetuneError, match=r"'fix' were made with the tokenizer 0123.*make them again"):
        _rows_of(tiny_llama, record, "cdpo")
    record = _record("fix", _digest(tiny_llama))
    record["answers"][0]["token_weights"] = [1.0]
    with pytest.raises(ParetuneError, match=r"'fix' has 3 tokens with its end, and 1 token_weights"):
        _rows_of(tiny_llama, record, "cdpo")


def test_a_long_answer_is_refused_and_never_cut(tiny_llama: Path) -> None:
    with pytest.raises(ParetuneError, match=r"'fix' and its longest answer have 42 tokens.*holds 32"):
        _rows_of(tiny_llama, {"prompt": "fix", "chosen": "yes " * 40, "rejected": "no"})


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("ln_dpo", {"f_divergence_type": "forward_kl"}, "f_divergence_type is a setting of TRL's losses"),
        ("ln_dpo", {"max_length": 10}, "max_length is a setting of TRL's losses"),
        ("ln_dpo", {"use_weighting": True}, "use_weighting is a setting of TRL's losses"),
        ("ln_dpo", {"precompute_ref_log_probs": True}, "precompute_ref_log_probs is a setting of TRL's"),
        ("list_simpo", {"refresh_every": 2}, "list_simpo has no reference"),
        ("srpo", {"revision": "{prompt}"}, "holds {prompt} and {answer}"),
        ("symbolic", {"good": "w &"}, "is no formula of w, l"),
        ("symbolic", {"good": "w and not w"}, "is true in no world"),
        ("ld_dpo", {"alpha": 2}, "objective.options.alpha"),
        ("ln_dpo", {"beta": -1}, "objective.options.beta"),
    ],
)
def test_wrong_options_are_one_line(
    tiny_llama: Path, tmp_path: Path, name: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ParetuneError) as caught:
        check_objective(load_config(language_recipe(
            tmp_path, tiny_llama, objective={"name": name, "options": options}
        )))  # fmt: skip
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_squashed_reward_has_no_log_odds(tiny_llama: Path, tmp_path: Path) -> None:
    recipe = language_recipe(tmp_path, tiny_llama, objective={"name": "madpo_text"})
    with pytest.raises(ParetuneError, match=r"rewards\.yes\.options\.squash: madpo_text reads margins"):
        check_objective(load_config(recipe, ["rewards.yes.options.squash=true"]))


def test_several_scores_need_a_name(tiny_llama: Path) -> None:
    record = {"prompt": "fix", "answers": [
        {"text": t, "scores": {"a": 1.0, "b": 2.0}} for t in ("yes", "no")
    ]}  # fmt: skip
    with pytest.raises(ParetuneError, match=r"several scores; objective\.options\.score names"):
        _rows_of(tiny_llama, record, "tree_tpo")


# ---------------------------------------------------------------- TRL's own losses on pairs


def test_no_loss_of_trl_cuts_an_answer_unless_the_recipe_says_so(tiny_llama: Path, tmp_path: Path) -> None:
    names = (
        "dpo", "ipo", "hinge", "robust", "sppo_hard", "apo_zero", "apo_down", "simpo", "cpo", "orpo", "kto"
    )  # fmt: skip
    for name in names:
        config = load_config(language_recipe(tmp_path, tiny_llama, objective={"name": name}))
        made = trl_arguments(config, name, 0.0, Batches(2, 1, 1), "cpu", 0, tmp_path)
        uncut = NEVER_CUT if name in {"simpo", "cpo", "orpo"} else None
        assert made.max_length == uncut, name
    own = load_config(language_recipe(
        tmp_path, tiny_llama, objective={"name": "ipo", "options": {"max_length": 7}}
    ))  # fmt: skip
    assert trl_arguments(own, "ipo", 0.0, Batches(2, 1, 1), "cpu", 0, tmp_path).max_length == 7


@pytest.mark.parametrize("name", ["ipo", "orpo"])
def test_an_answer_beyond_the_context_is_refused_before_training(
    tiny_llama: Path, tmp_path: Path, name: str
) -> None:
    pairs = [{"prompt": "fix", "chosen": "yes " * 40, "rejected": "no"}]
    with pytest.raises(ParetuneError, match=r"'fix' and its longest answer have 41 tokens.*holds 32"):
        _run(_trainer(tmp_path, tiny_llama, name, pairs, train={"updates_per_epoch": 1}))


def test_a_prefix_is_for_our_own_loss(tiny_llama: Path) -> None:
    prompt = Prompt("fix", {"chosen": "yes", "rejected": "no", "prefix": "maybe"})
    with pytest.raises(ParetuneError, match=r"objective dpo cannot go on a prefix.*'fix'.*list_dpo can"):
        DPO.check_prompts("dpo", [prompt])


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("cdpo", {}, [[0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1]]),
        ("tree_tpo", {"steps": True}, [[2.0, 1.0, 1.0], [2.0], [2.0, 1.0, 1.0, 1.0]]),
    ],
)
def test_a_loss_reads_the_weights_that_it_is_made_for(
    tiny_llama: Path, tmp_path: Path, name: str, options: dict[str, Any], wanted: list[list[float]]
) -> None:
    """The records hold both kinds. The end token belongs to the last step."""
    (row,) = _trainer(tmp_path, tiny_llama, name, options=options)._rows([0], False)
    found = [numbers[: len(own)] for numbers, own in zip(row["given"], wanted, strict=True)]
    assert found == wanted


@pytest.mark.parametrize(("anchored", "passes"), [(True, 2), (False, 1)])
def test_a_form_without_an_anchor_asks_no_reference(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anchored: bool, passes: int
) -> None:
    calls = [0]
    plain = ListTrainer._forward

    def counted(self: Any, *arguments: Any) -> Any:
        calls[0] += 1
        return plain(self, *arguments)

    monkeypatch.setattr(ListTrainer, "_forward", counted)
    train = {"epochs": 1, "prompts_per_epoch": 2, "updates_per_epoch": 1, "micro_batch": 2}
    _run(_trainer(tmp_path, tiny_llama, "symbolic", options={"anchored": anchored}, train=train))
    assert calls[0] == passes


def test_the_estimate_counts_the_answers_that_a_loss_reads(tiny_llama: Path, tmp_path: Path) -> None:
    def hours(name: str) -> float:
        config = _trainer(tmp_path / name, tiny_llama, name).config
        return estimate(config, build_plan(config), "cuda").hours["mapreduce"]

    assert hours("srpo") == pytest.approx(3 * hours("list_dpo"))  # six answers against two
    assert hours("triple_tpo") < hours("tree_tpo")


def test_steps_are_counted_as_the_model_draws_them() -> None:
    """The assistant's template writes a space before an answer, which changes its first tokens."""
    answers = [
        {"text": text, "steps": steps, "step_weights": [float(i) for i in range(len(steps))],
         "scores": {"q": score}}
        for text, steps, score in (("soap", ["soap"], 1), ("wipe it. yes", ["wipe it.", " yes"], 0))
    ]  # fmt: skip
    record = {"prompt": "how do i clean the window", "answers": answers}
    policy = CausalLMPolicy(ModelConfig.model_validate({"path": "assistant", "options": {"max_tokens": 20}}))
    kind = list_losses()["tree_tpo"]
    options = kind.options_kind.model_validate({"steps": True})
    (row,) = tokenised(policy, kind.records("tree_tpo", [Prompt(record["prompt"], record)], [0], options))
    for ids, start, places in zip(row["ids"], row["starts"], row["steps"], strict=True):
        assert len(places) == len(ids) - start
    (_, second), start = row["steps"], row["starts"][1]
    own = row["ids"][1][start:]
    first = [token for token, place in zip(own, second, strict=True) if place == 0]
    assert policy.tokenizer.decode(first).strip() == "wipe it."
    assert ListCollator(0)([row])["step"].shape[0] == 2
