"""Preference learning of flow models: one objective, of which every system is a composition.

    lists of samples -> where to look at them -> implicit rewards -> a comparison of each list

`training.preferences.presets` is the table of systems. A loss sees the weights only through the errors of
the samples. So a list that does not fit in a micro-batch is trained by coefficients: a pass without gradient
gives all errors, the loss gives its gradient by each of them, and the samples are differentiated one
micro-batch at a time. Shapes: M samples in L lists of K; S cells of a sample.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ...models.detect import family_of
from ...models.flow import Sampling, Trajectories, stochastic_step
from ...ops.policy_losses import velocity_kl
from ...ops.preference_losses import coefficients, comparable
from ..mixture import Mixture
from ..preferences.baseline import shared_baseline
from ..preferences.builders import Maker
from ..preferences.captions import changed_all, with_user
from ..preferences.cells import cell_errors
from ..preferences.compare import COMPARE, Lists, reduced, softened
from ..preferences.file_lists import file_captions
from ..preferences.levels import Levels, View, draw_levels, invert_levels, view
from ..preferences.options import kind_of
from ..preferences.presets import PRESETS
from ..preferences.sets import PreferenceSet
from ..preferences.sources import lists_of
from ..preferences.watch import Watch, still_winners, watched
from ..preferences.weights import WEIGHTS, soft_scores
from ..together.crew import Crew
from .base import Options
from .flow import TRAINER, Batch, Collected, Learner, Setting
from .preference_base import PreferenceBase

MEDIA = {"whole": ("pictures", "clips"), "frames": ("clips",), "patches": ("pictures",)}
REWEIGHT = {"none": lambda s: torch.ones_like(s), "noise": lambda s: (1 - s) ** 2, "sample": lambda s: s**2}


class PreferenceObjective(PreferenceBase):
    """See the module."""

    lists: PreferenceSet
    levels: Levels

    def __init__(self, setting: Setting, options: Options) -> None:
        self.own = self.own_options(options)
        super().__init__(setting, options)
        self.slots = 1 if self.preset.steps else self.own.times
        twice = family_of(setting.model.path).passes(setting.model) == 2
        # Errors are of the plain model, though samples may be drawn with guidance; steps keep theirs.
        self.guidance = 1.0 if twice and not self.preset.steps else setting.model.guidance_scale
        self.schedule = self.policy.schedule(self.sampling.steps)
        self.course = 0.0  # the share of the training that is done
        self.watch = Watch()
        self.latents: dict[str, dict[str, torch.Tensor]] = {}
        self.held: tuple[int, PreferenceSet | None] | None = None
        self.baselines: list[float] = []  # of an update that several processes share, for each slot
        self.baseline: torch.Tensor | None = None  # of the slot at hand

    # ------------------------------------------------------------ samples

    @classmethod
    def captions(cls, options: Any, mixture: Mixture) -> Sequence[str]:
        """The prompts; then, where the lists need them, changed ones, those of users, or those of files."""
        prompts = [p.text for p in mixture.prompts]
        changed = changed_all(prompts) if cls.preset.builder == "captions" else []
        if cls.preset.builder == "users":
            changed = [with_user(s.reward.name, text) for s in mixture.prompt_sets for text in prompts]
        of_file = [] if mixture.pairs is None else file_captions(mixture.pairs, cls.preset)
        return [*prompts, *changed, *of_file]

    @classmethod
    def follows_course(cls, options: Any) -> bool:
        """See `Objective.follows_course`."""
        return cls.own_options(options).fade

    def make_sampling(self) -> Sampling:
        """With noise in the steps of the window where steps are trained on."""
        plain, own = super().make_sampling(), self.own
        if not self.preset.steps:
            return plain
        window = self.window(own, plain.steps)
        return replace(plain, window=window, sampler=own.sampler, eta=own.noise_level)

    def collect(self, learner: Learner, generator: torch.Generator) -> Collected:
        """The lists of an epoch: from the expert's file, from earlier epochs, or newly made."""
        count = len(learner.mixture.prompts)
        maker = Maker(
            learner, self.setting, self.preset, self.own, self.sampling, self.guidance,
            torch.arange(count, 2 * count), self.latents,
        )  # fmt: skip
        made, self.held = lists_of(maker, generator, self.held)
        self.course = learner.state.epoch / learner.task.epochs
        if made.lists is None:
            return Collected(None, made.facts)
        lists = made.lists
        if self.preset.weight is not None:
            lists = WEIGHTS[self.preset.weight](lists, self.own, learner.conditions)
        self.lists = lists
        delta = self.own.delta if "delta" in self.preset.all_reads else None
        self.soft = soft_scores(lists, delta)
        group = torch.arange(len(lists)).repeat_interleave(lists.size)
        conditions = learner.conditions.select(lists.caption)
        self.all_conditions = learner.conditions
        still = still_winners(lists)
        facts = made.facts if still is None else {**made.facts, "still_winners": still}
        return Collected(Batch(Trajectories(lists.clean), lists.score[:, 0], conditions, group), facts)

    def begin_epoch(self, batch: Batch, generator: torch.Generator) -> None:
        """Draw the noise levels and the noise of every list, or invert its samples."""
        self.batch = batch
        self.watch.begin()
        if self.preset.steps:
            return
        if self.own.target != "inverted":
            self.levels = draw_levels(self.lists, self.own, generator)
            return
        weights = self.setting.reference_weights if self.own.inverted_by == "reference" \
            else self.setting.sampling_weights  # fmt: skip
        with weights():
            self.levels = invert_levels(
                self.lists, self.own, self.policy.schedule(self.own.grid), self.all_conditions, self.velocity,
                self.setting.train.micro_batch, self.policy.device, generator,
            )  # fmt: skip

    def end_epoch(self) -> dict[str, Any]:
        """See `FlowObjective.end_epoch`: Kendall's tau by noise level, and the histogram of margins."""
        found = self.watch.row()
        self.watch.begin()
        return found

    # ------------------------------------------------------------ errors

    def velocity(self, x: torch.Tensor, sigma: torch.Tensor, conditions: Any) -> torch.Tensor:
        """The velocity of the weights in use, at the guidance of training."""
        return self.policy.velocity(x, sigma, conditions, self.guidance)

    def view(self, index: torch.Tensor, slot: int) -> View:
        """Where the samples in `index` are looked at, on the policy's device."""
        device = self.policy.device
        if not self.preset.steps:
            at = view(self.lists, self.levels, index, slot)
            return View(at.x.to(device), at.u.to(device), at.sigma.to(device))
        assert self.lists.before is not None
        assert self.lists.after is not None
        assert self.lists.step is not None
        sigma = torch.tensor(self.schedule.sigmas)[self.lists.step[index // self.lists.size]]
        return View(self.lists.before[index].to(device), self.lists.after[index].to(device), sigma.to(device))

    def errors(self, velocity: torch.Tensor, at: View, index: torch.Tensor) -> torch.Tensor:
        """The errors of a velocity, [n, S]; of steps, minus the log-probability of what was drawn."""
        if not self.preset.steps:
            factor = REWEIGHT[self.own.reweight](at.sigma)
            return factor[:, None] * cell_errors(velocity, at.u, self.preset.cells)
        assert self.lists.step is not None
        steps = self.lists.step[index // self.lists.size]
        found = torch.zeros(len(index), device=velocity.device)
        for number in steps.unique().tolist():
            rows = (steps == number).nonzero().flatten().to(velocity.device)
            step = stochastic_step(
                self.schedule, number, self.sampling, at.x[rows], velocity[rows], sample=at.u[rows]
            )
            found = found.index_put((rows,), -step.log_prob)
        return found[:, None]

    def predicted(self, at: View, index: torch.Tensor, reference: bool) -> torch.Tensor:
        """The velocity at a view. Candidates of one state share it, where whole lists are asked for."""
        shared = self.lists.size if self.preset.builder == "candidates" else 1
        whole = shared > 1 and len(index) % shared == 0 and bool((index[::shared] % shared == 0).all())
        rows = slice(None, None, shared if whole else 1)
        x, sigma, conditions = at.x[rows], at.sigma[rows], self.batch.conditions.select(index[rows])
        if reference:
            v = self.velocity_under(self.setting.reference_weights, x, sigma, conditions)
        else:
            v = self.velocity(x, sigma, conditions)
        return v.repeat_interleave(shared, 0) if whole else v

    # ------------------------------------------------------------ the loss

    @property
    def compares_all(self) -> bool:
        """Whether the loss of a list depends on the other lists of its update."""
        return self.preset.compare == "kto"

    def begin_update(self, part: torch.Tensor, crew: Crew) -> None:
        """See `FlowObjective.begin_update`: what lists have in common is computed before they are dealt."""
        if self.compares_all and crew.size > 1:
            self.baselines = [
                shared_baseline(part, self.batch.group, partial(self._rewards, slot=slot), crew)
                for slot in range(self.slots)
            ]

    @torch.no_grad()
    def _rewards(self, index: torch.Tensor, slot: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The implicit rewards of whole lists' samples, and whether each is better than its list's mean."""
        found = []
        for rows in index.split(self.setting.train.micro_batch):
            at = self.view(rows, slot)
            anchor, own = (self.predicted(at, rows, reference) for reference in (True, False))
            found.append(self.errors(anchor, at, rows) - self.errors(own, at, rows))
        score = self.lists.score[index].view(-1, self.lists.size)
        good = score > score.mean(1, keepdim=True)
        return torch.cat(found).flatten(), good.flatten().to(found[0].device)

    def accumulate(self, part: torch.Tensor) -> dict[str, float]:
        """See `FlowObjective.accumulate`: whole lists at once where they fit, else by coefficients."""
        size, micro = self.lists.size, self.setting.train.micro_batch
        most = micro // size * size
        sums: dict[str, float] = {"kl": 0.0, "ratio": 1.0}
        for slot in range(self.slots):
            self.baseline = torch.tensor(self.baselines[slot]) if self.baselines else None
            if most == 0 or (self.compares_all and self.baseline is None and len(part) > most):
                self._by_coefficients(part, slot, sums)
                continue
            for index in part.split(most):
                self._whole(index, slot, len(index) / (len(part) * self.slots), sums)
        return sums

    def _whole(self, index: torch.Tensor, slot: int, share: float, sums: dict[str, float]) -> None:
        """Accumulate the gradient of whole lists in one pass."""
        at = self.view(index, slot)
        velocity = self.predicted(at, index, reference=False)
        e = self.errors(velocity, at, index)
        reference, kl = torch.zeros_like(e), torch.zeros((), device=e.device)
        if self.preset.reference or self.setting.kl > 0:
            anchor = self.predicted(at, index, reference=True)
            reference = self.errors(anchor, at, index) if self.preset.reference else reference
            kl = velocity_kl(velocity, anchor)
        loss = self.compared(e, reference, index)
        total = loss + self.setting.kl * kl if self.setting.kl > 0 else loss
        self.setting.scaled(total * share).backward()
        facts = self.facts(e.detach(), reference, index, at.sigma)
        self._add(sums, share, loss=float(loss.detach()), kl=float(kl.detach()), **facts)

    def _by_coefficients(self, part: torch.Tensor, slot: int, sums: dict[str, float]) -> None:
        """Accumulate the gradient of lists that need not fit in a micro-batch. See the module."""
        micro = self.setting.train.micro_batch
        anchored = self.preset.reference or self.setting.kl > 0
        errors, references, anchors, sigmas, kls = [], [], [], [], 0.0
        for index in part.split(micro):
            at = self.view(index, slot)
            sigmas.append(at.sigma)
            with torch.no_grad():
                velocity = self.predicted(at, index, reference=False)
                errors.append(self.errors(velocity, at, index))
                if anchored:
                    anchors.append(self.predicted(at, index, reference=True))
                    references.append(self.errors(anchors[-1], at, index))
                    kls += float(velocity_kl(velocity, anchors[-1])) * len(index) / len(part)
        e = torch.cat(errors).requires_grad_()
        reference = torch.cat(references) if self.preset.reference else torch.zeros_like(e.detach())
        loss = self.compared(e, reference, part)
        c = coefficients(loss, e)
        for number, index in enumerate(part.split(micro)):
            at = self.view(index, slot)
            velocity = self.predicted(at, index, reference=False)
            first = number * micro
            total = (c[first : first + len(index)] * self.errors(velocity, at, index)).sum()
            if self.setting.kl > 0:
                kl = velocity_kl(velocity, anchors[number]) * len(index) / len(part)
                total = total + self.setting.kl * kl
            self.setting.scaled(total / self.slots).backward()
        facts = self.facts(e.detach(), reference, part, torch.cat(sigmas))
        self._add(sums, 1 / self.slots, loss=float(loss.detach()), kl=kls, **facts)

    @property
    def scale(self) -> float:
        """Of the implicit rewards in the loss."""
        return self.own.beta / 2 if self.preset.half else self.own.beta

    def compared(self, e: torch.Tensor, reference: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """The mean loss of whole lists. e, reference: [n, S] of the samples in `index`, list by list."""
        cells, size = e.shape[1], self.lists.size
        score = _lists(self.lists.score[index].to(e.device), size, cells)
        soft = _lists(self.soft[index].to(e.device), size, cells)
        quality = None if self.lists.quality is None else self.lists.quality[index].to(e.device)
        fading = 0.75 + 0.25 * math.cos(math.pi * self.course) if self.own.fade else 1.0
        of = Lists(
            softened(_lists(e, size, cells), score, self.own.loser), _lists(reference, size, cells),
            score, soft, torch.ones_like(score) if quality is None else _lists(quality, size, cells),
            self.scale, self.own, clamp=self.preset.steps, faded=fading, baseline=self.baseline,
        )  # fmt: skip
        fits = self.preset.compare == "fit"  # which needs no order
        valid = torch.ones_like(score[:, 0]) if fits else comparable(score, self.own.tie)
        weight = self.lists.weight
        lists = index[::size] // size
        return reduced(
            COMPARE[self.preset.compare](of).view(-1, cells), valid.view(-1, cells).to(e.dtype),
            None if weight is None else weight[lists].to(e.device),
        )  # fmt: skip

    def facts(
        self, e: torch.Tensor, reference: torch.Tensor, index: torch.Tensor, sigma: torch.Tensor
    ) -> dict[str, float]:
        """What training does to winners and losers: see `watch.watched`. sigma: of the samples in `index`."""
        if not self.preset.reference:
            return {}
        size = self.lists.size
        r = (reference - e).mean(1).view(-1, size)
        score = self.lists.score[index].mean(1).view(-1, size).to(r.device)
        self.watch.add(r, score, sigma[::size], self.scale)
        return watched(r, score)

    @staticmethod
    def _add(sums: dict[str, float], share: float, **facts: float) -> None:
        for key, value in facts.items():
            sums[key] = sums.get(key, 0.0) + value * share


def _lists(values: torch.Tensor, size: int, cells: int) -> torch.Tensor:
    """Values of samples, [n, S] or [n, 1], as lists of cells: [n / K * S, K]."""
    wide = values.expand(-1, cells).view(-1, size, cells)
    return wide.transpose(1, 2).reshape(-1, size)


@functools.cache
def _objective(name: str) -> type[PreferenceObjective]:
    preset = PRESETS[name]
    kind = kind_of(name, preset.all_reads, preset.all_defaults)
    own = {"preset": preset, "name": name, "options_kind": kind, "__doc__": f"The system `{name}`.",
           "shared_noise": name == "d3po", "divides": True,
           "trainers": dict.fromkeys(MEDIA[preset.cells], TRAINER)}  # fmt: skip
    return type(name, (PreferenceObjective,), own)


def __getattr__(name: str) -> type[PreferenceObjective]:
    """The objective of a preset, by its name in the table."""
    if name in PRESETS:
        return _objective(name)
    raise AttributeError(name)
