"""Training a token of a tiny language model, and a whole run with tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from paretune.commands.export import export_adapter
from paretune.models.loading import open_policy
from paretune.models.lora import fold
from paretune.ops.lowrank import LowRank
from paretune.planning.plan import TokenTask, derive_seed
from paretune.recipes import load_config
from paretune.reward_tokens.files import EMBEDDING, Token
from paretune.reward_tokens.language import vectors_of
from paretune.rewards.base import FunctionReward
from paretune.training.checkpoint import Stopped
from paretune.training.token_distillation.text_student import NOTHING, TextStudent
from paretune.training.token_distillation.trainer import TokenTrainer
from paretune.types import ParetuneError, Prompt
from tests.language import language_recipe

from .commands import call

PROMPTS = [Prompt(p) for p in ("fix the table", "clean", "tell me please", "how do i clean the window")]
FEW = {"steps": 6, "options": {"samples": 8, "batch_size": 4, "every": 2, "validation": 1}}


def _expert() -> dict[str, LowRank]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"model.layers.{layer}.self_attn.{name}": LowRank(
            torch.randn(16, 2, generator=generator) * 0.5, torch.randn(2, 16, generator=generator) * 0.5
        )
        for layer in (0, 1)
        for name in ("q_proj", "v_proj")
    }


def _yes(texts: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
    return [text.split().count("yes") / max(1, len(text.split())) for text in texts]


def _trainer(
    folder: Path, model: Path, tokens: Mapping[str, Any] = FEW, overrides: Sequence[str] = (), **changes: Any
) -> TokenTrainer:
    config = load_config(language_recipe(folder, model, tokens=dict(tokens), **changes), overrides)
    task = TokenTask("tokens/yes", "yes", 11, ("expert",))
    own = FunctionReward(_yes, "yes")
    return TokenTrainer(config, task, folder, own, PROMPTS, _expert(), "expert's hash", "cpu")


def _student(trainer: TokenTrainer, folder: Path) -> TextStudent:
    """A trainer's student, its teacher's answers drawn."""
    assert isinstance(trainer.student, TextStudent)
    trainer.samples = trainer.student.learn_from(trainer.prompts, folder / "teacher", "x", lambda: False)
    return trainer.student


def _run(trainer: TokenTrainer, stop_after: int | None = None) -> Token:
    seen: list[object] = []
    return trainer.run(seen.append, lambda: stop_after is not None and len(seen) >= stop_after)


def _same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n].detach(), b[n].detach()) for n in a)


@pytest.mark.parametrize("loss", ["flow", "velocity"])
def test_the_loss_falls_and_only_the_vectors_move(tiny_llama: Path, tmp_path: Path, loss: str) -> None:
    options = {"samples": 8, "batch_size": 8, "validation": 1, "learning_rate": 0.5}
    trainer = _trainer(tmp_path, tiny_llama, tokens={"loss": loss, "vectors": 2, "options": options})
    model = _student(trainer, tmp_path).policy.transformer
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    losses = [trainer.step(0)["loss"] for _ in range(12)]
    assert losses[-1] < losses[0] - 0.02
    assert _same(before, dict(model.named_parameters()))
    assert all(p.grad is None for p in model.parameters())


def test_the_teacher_is_the_expert_and_its_answers_are_drawn_once(tiny_llama: Path, tmp_path: Path) -> None:
    tokens = {**FEW, "options": {**FEW["options"], "samples": 6}}
    trainer = _trainer(tmp_path, tiny_llama, tokens=tokens, evaluate={"batch_size": 4})
    stops = iter((False, True))
    with pytest.raises(Stopped):  # after the first of two parts
        trainer.student.learn_from(trainer.prompts, tmp_path / "teacher", "x", lambda: next(stops))
    kept = load_file(tmp_path / "teacher" / "samples-0000.safetensors")
    student = _student(trainer, tmp_path)
    answers = student.answers
    assert torch.equal(answers[:4], kept["answers"])
    assert student.index.tolist() == [0, 1, 2, 0, 1, 2]
    student.teacher.on = None  # type: ignore[assignment]  # whoever draws again fails
    assert torch.equal(_student(trainer, tmp_path).answers, answers)
    folded = open_policy(trainer.config.model)
    fold(folded.transformer, _expert())
    texts = [trainer.prompts[i].text for i in (0, 1, 2, 0)]
    told = folded.answer(texts, derive_seed(11, "teacher", 0), 4)
    rows = [[one for one in row if one != NOTHING] for row in answers[:4].tolist()]
    assert folded.tokenizer.batch_decode(rows, skip_special_tokens=True) == told
    end = folded.tokenizer.eos_token_id
    assert all(end not in row[:-1] for row in rows)
    assert all(row[-1] == end for row in rows if len(row) < 6)
    plain = open_policy(trainer.config.model).answer(texts, derive_seed(11, "teacher", 0), 4)
    assert plain != told


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_losses_are_what_they_say(tiny_llama: Path, tmp_path: Path, temperature: float) -> None:
    """By hand, an answer at a time, with the expert folded."""
    trainer = _trainer(tmp_path, tiny_llama, overrides=[f"model.options.temperature={temperature}"])
    student = _student(trainer, tmp_path)
    policy, folded = student.policy, open_policy(trainer.config.model)
    fold(folded.transformer, _expert())
    crosses, gaps, lengths = [], [], []
    with torch.no_grad():
        for row, index in zip(student.answers.tolist(), student.index.tolist(), strict=True):
            answer = [one for one in row if one != NOTHING]
            asked = policy.prompt_ids([student.prompts[index]], student.tokens)[0]
            plain = policy.prompt_ids([student.prompts[index]], ())[0]
            own = policy.logits([asked + answer], vectors_of(policy.transformer, student.tokens))[0]
            other = folded.logits([plain + answer], None)[0]
            own, other = (
                (x[-len(answer) - 1 : -1] / temperature).log_softmax(1) for x in (own, other)
            )
            crosses.append(-own[range(len(answer)), answer].sum())
            gaps.append((other.exp() * (other - own)).sum())
            lengths.append(len(answer))
        mean = sum(lengths) / len(lengths)
        found = student.loss(student.answers, student.index)
        torch.testing.assert_close(found, torch.stack(crosses).mean() / mean)
        student.settings = student.settings.model_copy(update={"loss": "velocity"})
        found = student.loss(student.answers, student.index)
        torch.testing.assert_close(found, torch.stack(gaps).mean() / mean, atol=1e-5, rtol=1e-4)
    assert min(gaps) > 0


@pytest.mark.parametrize("loss", ["flow", "velocity"])
def test_stopped_and_gone_on_is_bit_identical(tiny_llama: Path, tmp_path: Path, loss: str) -> None:
    tokens = {**FEW, "loss": loss}
    whole = _trainer(tmp_path / "whole", tiny_llama, tokens=tokens)
    token = _run(whole)
    first = _trainer(tmp_path / "parts", tiny_llama, tokens=tokens)
    with pytest.raises(Stopped):
        _run(first, stop_after=1)
    second = _trainer(tmp_path / "parts", tiny_llama, tokens=tokens)
    second.resume("")
    assert second.state.epoch == 2
    assert _same(_run(second).vectors, token.vectors)
    assert _same(second.state.parameters, whole.state.parameters)
    rows = [[{k: v for k, v in r.items() if k != "seconds"} for r in t.rows] for t in (whole, second)]
    assert rows[0] == rows[1]


def test_reinforced_answers_with_a_reward_become_likelier(tiny_llama: Path, tmp_path: Path) -> None:
    """A small step along the loss raises the likelihood of what scored better, and lowers the rest."""
    trainer = _trainer(tmp_path, tiny_llama)
    student, vectors = _student(trainer, tmp_path), list(trainer.state.parameters.values())
    texts, loss = student.explore(trainer.prompts[:2], 2, torch.Generator().manual_seed(3))
    assert len(texts) == 4

    def minus_log_q() -> torch.Tensor:
        return torch.stack([loss(torch.tensor([i]), torch.ones(1)) for i in range(4)])

    before, advantages = minus_log_q(), torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert bool((before > 0).all())
    together = loss(torch.arange(4), advantages)
    torch.testing.assert_close(together, (advantages * before).mean())
    gradients = torch.autograd.grad(together, vectors)
    with torch.no_grad():
        for vector, gradient in zip(vectors, gradients, strict=True):
            vector -= 1e-3 * gradient / gradient.norm()
        assert float((advantages * minus_log_q()).mean()) < float(together)


def test_a_token_of_answers_is_reinforced(tiny_llama: Path, tmp_path: Path) -> None:
    tokens = {**FEW, "steps": 2, "options": {**FEW["options"], "reinforce": 4}}
    trainer = _trainer(tmp_path, tiny_llama, tokens=tokens, train={"group_size": 2})
    token = _run(trainer)
    assert [row.get("reinforced", False) for row in trainer.rows] == [False, True, True]
    assert all(torch.isfinite(v).all() for v in token.vectors.values())


def test_micro_batches_accumulate_to_the_whole_batch(tiny_llama: Path, tmp_path: Path) -> None:
    found = []
    for size in (2, 4):
        trainer = _trainer(tmp_path / str(size), tiny_llama, train={"micro_batch": size})
        _run(trainer)
        found.append(trainer.state.parameters[EMBEDDING])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-3)


def test_a_prompt_without_room_is_reported_before_anything_is_drawn(tiny_llama: Path, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, tiny_llama, tokens={**FEW, "vectors": 2})
    with pytest.raises(ParetuneError, match="2 of them reward tokens"):
        trainer.student.learn_from([Prompt("fix " * 25)], tmp_path / "teacher", "x", lambda: False)
    assert not (tmp_path / "teacher").exists()


def test_a_run_with_tokens_from_end_to_end(tiny_llama: Path, tmp_path: Path) -> None:
    recipe = language_recipe(
        tmp_path / "recipe", tiny_llama, rounds=1, train={"epochs": 1}, evaluate={"lattice": 3},
        tokens={**FEW, "steps": 4, "vectors": 2},
    )  # fmt: skip
    out = tmp_path / "run"
    done = call("run", recipe, "--out", out, "--quiet")
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["methods"])[-4:] == ["rate:yes", "rate:no", "rate", "mapreduce"]
    assert summary["budget"]["rate:yes"] == 8
    rows = [json.loads(line) for line in (out / "evaluation.jsonl").read_text().splitlines()]
    grid = {tuple(row["preference"]) for row in rows if row["method"] == "rate" and row.get("lattice")}
    assert len(grid) == 4  # of which two ask for a token at half its scale
    page = (out / "report.html").read_text()
    assert "RaTE yes<small>yes " in page

    final = out / "final/tokens/yes"
    assert load_file(final / "embedding.safetensors")["<yes>"].shape == (2, 16)
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(final)
    size = len(tokenizer)
    assert tokenizer("fix <yes><yes>_1")["input_ids"][1:] == [size - 2, size - 1]
    assert export_adapter(out, tmp_path / "exported", None) == 0
    assert (tmp_path / "exported/tokens/no/embedding.safetensors").exists()
