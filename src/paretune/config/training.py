"""The keys that say what is trained: model, adapter, objective, optimiser, rewards."""
# pyright: reportCallIssue=false
# Pyright recognises a default only as Field(default=..); it would require every key that has a description.

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from ..limits import (
    Decay,
    Epochs,
    Line,
    NonNegative,
    Options,
    Pixels,
    Positive,
    PositiveReal,
    Rank,
    Rate,
    RewardOptions,
    Steps,
    Unit,
    Whole,
    check_samples,
)

MethodName = Literal["mapreduce", "rewarded_soup", "morl_d", "morl_dr", "sequential", "selma", "conditioned"]
TrackerName = Literal["tensorboard", "wandb", "swanlab", "trackio", "mlflow"]
# Folders and files are named after a reward, with a few words before and after it; 255 bytes must hold them.
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=100)]


class Section(BaseModel):
    """A part of a recipe: frozen, without keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(Section):
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


class LoraConfig(Section):
    """The adapter of one expert."""

    rank: Rank = 16
    alpha: PositiveReal = 32.0
    init: Literal["gaussian", "kaiming"] = "gaussian"
    targets: Annotated[tuple[Line, ...], Field(min_length=1)] | None = Field(
        None, description="modules that get adapters; by default the family's attention"
    )


class ObjectiveConfig(Section):
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


class TrainConfig(Section):
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
    decay: Literal["zero", "start"] = Field(
        "zero", description="where weights decay to; start: to where the adapter began (AdamR)"
    )
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


class RewardConfig(Section):
    """One reward: the scorer, the prompts, and an independent judge."""

    reward: Line = Field(description="a registered name, package.module:Name, or file.py:Name")
    prompts: Line = Field(description="training prompts: a file, an embedded set or a dataset of the hub")
    eval_prompts: Line = Field(description="held-out prompts")
    judge: Line | None = Field(None, description="an independent reward that nothing is trained on")
    weight: NonNegative = Field(1.0, description="its weight in the average")
    options: RewardOptions = Field(default_factory=dict)
    head: Line | None = Field(None, description="of a reward that gives several values in one pass: which")
    normalise: Literal["none", "z", "rank", "minmax"] = Field(
        "none", description="the scale of its scores beside other rewards', as measured once on the base"
    )
    kl: NonNegative | None = Field(None, description="overrides objective.kl")
    epochs: Epochs | None = Field(None, description="overrides train.epochs")
    learning_rate: Rate | None = Field(
        None, description="overrides train.learning_rate for this expert; joint methods keep that one"
    )
    lean: Unit | None = Field(None, description="overrides map.lean")
    objective: str | None = Field(
        None, description="overrides objective.name for this expert; its options are in objective.others"
    )
    pairs: Line | None = Field(
        None, description="preferences that the expert trains on: a .jsonl file or hf:OWNER/NAME@SPLIT"
    )


