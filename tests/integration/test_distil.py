"""Distillation of a round's experts into one student: what it compares, what it leaves, stop and resume."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from paretune.adapters.store import WEIGHTS, load_delta, save_delta, sum_deltas
from paretune.commands.watch_run import logs, status
from paretune.config import RunConfig
from paretune.models.causal_lm.policy import CausalLMPolicy
from paretune.models.lora import fold
from paretune.models.sd3.policy import SD3Policy
from paretune.ops.lowrank import LowRank
from paretune.ops.merging import merge_experts
from paretune.planning.methods import build_plan
from paretune.planning.plan import Round
from paretune.recipes import load_config
from paretune.records.manifest import write_manifest
from paretune.stages.distil import DistilJob, distil_experts, pupils_of
from paretune.stages.reduce import reduce_round
from paretune.training.answer_log_probs import NOTHING, answer_log_probs
from paretune.training.checkpoint import TrainState
from paretune.training.distillation.lesson import Part
from paretune.training.distillation.trainer import Distiller
from paretune.training.loss_scale import grad_scaler
from paretune.types import ParetuneError, Unfit
from tests.conftest import tiny_recipe
from tests.here import run_here, stop_at
from tests.language import language_recipe

Deltas = dict[str, LowRank]
OPTIONS = {"steps": 3, "batch": 4, "learning_rate": 0.05}
FLOW = ("transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_out.0")
TEXT = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj")


def change(seed: int, modules: tuple[str, ...], size: float = 0.5) -> Deltas:
    g = torch.Generator().manual_seed(seed)
    return {
        m: LowRank(size * torch.randn(16, 2, generator=g), torch.randn(2, 16, generator=g)) for m in modules
    }


def distil(kind: str, model: Path, folder: Path, **options: Any) -> RunConfig:
    make = tiny_recipe if kind == "flow" else language_recipe
    reduce = {"method": "distil", "options": {**OPTIONS, **options}}
    return load_config(make(folder / "recipe", model, methods=["mapreduce"], reduce=reduce))


def second_round(config: RunConfig, run: Path, parent: Deltas, *experts: Deltas) -> Round:
    """The second round of a run, its experts and the round before written by hand."""
    round_ = build_plan(config).methods[0].rounds[1]
    save_delta(run / round_.tasks[0].parents[0], parent, config.model.path, {})
    for task, expert in zip(round_.tasks, experts, strict=True):
        files = save_delta(run / task.folder, expert, config.model.path, {})
        write_manifest(run / task.folder, "expert", "i", files, parents=list(task.parents))
    return round_


def job_of(config: RunConfig, round_: Round, run: Path) -> DistilJob:
    return DistilJob(config, round_, run, "base")


def student_of(config: RunConfig, round_: Round, run: Path) -> Deltas:
    distil_experts(job_of(config, round_, run), lambda _: None, lambda: False, ["cpu"])
    return load_delta([run / round_.beside("distil")])


def whole(batch: Any, chosen: torch.Tensor) -> Part:
    """All parts of the samples together."""
    parts = list(batch.parts(chosen))
    loss = torch.stack([part.loss for part in parts]).sum()
    distances, sizes = (torch.stack([getattr(p, n) for p in parts]).sum(0) for n in ("distances", "sizes"))
    return Part(loss, distances, sizes)


KINDS = [("flow", "tiny_sd3", FLOW), ("text", "tiny_llama", TEXT)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "model", "modules"), KINDS, ids=["flow", "text"])
def test_equal_experts_change_nothing(
    kind: str, model: str, modules: tuple[str, ...], dtype: str, tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    """The student begins as their average, which is each of them. Adam makes no steps of rounding."""
    config = distil(kind, request.getfixturevalue(model), tmp_path)
    config = config.model_copy(update={"model": config.model.model_copy(update={"dtype": dtype})})
    expert = change(1, modules)
    round_ = second_round(config, tmp_path, change(2, modules), expert, expert)
    student = student_of(config, round_, tmp_path)
    mean = merge_experts([expert, expert]).deltas
    for name in modules:
        assert torch.equal(student[name].dense(), mean[name].dense())
    manifest = json.loads((tmp_path / round_.beside("distil") / "manifest.json").read_text())
    assert manifest["updates"] == 0
    # What is folded then is the exact average.
    reduce_round(config, round_, tmp_path, None)
    facts = json.loads((tmp_path / round_.merged / "diagnostics.json").read_text())
    assert facts["compression_error"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("kind", "model", "modules"), KINDS, ids=["flow", "text"])
def test_a_student_comes_nearer_to_both_experts(
    kind: str, model: str, modules: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """It begins near the first, as the weights say; both have the same prompts, so it ends between them."""
    config = distil(kind, request.getfixturevalue(model), tmp_path, batch=6, learning_rate=0.02)
    rewards = dict(config.rewards)
    first = next(iter(rewards))
    rewards[first] = rewards[first].model_copy(update={"weight": 9.0})
    config = config.model_copy(update={"rewards": rewards})
    experts = change(1, modules), change(3, modules)
    round_ = second_round(config, tmp_path, change(2, modules), *experts)
    trainer = Distiller(pupils_of(job_of(config, round_, tmp_path)), tmp_path, "x", 0, "cpu")

    def loss() -> float:
        generator = torch.Generator().manual_seed(9)
        index = trainer.draw(generator)
        batch = trainer.lesson.draw(index, generator)
        return float(whole(batch, torch.arange(len(index))).loss.detach())

    before = loss()
    for step in range(30):
        trainer.step(step)
    assert loss() < 0.95 * before


def test_velocities_are_those_of_the_expert_on_the_students_own_path(
    tiny_sd3: Path, tmp_path: Path
) -> None:
    """Against models whose weights have everything folded in."""
    config = distil("flow", tiny_sd3, tmp_path, times=3, anchor=0.5)
    parent, experts = change(2, FLOW), [change(1, FLOW), change(3, FLOW)]
    round_ = second_round(config, tmp_path, parent, *experts)
    trainer = Distiller(pupils_of(job_of(config, round_, tmp_path)), tmp_path, "x", 0, "cpu")
    generator = torch.Generator().manual_seed(5)
    index = torch.tensor([1, 3])  # a prompt of the first reward, and one of the second
    batch: Any = trainer.lesson.draw(index, generator)
    found = whole(batch, torch.arange(2))
    # One state at a time, so that training needs no more memory than that of an expert.
    assert len(list(batch.parts(torch.arange(2)))) == 3

    def model(*changes: Deltas) -> SD3Policy:
        policy = SD3Policy(config.model, "cpu")
        fold(policy.transformer, sum_deltas([parent, *changes]))
        return policy

    student, start = model(merge_experts(experts).deltas), model()
    conditions = student.encode(["two blue squares", "a red circle"], False)
    # The path: Euler steps of the student from the noise. All three states are compared, in any order.
    schedule, x = student.schedule(3), batch.x[torch.arange(2), batch.sigmas.argmax(1)]
    total, distances = 0.0, torch.zeros(2)
    with torch.no_grad():
        for i in range(3):
            sigma = torch.full((2,), schedule.sigmas[i])
            slot = (batch.sigmas - schedule.sigmas[i]).abs().argmin(1)
            torch.testing.assert_close(batch.x[torch.arange(2), slot], x, atol=1e-5, rtol=1e-4)
            v = student.velocity(x, sigma, conditions, 1.0)
            pair = [
                model(expert).velocity(x, sigma, conditions, 1.0)[row] for row, expert in enumerate(experts)
            ]
            errors = (v - torch.stack(pair)).square().flatten(1).mean(1)
            error = float(errors.mean())
            along = -schedule.dts[i]  # the three lengths add up to 1, so this is their weight over three
            distances += along * errors / 2  # one prompt each
            away = float((v - start.velocity(x, sigma, conditions, 1.0)).square().mean())
            total += along * (error + 0.5 * away)
            x = x + v * schedule.dts[i]
    torch.testing.assert_close(found.distances, distances, atol=0, rtol=1e-3)
    assert float(found.loss.detach()) == pytest.approx(total, rel=1e-3)


def test_a_language_model_pays_the_reverse_kl_on_its_own_answers(
    tiny_llama: Path, tmp_path: Path
) -> None:
    config = distil("text", tiny_llama, tmp_path, anchor=0.5)
    parent, experts = change(2, TEXT), [change(1, TEXT), change(3, TEXT)]
    round_ = second_round(config, tmp_path, parent, *experts)
    trainer = Distiller(pupils_of(job_of(config, round_, tmp_path)), tmp_path, "x", 0, "cpu")
    index = torch.tensor([1, 3, 5])
    batch: Any = trainer.lesson.draw(index, torch.Generator().manual_seed(5))
    halves = [whole(batch, torch.tensor(rows)) for rows in ([0, 2], [1])]

    def model(*changes: Deltas) -> CausalLMPolicy:
        policy = CausalLMPolicy(config.model)
        fold(policy.transformer, sum_deltas([parent, *changes]))
        return policy

    student = model(merge_experts(experts).deltas)
    texts = ["fix the table", "how do i clean the window", "tell me please"]

    def log_probs(policy: CausalLMPolicy, rows: list[int]) -> torch.Tensor:
        asked = policy.prompt_ids([texts[r] for r in rows], ())
        with torch.no_grad():
            return answer_log_probs(policy, asked, batch.answers[rows])

    q, start = log_probs(student, [0, 1, 2]), log_probs(model(), [0, 1, 2])
    p = torch.cat([log_probs(model(experts[0]), [0]), log_probs(model(experts[1]), [1, 2])])
    said = batch.answers != NOTHING
    kl = ((q.exp() * (q - p)).sum(2) * said).sum() / said.sum()
    anchor = ((q.exp() * (q - start)).sum(2) * said).sum() / said.sum()
    apart = ((q.exp() * (q - p).square()).sum(2) * said).sum(1) / said.sum()
    distances = torch.stack([half.distances for half in halves]).sum(0)
    # The first prompt is the first reward's, the others are the second's.
    torch.testing.assert_close(distances, torch.stack([apart[0], apart[1:].sum()]), atol=0, rtol=1e-3)
    loss = sum(float(half.loss.detach()) for half in halves)
    assert loss == pytest.approx(float(kl + anchor / 2), rel=1e-3)
    sizes = torch.stack([half.sizes for half in halves]).sum(0)
    torch.testing.assert_close(sizes, torch.stack([said[0].sum(), said[1:].sum()]) / said.sum())


def test_a_distilled_run_stopped_within_is_bit_identical(
    tiny_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(
        tmp_path, tiny_sd3, methods=["mapreduce"], rounds=1, evaluate={"prompts": 1},
        reduce={"method": "distil", "step": 1.5, "options": {**OPTIONS, "batch": 5}},
    )  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    summary = run_here(recipe, whole, monkeypatch)
    # 2 experts of 2 epochs of 2 x 3 samples; 3 steps of 5 samples.
    assert summary["budget"]["mapreduce"] == 24 + 3 * 5
    assert summary["updates"]["mapreduce"] == 2 * 2 * 2 + 3
    assert "distils its experts: in 3 steps of 5 samples" in summary["described"][0]
    merged = load_delta([whole / "round-1" / "merged"])
    for name, delta in load_delta([whole / "round-1" / "distil"]).items():
        assert merged[name].dense().allclose(1.5 * delta.dense(), atol=1e-6)
    facts = json.loads((whole / "round-1" / "merged" / "diagnostics.json").read_text())
    assert facts["compression_error"] > 0.01  # so far from the exact average
    stop_at(recipe, cut, monkeypatch, "round-1/distil", 2)
    (student,) = [part for part in status(cut).parts if part.folder == "round-1/distil"]
    assert (student.state, student.of) == ("begun", 3)
    rows = list(logs(cut, "round-1/distil"))
    assert 0 < len(rows) == student.done
    assert all(row["distance-red"] > 0 and row["distance-dark"] > 0 for row in rows)
    stop_at(recipe, cut, monkeypatch, "round-1/distil", 3)  # its adapter is not written
    stop_at(recipe, cut, monkeypatch, "evaluation/base", 1)
    final = Path("final") / WEIGHTS
    assert (cut / final).read_bytes() == (whole / final).read_bytes()


def test_experts_on_another_base_are_one_line(tiny_sd3: Path, tmp_path: Path) -> None:
    config = distil("flow", tiny_sd3, tmp_path)
    experts = change(1, FLOW), change(3, FLOW)
    round_ = second_round(config, tmp_path, change(2, FLOW), *experts)
    folder = tmp_path / round_.tasks[1].folder
    files = save_delta(folder, experts[1], "org/other", {})
    write_manifest(folder, "expert", "i", files, parents=list(round_.tasks[1].parents))
    with pytest.raises(ParetuneError) as caught:
        student_of(config, round_, tmp_path)
    assert str(caught.value) == (
        f"{folder} is an expert on another base (org/other), and distil compares experts on one model: "
        f"remove that folder and resume, which trains it on {tiny_sd3}"
    )
    files = save_delta(folder, experts[1], str(tiny_sd3), {})
    write_manifest(folder, "expert", "i", files, parents=[])
    with pytest.raises(ParetuneError, match="with no earlier round"):
        student_of(config, round_, tmp_path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"steps": 0}, "steps 0 cannot be used; it is a whole number from 1 to 100,000"),
        ({"learning_rate": 0}, "learning_rate 0 cannot be used; it lies above 0 and is at most 10"),
        ({"anchor": -1}, "anchor -1 cannot be used; it lies from 0 to 1,000"),
        ({"step": 3}, "the method distil has no option step; it takes: steps, batch, learning_rate, times"),
    ],
)
def test_a_wrong_option_is_one_line(options: dict[str, float], told: str, tmp_path: Path) -> None:
    with pytest.raises(ParetuneError) as caught:
        distil("flow", Path("pictures"), tmp_path, **options)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_gradient_below_what_float16_holds_moves_the_student(dtype: str) -> None:
    """A mean over the values of pictures has gradients of 1e-9 at the output, which vanish in float16."""
    weight = torch.ones(2, requires_grad=True)
    optimiser = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0)
    student: Any = object.__new__(Distiller)

    def parts(chosen: torch.Tensor) -> Iterator[Part]:
        output = weight.to(getattr(torch, dtype)) * 1.0
        yield Part((output.float() * 1e-9).sum(), torch.ones(1), torch.ones(1))

    student.settings = SimpleNamespace(anchor=0.0, batch=2)
    student.pupils = SimpleNamespace(
        names=["text"], config=SimpleNamespace(train=SimpleNamespace(micro_batch=2, max_grad_norm=1.0))
    )
    student.lesson = SimpleNamespace(draw=lambda index, generator: SimpleNamespace(parts=parts))
    student.seed, student.lengths, student.nothing = 0, [2], 1e-10
    scaler = grad_scaler(dtype, torch.device("cpu"))
    student.state = TrainState({"w": weight}, optimiser, ema={}, old={}, scaler=scaler)
    told = student.step(0)
    assert student.state.updates == 1
    assert float(weight[0].detach()) == pytest.approx(1 - 0.1 / 11, rel=1e-3)  # Adam's epsilon is 1e-8
    assert told["grad_norm"] == pytest.approx(1e-9 * 2**0.5, rel=1e-2)


def test_a_student_that_diverges_ends_at_once(tiny_sd3: Path, tmp_path: Path) -> None:
    """Its weights would be NaN after the step, and every checkpoint from then on."""
    config = distil("flow", tiny_sd3, tmp_path, steps=20)
    round_ = second_round(config, tmp_path, change(2, FLOW), change(1, FLOW), change(3, FLOW))
    trainer = Distiller(pupils_of(job_of(config, round_, tmp_path)), tmp_path, "x", 0, "cpu")
    parameter = next(iter(trainer.state.parameters.values()))
    before = parameter.detach().clone()
    parameter.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(Unfit, match=r"training diverged: .* lower learning rate"):
        trainer.run(lambda _: None, lambda: False)
    assert parameter.equal(before)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_a_reward_without_a_prompt_in_the_batch_has_no_distance(tiny_sd3: Path, tmp_path: Path) -> None:
    config = distil("flow", tiny_sd3, tmp_path, batch=1)
    round_ = second_round(config, tmp_path, change(2, FLOW), change(1, FLOW), change(3, FLOW))
    trainer = Distiller(pupils_of(job_of(config, round_, tmp_path)), tmp_path, "x", 0, "cpu")
    told = trainer.step(0)
    assert len([name for name in told if name.startswith("distance-")]) == 1
