"""The configuration of a run: every key of a recipe. It is checked once, frozen, and written into the run.

`recipes` reads it from YAML.
"""
# pyright: reportCallIssue=false
# Pyright recognises a default only as Field(default=..); it would require every key that has a description.

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from ..limits import MOST_REWARDS, Positive, Seed, check_epochs, check_lattice, check_texts
from ..ops.merging import DIVISIONS, reducer_of
from ..yaml_text import dump_yaml
from .methods import (
    BaselinesConfig,
    EvaluateConfig,
    ExecutorConfig,
    MapConfig,
    ReduceConfig,
    StopConfig,
    TokenOptions,
    TokensConfig,
)
from .training import (
    FolderName,
    LoraConfig,
    MethodName,
    ModelConfig,
    ObjectiveConfig,
    RewardConfig,
    Section,
    TrackerName,
    TrainConfig,
)

__all__ = [
    "BaselinesConfig", "EvaluateConfig", "ExecutorConfig", "LoraConfig", "MapConfig", "ModelConfig",
    "ObjectiveConfig", "ReduceConfig", "RewardConfig", "RunConfig", "StopConfig", "TokenOptions",
    "TokensConfig", "TrainConfig",
]  # fmt: skip


class RunConfig(Section):
    """A whole run."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    seed: Seed = 0
    methods: tuple[MethodName, ...] = Field(("mapreduce", "rewarded_soup"), min_length=1)
    rounds: Annotated[Positive, Field(le=128)] = Field(4, description="each starts from all before it")
    model: ModelConfig = ModelConfig()
    lora: LoraConfig | None = Field(LoraConfig(), description="null: all weights are trained, no adapter")
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()
    stop_when: StopConfig | None = Field(None, description="if given, stops an expert that goes astray")
    rewards: Annotated[dict[FolderName, RewardConfig], Field(min_length=1, max_length=MOST_REWARDS)]
    map: MapConfig = MapConfig()
    reduce: ReduceConfig = ReduceConfig()
    baselines: BaselinesConfig = BaselinesConfig()
    tokens: TokensConfig | None = Field(None, description="if given, trains a token a reward")
    evaluate: EvaluateConfig = EvaluateConfig()
    executor: ExecutorConfig = ExecutorConfig()
    trackers: tuple[TrackerName, ...] = Field((), description="what shows the running job")
    samples_every: Positive = Field(10, description="epochs between sample pictures in trackers")

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
        if self.stop_when is not None and "sequential" in self.methods:
            raise ValueError("stop_when: sequential goes on from the last epoch of each expert; leave it out")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError("methods names the same method twice")
        return self

    @model_validator(mode="after")
    def _check_tokens(self) -> RunConfig:
        if self.tokens is None:
            return self
        own = self.tokens.options
        if own.reinforce and own.groups(self.train.group_size)[1] < 2:
            raise ValueError(
                "tokens.options.reinforce compares samples of a prompt: batch_size there and "
                "train.group_size are 2 or more"
            )
        for name in {} if isinstance(own.init, str) else own.init:
            if name not in self.rewards:
                raise ValueError(
                    f"tokens.options.init: there is no reward {name}; there are {', '.join(self.rewards)}"
                )
        if not {"mapreduce", "rewarded_soup"} & set(self.methods):
            raise ValueError("tokens are trained from experts: add mapreduce or rewarded_soup to methods")
        return self

    @property
    def adapter(self) -> LoraConfig:
        """The adapter's settings, of a recipe that trains one: `lora` is not null."""
        assert self.lora is not None
        return self.lora

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

    def for_expert(self, rewards: Sequence[str]) -> RunConfig:
        """The recipe with the learning rate of an expert of some rewards: one reward may have its own."""
        own = self.rewards[rewards[0]].learning_rate if len(rewards) == 1 else None
        if own is None:
            return self
        return self.model_copy(update={"train": self.train.model_copy(update={"learning_rate": own})})

    def to_yaml(self) -> str:
        """The resolved recipe, with every key spelled out."""
        return dump_yaml(self.model_dump(mode="json"))
