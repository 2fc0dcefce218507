"""A flow model learns a reward token by flow matching on its expert's samples (RaTE, 2511.20629)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ...config import RunConfig
from ...files import digest
from ...inputs.pictures import prompt_identity
from ...models.flow import Sampling, sample
from ...ops.flow_matching import (
    flow_matching_loss,
    logit_normal_sigma,
    noised,
    velocity_matching_loss,
)
from ...planning.plan import derive_seed
from ...types import Prompt, Samples
from .student import Losses, Student, Weighted
from .teacher import Tensors, draw_once


class FlowStudent(Student):
    """The student of a flow model. clean: the teacher's latents [S, C, h, w]. index: their prompts, [S]."""

    prompts: list[Prompt]
    clean: torch.Tensor
    index: torch.Tensor

    def learn_from(
        self, prompts: Sequence[Prompt], folder: Path, inputs: str, should_stop: Callable[[], bool]
    ) -> int:
        """See `Student`. Samples are drawn by the ODE, as in the evaluation."""
        sampling, count = sampling_of(self.config), self.settings.options.samples
        settings = [count, sampling.batch, sampling.steps, sampling.guidance, self.task.seed]
        inputs = digest([inputs, settings, [prompt_identity(p.text) for p in prompts]])
        self.prompts = list(prompts)
        drawn = draw_once(folder, inputs, count, sampling.batch, self._draw_part, should_stop)
        self.clean, self.index = drawn["clean"], drawn["index"]
        return count

    def _draw_part(self, number: int, samples: torch.Tensor) -> Tensors:
        sampling, index = sampling_of(self.config), samples % len(self.prompts)
        conditions = self.policy.encode([self.prompts[int(i)].text for i in index], sampling.guidance > 1)
        generator = torch.Generator().manual_seed(derive_seed(self.task.seed, "teacher", number))
        noise = self.policy.initial_noise(len(index), generator)
        with self.teacher.on():
            clean = sample(self.policy, conditions, noise, sampling).clean.cpu()
        return {"clean": clean.contiguous(), "index": index}

    def batch(self, chosen: torch.Tensor, generator: torch.Generator) -> Losses:
        """See `Student`. Noise and noise levels are drawn for this step alone."""
        sigma = logit_normal_sigma(len(chosen), generator, shift=self.settings.options.sigma_shift)
        noise = torch.randn(self.clean[chosen].shape, generator=generator)
        return lambda part: self.loss(
            self.clean[chosen[part]], noise[part], sigma[part], self.index[chosen[part]]
        )

    def loss(
        self, clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor, index: torch.Tensor
    ) -> torch.Tensor:
        """The loss of B samples of the teacher.

        Args:
            clean: their latents [B, C, h, w].
            noise: of the same shape.
            sigma: their noise levels [B].
            index: their prompts [B].
        """
        clean, noise, sigma = (t.to(self.policy.device) for t in (clean, noise, sigma))
        texts = [self.prompts[int(i)].text for i in index]
        x = noised(clean, noise, sigma)
        if self.settings.loss == "flow":
            conditions = self.policy.encode(texts, False, self.tokens)
            return flow_matching_loss(self.policy.velocity(x, sigma, conditions, 1.0), clean, noise)
        # The loss compares the field that sampling follows, guidance included: the expert may change both
        # branches.
        guidance = sampling_of(self.config).guidance
        with torch.no_grad():
            plain = self.policy.encode(texts, guidance > 1)
            with self.teacher.on():
                target = self.policy.velocity(x, sigma, plain, guidance)
        conditions = self.policy.encode(texts, guidance > 1, self.tokens)
        return velocity_matching_loss(self.policy.velocity(x, sigma, conditions, guidance), target)

    def explore(
        self, prompts: Sequence[Prompt], group: int, generator: torch.Generator
    ) -> tuple[Samples, Weighted]:
        """See `Student`. The loss is A ||v - (noise - clean)||^2 (advantage-weighted, Xue et al. 2025).

        The samples of a prompt share noise and noise level, so that what they have in common cancels.
        """
        texts, sampling = [p.text for p in prompts for _ in range(group)], sampling_of(self.config)
        noise = self.policy.initial_noise(len(texts), generator)
        with torch.no_grad():
            conditions = self.policy.encode(texts, sampling.guidance > 1, self.tokens)
            clean = sample(self.policy, conditions, noise, sampling).clean.cpu()
            pixels = self.policy.decode(clean.to(self.policy.device))
        sigma = logit_normal_sigma(len(prompts), generator, shift=self.settings.options.sigma_shift)
        fresh = torch.randn((len(prompts), *clean.shape[1:]), generator=generator)
        points = clean, fresh.repeat_interleave(group, 0), sigma.repeat_interleave(group)

        def loss(part: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
            x0, eps, level = (t[part].to(self.policy.device) for t in points)
            given = self.policy.encode([texts[int(i)] for i in part], False, self.tokens)
            error = self.policy.velocity(noised(x0, eps, level), level, given, 1.0) - (eps - x0)
            return (advantages.to(error.device) * error.square().flatten(1).mean(1)).mean()

        return pixels, loss

    def draw(self, prompts: Sequence[Prompt], seed: int) -> Samples:
        """See `Student`. The noise is drawn from the seed."""
        sampling = sampling_of(self.config)
        conditions = self.policy.encode([p.text for p in prompts], sampling.guidance > 1, self.tokens)
        noise = self.policy.initial_noise(len(prompts), torch.Generator().manual_seed(seed))
        return self.policy.decode(sample(self.policy, conditions, noise, sampling).clean)


def sampling_of(config: RunConfig) -> Sampling:
    """The sampling of the evaluation: the ODE with its steps and guidance."""
    settings = config.evaluate
    guidance = settings.guidance_scale
    guidance = config.model.guidance_scale if guidance is None else guidance
    return Sampling(settings.steps, guidance, batch=settings.batch_size)
