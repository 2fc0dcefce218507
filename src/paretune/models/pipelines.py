"""The base class of policies on a diffusers pipeline: loading, devices, embeddings, noise, decoding.

The transformer stays on the device. Text encoders are moved there to embed prompts, and the autoencoder to
decode, because neither fits beside a large transformer.
"""
# pyright: reportPrivateImportUsage=false
# diffusers fills its namespace lazily, so that its public names look private.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from ..config import ModelConfig
from ..foreign import loading as foreign
from ..foreign.silence import quiet
from ..inputs.pictures import picture_of, prompt_identity
from ..reward_tokens.files import Token
from ..reward_tokens.pipelines import Scaled, encode_with, needs_gradient, new_token, row_scales
from ..types import ParetuneError
from .autoencoder import AutoencoderPart, release
from .checked import loading
from .checked_parts import load_parts
from .detect import check_model, resolve_path
from .embeddings import cached
from .family import Family, misfit
from .flow import Conditions, Schedule
from .options import FlowOptions, GuidedOptions, read_options
from .overflow import check_finite
from .shapes import Shape

ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


def load(kind: Any, config: ModelConfig, parts: dict[str, Any]) -> Any:
    """Load a pipeline of the class `kind` in `config.dtype`, with its VAE in float32.

    Args:
        kind: a pipeline class of diffusers.
        config: the model.
        parts: components that replace those of the pipeline, by name; None leaves a component out.
    """
    check_model(config.path)
    quiet()
    place, dtype = resolve_path(config.path), getattr(torch, config.dtype)
    with loading(f"model.path: {config.path} cannot be loaded"):
        loaded = load_parts(kind, place, dtype, parts, f"model.path: {config.path}")
        pipe = foreign.load(
            kind, place, f"model.path: {config.path}", dtype=dtype, use_safetensors=True, **loaded
        )
    if pipe.vae is not None:
        pipe.vae.to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


class PipelinePolicy(AutoencoderPart):
    """See `flow.FlowPolicy`. A subclass sets the pipeline, targets and encoders, and defines `embed`."""

    kind: Any
    family: Family
    targets: tuple[str, ...]
    encoders: tuple[str, ...] = ENCODERS  # the text encoders of the pipeline
    lazy_text = True  # whether they are loaded only when they are needed, as for a large model
    left_out: tuple[str, ...] = ()  # parts that diffusers does not load: `load` of a subclass registers them
    two_pass_guidance = False  # whether guidance above 1 runs the model twice, or is an input of it
    own_negatives = False  # whether `embed_negative` depends on the prompts, as where it sees their pictures

    def __init__(self, config: ModelConfig, device: str | torch.device = "cpu") -> None:
        self.config = config
        options = read_options(self.family.options, config)
        assert isinstance(options, FlowOptions)
        self.options = options
        self.device = torch.device(device)
        self._used = set[str]()  # parts that have worked once
        self.pipe = self.load()
        # Any, because the type of a diffusers module does not have its attributes.
        self.transformer: Any = self.denoiser().requires_grad_(False).eval()
        self.vae: Any = self.pipe.vae.requires_grad_(False).eval()
        self.transformer.to(self.device)
        self.dtype = self.transformer.dtype
        self.autocast = False
        self._text_stays = not self.lazy_text
        self._text = RLock()  # tokens change shared encoders, so only one thread may embed at a time
        if config.gradient_checkpointing:
            self.transformer.enable_gradient_checkpointing()
        self.shape = self.check_size()
        self.latent_shape = self.shape.latents
        with loading(f"model.path: the scheduler of {config.path} does not work"):
            self.schedule(2)

    def load(self) -> Any:
        """Load the family's pipeline, without text encoders if they are loaded later."""
        later = (*self.left_out, *self.encoders) if self.lazy_text else self.left_out
        return load(self.kind, self.config, dict.fromkeys(later))

    def denoiser(self) -> Any:
        """The module that is trained: the pipeline's transformer, or several as one (see `pair`)."""
        return self.pipe.transformer

    def check_size(self) -> Shape:
        """The shape of one sample. Raises ParetuneError for sizes that the model cannot draw."""
        assert self.family.shape is not None
        return self.family.shape(self.config, self.transformer.config, self.vae.config)

    def embed(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """The pipeline's encoding of P prompts: embeds [P, T, D]; pooled [P, D] and mask [P, T] if used.

        Tensors of other names, [P, ...], are kept in `Conditions.more`.
        """
        raise NotImplementedError

    def embed_negative(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        """What guidance leads away from: one prompt's, [1, ..]; with `own_negatives` one row a prompt."""
        return self.embed([self.negative_prompt])

    def images_of(self, prompts: Sequence[str]) -> list[str | None]:
        """The paths of the P prompts' input pictures.

        Raises ParetuneError for a prompt that lacks a picture the model needs, or has one it does not take.
        """
        images = [picture_of(prompt) for prompt in prompts]
        for image in images:
            if wrong := misfit(self.family, image):
                raise ParetuneError(f"{self.family.name} {wrong}")
        return images

    def embed_pictures(self, images: list[str | None]) -> dict[str, torch.Tensor]:
        """What the transformer is given of input pictures, for `Conditions.more`: [P, ...] each, on the CPU.

        Reward tokens do not change it, so it is apart from `embed`.
        images: the paths of the P prompts' pictures; never None for a family that requires one.
        """
        return {}

    # ------------------------------------------------------------ text

    @property
    def text_key(self) -> list[Any]:
        """All inputs of an embedding except the prompts."""
        key = [self.config.dtype, self.options.max_sequence_length]
        return [*key, self.negative_prompt] if self.negative_prompt else key

    @property
    def negative_prompt(self) -> str:
        """The prompt of the second pass of guidance; empty unless the family has the option."""
        return self.options.negative_prompt if isinstance(self.options, GuidedOptions) else ""

    def encode(
        self, prompts: Sequence[str], guidance: bool, tokens: Sequence[Scaled] = (), batch: int = 64
    ) -> Conditions:
        """Embed prompts with the pipeline's encoders; for guidance also the negative prompt, once.

        Args:
            prompts: P prompts.
            guidance: whether samples are drawn with guidance.
            tokens: reward tokens that follow every prompt, except the negative one. Gradients are computed if
                a token is in training.
            batch: the number of prompts that are embedded at a time.
        """
        negative = guidance and self.two_pass_guidance
        images = self.images_of(prompts)
        seen = any(image is not None for image in images)
        written = {limit.tokenizer: limit.written for limit in self.family.limits(self.config)}
        training = torch.is_grad_enabled() and needs_gradient(tokens)
        self._text_stays |= training  # each training step of a token encodes more than once

        def run() -> Conditions:
            texts = [list(prompts[i : i + batch]) for i in range(0, len(prompts), batch)]
            failure = f"model.path: the text encoders of {self.config.path} do not work"
            with self._text, torch.set_grad_enabled(training), self.text_encoders(), loading(failure):
                parts = [
                    Conditions.of_outputs(encode_with(self.pipe, partial(self.embed, t), tokens, written))
                    for t in texts
                ]
                each = texts if self.own_negatives else texts[:1]
                against = [Conditions.of_outputs(self.embed_negative(t)) for t in each if negative]
            joined = Conditions.join(parts, Conditions.join(against) if against else None)
            check_finite(joined.embeds, "the prompts' embeddings", self.config)
            if not seen:
                return joined
            with torch.no_grad(), loading(f"model.path: the vae of {self.config.path} does not work"):
                return replace(joined, more={**joined.more, **self.embed_pictures(images)})

        if tokens or not self.lazy_text:
            return run()
        key = [*self.text_key, negative, [prompt_identity(prompt) for prompt in prompts]]
        return cached(self.config.path, key, run, seen).to(self.device)

    def new_token(self, name: str, vectors: int, init: str, generator: torch.Generator) -> Token:
        """See `reward_tokens.pipelines.new_token`."""
        self.load_text()
        return new_token(self.pipe, name, vectors, init, generator)

    def row_scales(self) -> dict[str, float]:
        """See `reward_tokens.pipelines.row_scales`."""
        self.load_text()
        return row_scales(self.pipe)

    def apart_from_text(self) -> dict[str, Any]:
        """The networks that are not loaded again with the text encoders, by name: None leaves one out."""
        parts = ("transformer", *self.family.more_parts(self.pipe.config), "vae", *self.left_out)
        return dict.fromkeys(parts)

    def load_text(self) -> None:
        """Load the text encoders unless they are loaded."""
        if all(getattr(self.pipe, name, None) is not None for name in self.encoders):
            return
        loaded = load(self.kind, self.config, self.apart_from_text())
        missing = [n for n in self.encoders if getattr(loaded, n, None) is None]
        if missing:
            raise ParetuneError(f"model.path: {self.config.path} lacks its {' and '.join(missing)}")
        self.pipe.register_modules(**{name: getattr(loaded, name) for name in self.encoders})

    @contextmanager
    def text_encoders(self) -> Iterator[None]:
        """Move the text encoders to the device within a block; back to the CPU after it, unless they stay."""
        self.load_text()
        present = [e for n in self.encoders if (e := getattr(self.pipe, n, None)) is not None]
        for encoder in present:
            encoder.requires_grad_(False).to(self.device)
        try:
            yield
        finally:
            for encoder in () if self._text_stays else present:
                encoder.to("cpu")
            release(self.device)

    def free_text(self) -> None:
        """Release the text encoders: embeddings are computed once, and T5 alone takes 9 GB."""
        for name in self.encoders:
            setattr(self.pipe, name, None)
        release(self.device)

    def save_pretrained(self, folder: Path) -> bool:
        """Write the pipeline as diffusers does. Returns whether all its text encoders are included."""
        self.load_text()
        self.pipe.save_pretrained(folder)
        return all(getattr(self.pipe, name, None) is not None for name in self.encoders)

    def text_widths(self) -> dict[str, int]:
        """The size of the last dimension of each output of `embed`, by name."""
        config = self.transformer.config
        return {"embeds": config.joint_attention_dim, "pooled": config.pooled_projection_dim}

    def random_more(self, count: int) -> dict[str, torch.Tensor]:
        """Random tensors in the place of `Conditions.more`, of full length, [count, ...]: for measuring."""
        return {}

    # ------------------------------------------------------------ latents

    def schedule(self, steps: int) -> Schedule:
        """The sigmas of the pipeline's scheduler, including its shift."""
        # Any, because diffusers annotates a pair, which it returns only with return_unused_kwargs.
        scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(self.pipe.scheduler.config)
        self.set_timesteps(scheduler, steps)
        return Schedule.from_tensor(scheduler.sigmas)

    def set_timesteps(self, scheduler: Any, steps: int) -> None:
        """Call the scheduler as the family's pipeline does."""
        scheduler.set_timesteps(steps)

    def initial_noise(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Standard normal latents, drawn on the CPU. [count, ...]."""
        return torch.randn((count, *self.latent_shape), generator=generator)

    def run_transformer(self, x: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """The output of the transformer in its dtype, or under autocast if `autocast` is set."""
        return self.call_transformer(hidden_states=x.to(self.dtype), **inputs)

    def call_transformer(self, *values: Any, **inputs: Any) -> Any:
        """`run_transformer` for a transformer with inputs of its own; the latents are in `dtype` already."""
        narrow = torch.float16 if self.dtype == torch.float16 else torch.bfloat16
        lower = torch.autocast(self.device.type, narrow, enabled=self.autocast)
        with lower, self._first("transformer"):
            return self.transformer(*values, return_dict=False, **inputs)[0]

    def guidance_input(self, count: int, guidance: float, scale: float = 1.0) -> torch.Tensor | None:
        """The guidance as an input of the model, [count], or None for a model without such an input."""
        if not self.transformer.config.guidance_embeds:
            return None
        return torch.full((count,), guidance * scale, device=self.device)
