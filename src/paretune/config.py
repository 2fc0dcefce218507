"""The configuration of a run: every key of a recipe. It is checked once, frozen, and written into the run.

`recipes` reads it from YAML.
"""
# pyright: reportCallIssue=false
# Pyright recognises a default only as Field(default=..); it would require every key that has a description.

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .limits import (
    MOST_REWARDS,
    Decay,
    Epochs,
    Line,
    NonNegative,
    Options,
    Pixels,
    Positive,
    PositiveReal,
    Processes,
    Rank,
    Rate,
    RewardOptions,
    Seed,
    Steps,
    Unit,
    Whole,
    check_epochs,
    check_lattice,
    check_samples,
    check_texts,
)
from .ops.merging import DIVISIONS, read_settings, reducer_of
from .ops.outer import read_step
from .yaml_text import dump_yaml

MethodName = Literal["mapreduce", "rewarded_soup", "morl_d", "morl_dr", "sequential", "selma"]
# Folders and files are named after a reward, with a few words before and after it; 255 bytes must hold them.
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=100)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(_Section):
    """The base model and how it is run."""

    path: Line = Field("pictures", description="an embedded model, a folder, or a hub id")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="dtype of the frozen base"
    )
    height: Pixels | None = Field(None, description="in pixels; default: the pipeline's")
    width: Pixels | None = None
    guidance_scale: NonNegative = Field(
        1.0, description="classifier-free, which 1 turns off; FLUX and HunyuanVideo: the embedded guidance"
    )
    steps: Steps = Field(8, description="sampling steps in training")
    gradient_checkpointing: bool = False
    options: dict[str, Any] = Field(default_factory=dict, description="settings of this family of models")

    @property
    def bytes_each(self) -> int:
        """The bytes of one number of the base."""
        return 4 if self.dtype == "float32" else 2


class LoraConfig(_Section):
    """The adapter of one expert."""

    rank: Rank = 16
    alpha: PositiveReal = 32.0
    init: Literal["gaussian", "kaiming"] = "gaussian"
    targets: Annotated[tuple[Line, ...], Field(min_length=1)] | None = Field(
        None, description="modules that get adapters; by default the family's attention"
    )


class ObjectiveConfig(_Section):
    """What an expert minimises. `options` are those of one objective; its file describes them."""

    name: str = Field("nft", description="of training.objectives.table.OBJECTIVES, or of a package")
    kl: NonNegative = Field(0.0, description="weight of the KL to the anchor")
    anchor: Literal["round", "base", "average"] = Field(
        "round", description="what the KL is measured from; average: of the expert, by train.ema_decay"
    )
    advantage_std: Literal["group", "global"] = "group"
    advantage_clip: PositiveReal = 5.0
    joint: Literal["sum_then_normalise", "normalise_then_sum"] = Field(
        "sum_then_normalise", description="advantages of several rewards at once (morl_dr, map.lean)"
    )
    shared_noise: bool = Field(False, description="one initial noise a group")
    options: Options = Field(
        default_factory=dict, description="of this objective; for language models also TRL's settings"
    )
    others: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="options of objectives that methods choose; for selma: {sft: {..}}"
    )


class TrainConfig(_Section):
    """The training of one expert in one round. An epoch draws and scores samples and updates the adapter."""

    epochs: Epochs = 12
    prompts_per_epoch: Annotated[Positive, Field(le=100_000)] = 8
    group_size: Annotated[Whole, Field(ge=2, le=10_000)] = 12
    keep: Annotated[Whole, Field(ge=2, multiple_of=2)] | None = Field(
        None, description="train on so many samples of each group, half the best, half the worst; default all"
    )
    updates_per_epoch: Positive = 2
    micro_batch: Positive = Field(96, description="samples in a forward pass; gradients accumulate")
    learning_rate: Rate = 2e-3
    lr_scheduler: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="how the rate falls over a method's epochs; MapReduce's rounds count together"
    )
    weight_decay: NonNegative = 1e-4
    max_grad_norm: PositiveReal = 1.0
    ema_decay: Decay = Field(0.0, description="0: the expert is the last step, not an average")
    ema_every: Positive = Field(1, description="updates between two steps of the average")
    autocast: bool = Field(
        False, description="autocast around the transformer: to float16 for a float16 base, else to bfloat16"
    )
    checkpoint_every: Positive = Field(3, description="epochs between two checkpoints")

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if self.keep is not None and self.keep > self.group_size:
            raise ValueError("keep is more than group_size")
        check_samples(self.prompts_per_epoch * self.group_size)
        if self.updates_per_epoch > self.prompts_per_epoch:
            raise ValueError("updates_per_epoch is more than prompts_per_epoch: no group is torn apart")
        return self


class RewardConfig(_Section):
    """One reward: the scorer, the prompts, and an independent judge."""

    reward: Line = Field(description="a registered name, package.module:Name, or file.py:Name")
    prompts: Line = Field(description="training prompts: a file, an embedded set or a dataset of the hub")
    eval_prompts: Line = Field(description="held-out prompts")
    judge: Line | None = Field(None, description="an independent reward that nothing is trained on")
    weight: NonNegative = Field(1.0, description="its weight in the average")
    options: RewardOptions = Field(default_factory=dict)
    kl: NonNegative | None = Field(None, description="overrides objective.kl")
    epochs: Epochs | None = Field(None, description="overrides train.epochs")
    lean: Unit | None = Field(None, description="overrides map.lean")
    objective: str | None = Field(
        None, description="overrides objective.name for this expert; its options are in objective.others"
    )
    pairs: Line | None = Field(
        None, description="preferences that the expert trains on: a .jsonl file or hf:OWNER/NAME@SPLIT"
    )


class MapConfig(_Section):
    """What the experts of MapReduce are scored by. The experts of Rewarded Soup never lean."""

    lean: Unit = Field(
        0.0, description="the share of every other reward that applies to a prompt; 0: the own reward alone"
    )


Step = Annotated[float | tuple[float, ...], BeforeValidator(read_step)]


class ReduceConfig(_Section):
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


class BaselinesConfig(_Section):
    """How the methods that one recipe compares MapReduce with are run."""

    joint: Literal["wide", "long"] = Field(
        "wide", description="morl_d, morl_dr: N times an expert's batch, or N times its epochs of its batch"
    )


class TokenOptions(_Section):
    """Settings of the training of reward tokens that seldom need a change."""

    init: str = Field("", description="words at whose mean embedding a token starts; default: random")
    samples: Positive = Field(1024, description="samples that the teacher draws, once for each token")
    batch_size: Positive = Field(64, description="samples in one step")
    learning_rate: Rate = Field(0.1, description="in units of an encoder's embeddings (their rms)")
    sigma_shift: PositiveReal = Field(1.0, description="above 1 trains more on noisy states")
    validation: Positive = Field(64, description="training prompts that are held out to choose the best step")
    every: Positive = Field(50, description="steps between two validations, which also write checkpoints")
    patience: Positive = Field(4, description="validations without a new best after which it stops")


class TokensConfig(_Section):
    """One learned token for each reward (RaTE). A recipe with this section trains tokens after the rounds."""

    loss: Literal["flow", "velocity"] = Field(
        "flow", description="flow: fit the teacher's samples, as published; velocity: fit its prediction"
    )
    vectors: Annotated[Whole, Field(ge=1, le=8)] = Field(1, description="of a token, in each embedding table")
    steps: Positive = 400
    options: TokenOptions = TokenOptions()


class EvaluateConfig(_Section):
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


class ExecutorConfig(_Section):
    """Where the tasks of a run are computed."""

    kind: Line = Field("local", description="a name of executors.EXECUTORS, or of a package's")
    workers: Processes = Field(0, ge=0, description="processes at the same time; 0: one for each expert")
    threads: Processes = Field(1, gt=0, description="CPU threads of each process; results depend on it")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    reward_timeout: PositiveReal = Field(120.0, description="seconds that scoring a batch may take")


class RunConfig(_Section):
    """A whole run."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    seed: Seed = 0
    methods: tuple[MethodName, ...] = Field(("mapreduce", "rewarded_soup"), min_length=1)
    rounds: Annotated[Positive, Field(le=128)] = Field(4, description="each starts from all before it")
    model: ModelConfig = ModelConfig()
    lora: LoraConfig = LoraConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()
    rewards: Annotated[dict[FolderName, RewardConfig], Field(min_length=1, max_length=MOST_REWARDS)]
    map: MapConfig = MapConfig()
    reduce: ReduceConfig = ReduceConfig()
    baselines: BaselinesConfig = BaselinesConfig()
    tokens: TokensConfig | None = Field(None, description="if given, trains a token a reward")
    evaluate: EvaluateConfig = EvaluateConfig()
    executor: ExecutorConfig = ExecutorConfig()

    @model_validator(mode="before")
    @classmethod
    def _texts(cls, raw: Any) -> Any:
        check_texts(raw)
        return raw

    @model_validator(mode="after")
    def _size(self) -> RunConfig:
        """Refuse a plan that does not fit into memory, or a run that could not end."""
        check_epochs(self.rounds * sum(r.epochs or self.train.epochs for r in self.rewards.values()))
        check_lattice("evaluate.lattice", len(self.rewards), self.evaluate.lattice)
        if self.reduce.method == "search":
            divisions = int(self.reduce.options.get("divisions", DIVISIONS))
            check_lattice("reduce.options.divisions", len(self.rewards), divisions)
        return self

    @model_validator(mode="after")
    def _check(self) -> RunConfig:
        if sum(r.weight for r in self.rewards.values()) <= 0:
            raise ValueError("the weights of the rewards are all zero")
        even = len({r.weight for r in self.rewards.values()}) == 1
        if reducer_of(self.reduce.method).first_pass is not None and not even:
            raise ValueError(
                f"reduce.method: {self.reduce.method} finds the weights itself; "
                "leave those of the rewards out"
            )
        if self.objective.anchor == "average" and not self.train.ema_decay:
            raise ValueError("objective.anchor: average is that of train.ema_decay, which is 0: give one")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError("methods names the same method twice")
        if self.tokens is not None and not {"mapreduce", "rewarded_soup"} & set(self.methods):
            raise ValueError("tokens are trained from experts: add mapreduce or rewarded_soup to methods")
        return self

    def weights(self) -> dict[str, float]:
        """The weights of the rewards, normalised so that their sum is 1."""
        total = sum(r.weight for r in self.rewards.values())
        return {name: r.weight / total for name, r in self.rewards.items()}

    def lean(self, reward: str) -> float:
        """The share of the other rewards that the reward's expert is scored by; 0 without another reward."""
        own = self.rewards[reward].lean
        return 0.0 if len(self.rewards) == 1 else self.map.lean if own is None else own

    def rounding_keys(self, whole_batches: bool = False) -> frozenset[str]:
        """The keys that change nothing but the rounding of a result, so that a resumed run may change them.

        whole_batches: whether the objective compares the samples of a micro-batch, so that its size matters
        (see `training.objectives.settings.needs_whole_batches`).
        """
        free = {"model.gradient_checkpointing"}
        return frozenset(free if whole_batches else free | {"train.micro_batch"})

    def without_rounding(self, whole_batches: bool = False) -> RunConfig:
        """The recipe with the defaults for `rounding_keys`, from which digests are computed."""
        sections = {"model": self.model, "train": self.train}
        for key in self.rounding_keys(whole_batches):
            name, leaf = key.split(".")
            default = type(sections[name]).model_fields[leaf].default
            sections[name] = sections[name].model_copy(update={leaf: default})
        return self.model_copy(update=sections)

    def to_yaml(self) -> str:
        """The resolved recipe, with every key spelled out."""
        return dump_yaml(self.model_dump(mode="json"))
