"""Weights of rewards as an input of a flow model: a small network of them, added to its time embedding.

The network's last layer is zero at first, so that the model begins as its base. It is no module of the
transformer: a hook adds its output. It has a file of its own beside the adapter, which remains a plain one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..adapters.read import WEIGHT_EMBEDDING
from ..adapters.tensors import open_tensors
from ..config import ModelConfig
from ..files import disk_errors, sha256, write_bytes
from ..types import ParetuneError
from .conditions import Conditions
from .config_files import read_config
from .detect import family_of, place_of

FILE = WEIGHT_EMBEDDING
WEIGHTS = "reward_weights"  # in `Conditions.more`: [P, N]
HIDDEN = 128


class WeightEmbedding(nn.Module):
    """N weights -> a vector as wide as the time embedding, zero before training. float32."""

    def __init__(self, rewards: int, width: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first, self.last = nn.Linear(rewards, HIDDEN), nn.Linear(HIDDEN, width)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, weights: torch.Tensor) -> torch.Tensor:
        """weights: [.., N]. Returns [.., width]."""
        return self.last(nn.functional.silu(self.first(weights)))


class Weighting:
    """An embedding that is added to the time embedding of a policy. `given` says the weights for a while.

    weights: [N], the same for all samples, or [B, N], those of the samples of one call; None: nothing is
    added.
    """

    def __init__(self, policy: Any, embedding: WeightEmbedding) -> None:
        """Add an embedding to a policy. It does nothing until weights are given."""
        module = _module(policy)
        if embedding.last.out_features != _width(module):
            raise ParetuneError(
                f"the embedding of weights is {embedding.last.out_features} wide, the time embedding of "
                f"{policy.config.path} {_width(module)}: it is for another model"
            )
        self.embedding = embedding.to(policy.device)
        self.weights: torch.Tensor | None = None
        self._off = False
        self._hook = module.register_forward_hook(self._add)

    def remove(self) -> None:
        """Take the embedding away."""
        self._hook.remove()

    @contextmanager
    def given(self, weights: torch.Tensor | None) -> Iterator[None]:
        """Give weights within a block."""
        before, self.weights = self.weights, weights
        try:
            yield
        finally:
            self.weights = before

    @contextmanager
    def off(self) -> Iterator[None]:
        """Add nothing within a block, whatever weights are given: the policy without the embedding."""
        before, self._off = self._off, True
        try:
            yield
        finally:
            self._off = before

    def follow(self, policy: Any) -> None:
        """Let the weights be those of the conditions of every call of the policy's `velocity`."""
        plain: Callable[..., torch.Tensor] = policy.velocity

        def velocity(
            x: torch.Tensor, sigma: torch.Tensor, conditions: Conditions, guidance: float
        ) -> torch.Tensor:
            with self.given(conditions.more.get(WEIGHTS)):
                return plain(x, sigma, conditions, guidance)

        policy.velocity = velocity

    def _add(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        """The hook: the time embedding [k B, width] with the vectors of the weights.

        k is 2 where a guided step runs both of its passes as one batch, one after the other.
        """
        if self.weights is None or self._off:
            return output
        with torch.autocast(output.device.type, enabled=False):
            added = self.embedding(self.weights.to(output.device, torch.float32))
        if added.ndim > 1:
            added = added.repeat(len(output) // len(added), 1)
        return output + added.to(output.dtype)


def with_weights(conditions: Conditions, weights: torch.Tensor | None) -> Conditions:
    """The conditions of P samples with their weights [P, N]; as they are for None."""
    if weights is None:
        return conditions
    return replace(conditions, more={**conditions.more, WEIGHTS: weights.to(conditions.embeds.device)})


def new_weighting(policy: Any, rewards: int, seed: int) -> Weighting:
    """A new embedding on a policy, whose every velocity follows the weights in its conditions."""
    weighting = Weighting(policy, WeightEmbedding(rewards, _width(_module(policy)), seed))
    weighting.follow(policy)
    return weighting


def time_embedding(model: ModelConfig) -> str:
    """The place of the time embedding in the transformer of a model, "" where none takes weights."""
    family, index = family_of(model.path), place_of(model.path) / "model_index.json"
    published = family.published.get(model.path)
    facts: Mapping[str, Any] = published.index if published else {}
    return family.time_embedding(read_config(index) if index.is_file() else facts)


def _module(policy: Any) -> nn.Module:
    return policy.transformer.get_submodule(time_embedding(policy.config))


def _width(module: nn.Module) -> int:
    """The width of a module's output: that of the last of its linear layers."""
    return [m for m in module.modules() if isinstance(m, nn.Linear)][-1].out_features


# ------------------------------------------------------------ files


def save_embedding(folder: Path, embedding: WeightEmbedding, rewards: Sequence[str], place: str) -> str:
    """Write an embedding. Returns the name of its file.

    rewards: the names of the weights, in order. place: of the module in the transformer to whose output it is
    added.
    """
    from safetensors.torch import save

    tensors = {name: t.detach().cpu().float().contiguous() for name, t in embedding.state_dict().items()}
    told = json.dumps({"rewards": list(rewards), "added_to": place})
    write_bytes(folder / FILE, save(tensors, {"paretune": told}))
    return FILE


def load_embedding(folder: Path) -> WeightEmbedding:
    """The embedding in a folder. Raises ParetuneError for a file that is none."""
    file = open_tensors(folder / FILE)
    shapes = {name: tuple(entry.shape) for name, entry in file.entries.items()}
    rewards, width = shapes.get("first.weight", (0, 0))[-1], shapes.get("last.bias", (0,))[0]
    made = WeightEmbedding(rewards, width) if rewards and width else None
    if made is None or shapes != {name: tuple(t.shape) for name, t in made.state_dict().items()}:
        raise ParetuneError(f"{folder / FILE} holds no embedding of the weights of rewards")
    made.load_state_dict({name: file.read_finite(name) for name in file.entries})
    return made.requires_grad_(False)


def embedding_hash(folder: Path) -> str:
    """The hash of the file of an embedding."""
    if not (folder / FILE).is_file():
        raise ParetuneError(f"{folder} holds no {FILE}")
    return sha256(folder / FILE)


def copy_embedding(source: Path, folder: Path) -> str:
    """Copy the file of an embedding to another folder. Returns its name."""
    with disk_errors(folder):
        write_bytes(folder / FILE, (source / FILE).read_bytes())
    return FILE


def add_embedding(policy: Any, folder: Path, preference: Sequence[float]) -> Weighting:
    """Give a policy the embedding in a folder, at one preference: a weight for each reward, in its order."""
    embedding = load_embedding(folder)
    if (count := embedding.first.in_features) != len(preference):
        raise ParetuneError(f"{folder / FILE} takes {count} weights, not {len(preference)}")
    weighting = Weighting(policy, embedding)
    weighting.weights = torch.tensor(preference)
    return weighting
