"""The keys that say what is made of experts and how it runs: map, reduce, tokens, evaluation, executor."""
# pyright: reportCallIssue=false
# Pyright recognises a default only as Field(default=..); it would require every key that has a description.

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ..limits import (
    Decay,
    Line,
    NonNegative,
    Positive,
    PositiveReal,
    Processes,
    Rate,
    Seed,
    Steps,
    Unit,
    Whole,
)
from ..ops.merge_options import fit
from ..ops.merging import DIVISIONS, read_settings, reducer_of
from ..ops.outer import read_step, steps_of_q
from .training import Section


class MapConfig(Section):
    """What the experts of MapReduce are scored by. The experts of Rewarded Soup never lean."""

    lean: Unit = Field(
        0.0, description="the share of every other reward that applies to a prompt; 0: the own reward alone"
    )


Step = Annotated[float | tuple[float, ...], BeforeValidator(read_step)]


class ReduceConfig(Section):
    """How experts are merged. docs/merging.md describes the methods and their options."""

    method: str = Field("exact", description="a name of ops.merging.REDUCERS, or of a package's")
    rank: Positive | None = Field(None, description="cut each round's average to this rank")
    energy: Annotated[PositiveReal, Field(le=1)] | None = Field(
        None, description="or cut it to the least rank that keeps this share of its energy"
    )
    final_rank: Positive | None = Field(None, description="cut final/ to this rank; default: exact")
    step: Step = Field(
        1.0, description="how much of the average is folded; search, or a list: the best by validation"
    )
    momentum: Decay = Field(0.0, description="of the average over the rounds, for every method but nesterov")
    prompts: Positive = Field(32, description="training prompts a reward that chosen steps are measured on")
    options: dict[str, Any] = Field(default_factory=dict, description="of this method, such as density")

    @model_validator(mode="before")
    @classmethod
    def _searched(cls, raw: Any) -> Any:
        """`options.q: search` is a choice of steps; see `ops.outer.steps_of_q`."""
        given = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
        options = given.get("options")
        if given.get("method") != "dare-q" or not isinstance(options, dict) \
                or cast("dict[str, Any]", options).get("q") != "search":  # fmt: skip
            return raw
        if given.get("step", 1) != 1:
            raise ValueError("options.q: search chooses the step too: leave step out")
        density = fit("density", cast("dict[str, Any]", options).get("density", 0.5))
        if not 0.01 <= density < 1:
            raise ValueError(f"options.q: search needs a density from 0.01 to below 1, not {density:g}")
        return {**given, "options": {**options, "q": 1.0}, "step": list(steps_of_q(density, DIVISIONS))}

    @property
    def searches_q(self) -> bool:
        """Whether the steps are those of `options.q: search`."""
        if self.method != "dare-q" or self.options.get("q") != 1:
            return False
        return self.step == steps_of_q(fit("density", self.options.get("density", 0.5)), DIVISIONS)

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        reducer_of(method)
        return method

    @field_validator("options")
    @classmethod
    def _taken(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        # A wrong method is not in info.data; its own validator reports it.
        return read_settings(info.data["method"], options) if "method" in info.data else options

    @model_validator(mode="after")
    def _check(self) -> ReduceConfig:
        given = (self.rank is not None) + (self.energy is not None)
        if given == 2:
            raise ValueError("give either rank or energy")
        if self.method == "compressed" and not given:
            raise ValueError("method: compressed needs a rank or an energy")
        if self.method == "exact" and given:
            raise ValueError("method: exact cuts nothing; rank and energy go with method: compressed")
        if self.method == "nesterov" and self.momentum:
            raise ValueError("method: nesterov has a momentum of its own: give it as options.momentum")
        return self


class StopConfig(Section):
    """When an expert is stopped at its best weights, because it seems to find a way around its reward."""

    diversity: Unit | None = Field(
        None, description="samples of a prompt differ by less than this share of the first epochs'"
    )
    kl: PositiveReal | None = Field(None, description="the KL to the anchor is above this")
    length: Annotated[PositiveReal, Field(gt=1)] | None = Field(
        None, description="answers are so many times as long, or as short, as in the first epochs"
    )
    judge: Positive | None = Field(
        None, description="every so many epochs the judge scores samples: it fell while the reward rose"
    )
    patience: Positive = Field(2, description="epochs in a row beyond a limit after which it stops")

    @model_validator(mode="after")
    def _check(self) -> StopConfig:
        if self.diversity is None and self.kl is None and self.length is None and self.judge is None:
            raise ValueError("give a limit: diversity, kl, length or judge")
        return self


class BaselinesConfig(Section):
    """How the methods that one recipe compares MapReduce with are run."""

    joint: Literal["wide", "long"] = Field(
        "wide", description="joint policies: N times an expert's batch, or N times its epochs of its batch"
    )


class TokenOptions(Section):
    """Settings of the training of reward tokens that seldom need a change."""

    init: str | dict[str, str] = Field(
        "", description="words at whose mean embedding a token starts, or those of each reward"
    )
    samples: Positive = Field(1024, description="samples that the teacher draws, once for each token")
    batch_size: Positive = Field(64, description="samples in one step")
    learning_rate: Rate = Field(0.1, description="in units of an encoder's embeddings (their rms)")
    sigma_shift: PositiveReal = Field(1.0, description="above 1 trains more on noisy states")
    validation: Positive = Field(64, description="training prompts that are held out to choose the best step")
    every: Positive = Field(50, description="steps between two validations, which also write checkpoints")
    patience: Positive = Field(4, description="validations without a new best after which it stops")
    reinforce: Annotated[Whole, Field(ge=0, le=100_000)] = Field(
        0, description="further steps, each on about batch_size own samples that the reward has scored"
    )

    @field_validator("init", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        given = cast("dict[Any, Any]", value) if isinstance(value, dict) else {"": value}
        for reward, words in given.items():
            of = f" of {reward}" if reward else ""
            if not isinstance(words, str):
                raise ValueError(
                    f"the start{of} is words, in quotes where YAML reads them otherwise, not {words!r:.40}"
                )
            if words and not words.strip():
                raise ValueError("blanks alone are no word; leave it out for a random start")
        return value

    def words_of(self, reward: str) -> str:
        """The words at which a reward's token starts; "" for a random start."""
        return self.init if isinstance(self.init, str) else self.init.get(reward, "")

    def groups(self, group_size: int) -> tuple[int, int]:
        """The prompts of a step of reinforcement, and the samples of each."""
        group = min(group_size, self.batch_size)
        return self.batch_size // group, group

    def drawn(self, group_size: int) -> int:
        """The samples that a token's training draws at most, beside those of its validations."""
        count, group = self.groups(group_size)
        return self.samples + self.reinforce * count * group


class TokensConfig(Section):
    """One learned token for each reward (RaTE). A recipe with this section trains tokens after the rounds."""

    loss: Literal["flow", "velocity"] = Field(
        "flow", description="flow: fit the teacher's samples, as published; velocity: fit its prediction"
    )
    vectors: Annotated[Whole, Field(ge=1, le=8)] = Field(1, description="of a token, in each embedding table")
    steps: Positive = 400
    options: TokenOptions = TokenOptions()


class EvaluateConfig(Section):
    """The measurement, the same for every method."""

    prompts: Positive = Field(64, description="held-out prompts from each reward's set")
    samples: Annotated[Positive, Field(le=1000)] = Field(
        2, description="samples for each prompt, with the same noise for all methods"
    )
    steps: Steps = 10
    guidance_scale: NonNegative | None = Field(None, description="default: model.guidance_scale")
    batch_size: Positive = 64
    judges: bool = True
    untargeted: tuple[Line, ...] = Field((), description="rewards that train nothing and score every set")
    lattice: Annotated[Whole, Field(ge=0, le=100)] = Field(
        0, description="divisions of the grid of preferences; 0: no grid"
    )
    seed: Seed = 1234


class ExecutorConfig(Section):
    """Where the tasks of a run are computed."""

    kind: Line = Field("local", description="a name of executors.EXECUTORS, or of a package's")
    workers: Processes = Field(0, ge=0, description="processes at the same time; 0: one for each expert")
    threads: Processes = Field(1, gt=0, description="CPU threads of each process; results depend on it")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    reward_timeout: PositiveReal = Field(120.0, description="seconds that scoring a batch may take")
    overlap: bool = Field(False, description="draw the next samples while the last ones are scored")
    devices_per_expert: Annotated[Positive, Field(le=1024)] = Field(
        1, description="devices that train one expert together, a process each; on a CPU, processes"
    )
    shard: Literal["none", "full"] = Field(
        "none", description="full: the frozen base is divided over the expert's devices (FSDP2)"
    )
    address: Line = Field("auto", description="Ray's: auto, HOST:PORT, ray://HOST:PORT, or local: a new one")
    cpus_per_expert: Processes = Field(0, ge=0, description="CPUs of a task in Ray; 0: what it has threads")
    retries: Whole = Field(3, description="how often a task goes on after its worker died in Ray")


