"""Training a token on a tiny pipeline, and whole runs that ask for tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from paretune.models.flow import sample
from paretune.models.loading import open_policy
from paretune.models.lora import fold
from paretune.ops.flow_matching import logit_normal_sigma, noised
from paretune.ops.lowrank import LowRank
from paretune.planning.plan import TokenTask, derive_seed
from paretune.recipes import load_config
from paretune.reward_tokens.files import Token
from paretune.rewards.base import FunctionReward
from paretune.training.checkpoint import Stopped
from paretune.training.token_distillation.flow_student import FlowStudent, sampling_of
from paretune.training.token_distillation.trainer import TokenTrainer, split
from paretune.types import ParetuneError, Prompt
from tests.conftest import tiny_recipe

from .commands import call

PROMPTS = [Prompt(p) for p in ("a red circle", "two blue squares", "a sign saying kite", "a cross")]
FEW = {"steps": 6, "options": {"samples": 8, "batch_size": 4, "every": 2, "validation": 1}}


def _expert() -> dict[str, LowRank]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"transformer_blocks.{block}.attn.{name}": LowRank(
            torch.randn(16, 2, generator=generator) * 0.5, torch.randn(2, 16, generator=generator) * 0.5
        )
        for block in (0, 1)
        for name in ("to_q", "to_v", "add_v_proj")
    }


def _red(images: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
    return images[:, 0].mean((1, 2))


def _trainer(
    folder: Path, pipeline: Path, reward: Any = _red, tokens: Mapping[str, Any] = FEW, **changes: Any
) -> TokenTrainer:
    config = load_config(tiny_recipe(folder, pipeline, tokens=dict(tokens), **changes))
    task = TokenTask("tokens/red", "red", 11, ("expert",))
    own = FunctionReward(reward, "red")
    return TokenTrainer(config, task, folder, own, PROMPTS, _expert(), "expert's hash", "cpu")


def _student(trainer: TokenTrainer) -> FlowStudent:
    assert isinstance(trainer.student, FlowStudent)
    return trainer.student


def _run(trainer: TokenTrainer, stop_after: int | None = None) -> Token:
    seen: list[object] = []
    return trainer.run(seen.append, lambda: stop_after is not None and len(seen) >= stop_after)


def _same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n].detach(), b[n].detach()) for n in a)


@pytest.mark.parametrize(
    ("loss", "dtype"), [("flow", "float32"), ("velocity", "float32"), ("flow", "float16")]
)
def test_the_loss_falls_and_only_the_vectors_move(
    tiny_sd3: Path, tmp_path: Path, loss: str, dtype: str
) -> None:
    options = {"samples": 8, "batch_size": 8, "validation": 1}
    tokens = {"loss": loss, "vectors": 2, "options": {"learning_rate": 0.5, **options}}
    trainer = _trainer(tmp_path, tiny_sd3, tokens=tokens, model={"dtype": dtype})
    policy = trainer.student.policy
    assert str(policy.transformer.dtype) == f"torch.{dtype}"
    parts = (policy.transformer, policy.pipe.text_encoder, policy.pipe.text_encoder_2)
    before = [{n: p.detach().clone() for n, p in part.named_parameters()} for part in parts]
    trainer.samples = trainer.student.learn_from(
        trainer.prompts, tmp_path / "teacher", "x", lambda: False
    )
    # One step's noise and levels over and over: what is left of the loss is what the vectors can do.
    losses = [trainer.step(0)["loss"] for _ in range(12)]
    assert losses[-1] < losses[0] - 1e-4
    after = [dict(part.named_parameters()) for part in parts]
    assert all(_same(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is None for part in after for p in part.values())


def test_the_teacher_is_the_expert_and_its_samples_are_drawn_once(tiny_sd3: Path, tmp_path: Path) -> None:
    tokens = {**FEW, "options": {**FEW["options"], "samples": 6}}
    trainer = _trainer(tmp_path, tiny_sd3, tokens=tokens, evaluate={"batch_size": 4})
    student, folder = _student(trainer), tmp_path / "teacher"
    stops = iter((False, True))
    with pytest.raises(Stopped):  # after the first of two parts
        student.learn_from(trainer.prompts, folder, "x", lambda: next(stops))
    kept = load_file(folder / "samples-0000.safetensors")
    assert student.learn_from(trainer.prompts, folder, "x", lambda: False) == 6
    first = student.clean
    assert torch.equal(first[:4], kept["clean"])
    assert student.index.tolist() == [0, 1, 2, 0, 1, 2]
    student.teacher.on = None  # type: ignore[assignment]  # whoever draws again fails
    student.learn_from(trainer.prompts, folder, "x", lambda: False)
    assert torch.equal(student.clean, first)
    with pytest.raises(Exception, match="other inputs"):
        student.learn_from(trainer.prompts, folder, "y", lambda: False)
    folded = open_policy(trainer.config.model)
    fold(folded.transformer, _expert())
    noise = folded.initial_noise(4, torch.Generator().manual_seed(derive_seed(11, "teacher", 0)))
    texts = [trainer.prompts[i].text for i in (0, 1, 2, 0)]
    clean = sample(folded, folded.encode(texts, False), noise, sampling_of(trainer.config)).clean
    torch.testing.assert_close(first[:4], clean, atol=1e-5, rtol=0)


def test_stopped_and_gone_on_is_bit_identical(tiny_sd3: Path, tmp_path: Path) -> None:
    whole = _trainer(tmp_path / "whole", tiny_sd3)
    token = _run(whole)
    first = _trainer(tmp_path / "parts", tiny_sd3)
    with pytest.raises(Stopped):
        _run(first, stop_after=1)
    second = _trainer(tmp_path / "parts", tiny_sd3)
    second.resume("")
    assert second.state.epoch == 2
    assert _same(_run(second).vectors, token.vectors)
    assert _same(second.state.parameters, whole.state.parameters)
    rows = [[{k: v for k, v in r.items() if k != "seconds"} for r in t.rows] for t in (whole, second)]
    assert rows[0] == rows[1]


FURTHER = {"steps": 2, "options": {**FEW["options"], "reinforce": 4}}


@pytest.mark.parametrize("stop_after", [1, 2])
def test_reinforcement_goes_on_from_the_best_vectors_and_resumes_bit_for_bit(
    stop_after: int, tiny_sd3: Path, tmp_path: Path
) -> None:
    """Stopped between distillation and reinforcement, and within the latter."""
    settings: dict[str, Any] = {"tokens": FURTHER, "train": {"group_size": 2}}
    whole = _trainer(tmp_path / "whole", tiny_sd3, **settings)
    token = _run(whole)
    assert [(row["update"], row.get("reinforced", False)) for row in whole.rows] == [
        (2, False), (4, True), (6, True),
    ]  # fmt: skip
    first = _trainer(tmp_path / "parts", tiny_sd3, **settings)
    with pytest.raises(Stopped):
        _run(first, stop_after=stop_after)
    second = _trainer(tmp_path / "parts", tiny_sd3, **settings)
    second.resume("")
    assert second.state.epoch == 2 * stop_after
    assert _same(_run(second).vectors, token.vectors)
    assert _same(second.state.parameters, whole.state.parameters)


def test_reinforcement_raises_the_reward_of_its_own_samples(tiny_sd3: Path, tmp_path: Path) -> None:
    options = {**FEW["options"], "batch_size": 32, "reinforce": 15, "every": 5, "validation": 4,
               "learning_rate": 1.0}  # fmt: skip
    settings: dict[str, Any] = {"tokens": {"steps": 1, "options": options}, "train": {"group_size": 16}}
    trainer = _trainer(tmp_path, tiny_sd3, **settings)
    token = _run(trainer)
    rewards = [row["reward"] for row in trainer.rows if row.get("reinforced")]
    assert rewards == sorted(rewards)
    assert rewards[-1] > trainer.rows[0]["reward"] + 5e-4
    assert trainer.best() == max(row["reward"] for row in trainer.rows)
    assert all(torch.isfinite(v).all() for v in token.vectors.values())


def test_the_gradient_of_reinforcement_is_the_advantages_times_that_of_the_error(
    tiny_sd3: Path, tmp_path: Path
) -> None:
    """That of A ||v - (noise - clean)||^2, with one noise and one level for all samples of a prompt."""
    trainer = _trainer(tmp_path, tiny_sd3)
    student, advantages = _student(trainer), torch.tensor([1.0, -0.5])
    pixels, loss = student.explore(PROMPTS[:1], 2, torch.Generator().manual_seed(0))
    assert len(pixels) == 2
    vectors = list(trainer.state.parameters.values())
    found = torch.autograd.grad(loss(torch.arange(2), advantages), vectors)
    again = torch.Generator().manual_seed(0)
    policy, texts = student.policy, [PROMPTS[0].text] * 2
    start = policy.initial_noise(2, again)
    with torch.no_grad():
        given = policy.encode(texts, False, student.tokens)
        clean = sample(policy, given, start, sampling_of(trainer.config)).clean
    sigma = logit_normal_sigma(1, again, shift=1.0).expand(2)
    noise = torch.randn((1, *clean.shape[1:]), generator=again).expand_as(clean)
    velocity = policy.velocity(
        noised(clean, noise, sigma), sigma, policy.encode(texts, False, student.tokens), 1.0
    )
    error = (velocity - (noise - clean)).square().flatten(1).mean(1)
    for ours, wanted in zip(found, torch.autograd.grad((advantages * error).mean(), vectors), strict=True):
        torch.testing.assert_close(ours, wanted, atol=1e-7, rtol=1e-4)


def test_whole_groups_are_drawn_and_equal_scores_teach_nothing(tiny_sd3: Path, tmp_path: Path) -> None:
    """A batch of 4 holds one group of 3; where all of it score alike no momentum moves the vectors."""
    asked: list[int] = []

    def same(images: torch.Tensor, prompts: Sequence[Prompt]) -> list[float]:
        asked.append(len(images))
        return [0.5] * len(images)

    settings: dict[str, Any] = {"tokens": FURTHER, "train": {"group_size": 3}}
    trainer = _trainer(tmp_path, tiny_sd3, same, **settings)
    _run(trainer)
    assert [n for n in asked if n > 1] == [3] * 4
    assert trainer.settings.options.drawn(3) == 8 + 4 * 3
    assert [row["grad_norm"] for row in trainer.rows if row.get("reinforced")] == [0.0, 0.0]
    assert _same(trainer.state.parameters, trainer.state.ema)


def test_reinforcement_follows_a_distillation_that_patience_ended(tiny_sd3: Path, tmp_path: Path) -> None:
    values = iter([0.5, 0.4, 0.3, 0.6, 0.7, 0.8])

    def told(images: torch.Tensor, prompts: Sequence[Prompt]) -> list[float]:
        return [next(values)] if len(images) == 1 else [float(i) for i in range(len(images))]

    options = {**FEW["options"], "patience": 2, "reinforce": 4}
    settings: dict[str, Any] = {"tokens": {"steps": 20, "options": options}, "train": {"group_size": 2}}
    trainer = _trainer(tmp_path, tiny_sd3, told, **settings)
    _run(trainer)
    assert [(row["update"], row.get("reinforced", False)) for row in trainer.rows] == [
        (2, False), (4, False), (6, False), (8, True), (10, True),
    ]  # fmt: skip
    assert trainer.best() == pytest.approx(0.7)


def test_groups_of_one_are_refused(tiny_sd3: Path, tmp_path: Path) -> None:
    with pytest.raises(ParetuneError, match=r"tokens\.options\.reinforce compares samples of a prompt"):
        _trainer(tmp_path, tiny_sd3, tokens={"options": {"reinforce": 1, "batch_size": 1}})


def test_micro_batches_accumulate_to_the_whole_batch(tiny_sd3: Path, tmp_path: Path) -> None:
    found = []
    for size in (2, 4):
        trainer = _trainer(tmp_path / str(size), tiny_sd3, train={"micro_batch": size})
        _run(trainer)
        found.append(trainer.state.parameters)
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], atol=1e-5, rtol=1e-3)


def test_the_best_validated_vectors_are_kept_and_patience_ends(tiny_sd3: Path, tmp_path: Path) -> None:
    values = iter([0.1, 0.7, 0.3, 0.2, 0.9])
    seen: list[dict[str, torch.Tensor]] = []

    def told(images: torch.Tensor, prompts: Sequence[Prompt]) -> list[float]:
        seen.append({n: p.detach().clone() for n, p in trainer.state.parameters.items()})
        return [next(values)] * len(images)

    settings = {"steps": 10, "options": {**FEW["options"], "patience": 2}}
    trainer = _trainer(tmp_path, tiny_sd3, told, settings)
    token = _run(trainer)
    assert [r["reward"] for r in trainer.rows] == pytest.approx([0.1, 0.7, 0.3, 0.2])
    assert trainer.state.epoch == 8
    assert _same(token.vectors, seen[1])
    assert not _same(token.vectors, seen[3])


def test_guidance_takes_part_in_the_velocity_loss(tiny_sd3: Path, tmp_path: Path) -> None:
    tokens = {**FEW, "loss": "velocity"}
    trainer = _trainer(tmp_path, tiny_sd3, tokens=tokens, model={"guidance_scale": 3.0})
    token = _run(trainer)
    assert all(torch.isfinite(v).all() for v in token.vectors.values())


def test_held_out_prompts_are_apart() -> None:
    prompts = [Prompt(str(i)) for i in range(30)]
    train, held = split(prompts, 8, seed=1)
    assert len(held) == 8
    assert {p.text for p in train} | {p.text for p in held} == {p.text for p in prompts}
    assert not {p.text for p in train} & {p.text for p in held}
    assert split(prompts, 8, seed=1) == (train, held)
    assert len(split(prompts, 100, seed=1)[1]) == 10
    assert split(prompts[:1], 8, seed=1) == (prompts[:1], prompts[:1])


SET = [f"--set=tokens.{k}" for k in (
    "steps=4", "options.samples=6", "options.batch_size=4", "options.every=2", "options.validation=1",
)]  # fmt: skip


def test_tokens_of_a_finished_run(whole: Path, tmp_path: Path) -> None:
    """`paretune tokens` adds what a recipe with the section would have made; the rest stays as it was."""
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    before = {p: p.stat().st_mtime_ns for p in out.glob("**/*.safetensors")}
    done = call("tokens", out, "--trust-rewards", "--quiet", "--json", *SET)
    assert done.returncode == 0, done.stderr
    assert all(p.stat().st_mtime_ns == t for p, t in before.items())
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["methods"])[-4:] == ["rate:red", "rate:dark", "rate", "mapreduce"]
    assert summary["budget"]["rate:red"] == 6
    assert summary["timing"]["tokens"] > 0
    old = json.loads((whole / "summary.json").read_text())
    assert all(summary["methods"][m] == v for m, v in old["methods"].items())
    folder = out / "final/tokens/red"
    vectors = [load_file(folder / f"{e}.safetensors") for e in ("text_encoder", "text_encoder_2")]
    assert [list(v) for v in vectors] == [["<red>"], ["<red>"]]
    assert all(v["<red>"].shape == (1, 64) for v in vectors)
    manifest = json.loads((out / "tokens/red/manifest.json").read_text())
    assert set(manifest["files"]) == {"text_encoder.safetensors", "text_encoder_2.safetensors"}

    again = call("run", out / "config.yaml", "--out", out, "--resume", "--quiet")  # an ordinary run now
    assert again.returncode == 0, again.stderr
    other = call("tokens", out, "--trust-rewards", "--quiet", "--set=tokens.steps=5")
    assert other.returncode == 2
    assert "trained with other settings (tokens.steps)" in " ".join(other.stderr.split())
    wrong = call("tokens", out, "--set=train.epochs=5")
    assert wrong.returncode == 2
    assert "only tokens.*" in wrong.stderr
    exported = call("export", out, "--out", tmp_path / "exported")
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "exported/tokens/dark/text_encoder.safetensors").exists()


def test_no_run_no_tokens(tmp_path: Path) -> None:
    done = call("tokens", tmp_path)
    assert done.returncode == 2
    assert "holds no finished run" in " ".join(done.stderr.split())
