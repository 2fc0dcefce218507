"""Divide the frozen base over the processes that train an expert: FSDP2, block by block.

Each process holds 1/n of every block, and gathers a block when it is used. The adapters stay whole in every
process: they are small, so swapping, averaging and saving them is the same as without shards, and a
checkpoint needs no gathering.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from ...models.lora import PARENTS, POLICY
from .crew import Crew


def shard_base(transformer: nn.Module, crew: Crew, device: torch.device) -> None:
    """Divide the base of a transformer, adapters left out, over the processes of a crew, and move it.

    Args:
        transformer: on the CPU, with its adapters attached and everything folded that is to be.
        crew: the processes; each calls this.
        device: of this process.
    """
    adapters = {p for n, p in transformer.named_parameters() if f".{POLICY}." in n or f".{PARENTS}." in n}
    for parameter in adapters:
        parameter.data = parameter.data.to(device)
    mesh = init_device_mesh(device.type, (crew.size,))
    for block in blocks_of(transformer):
        fully_shard(block, mesh=mesh, ignored_params=adapters)
    fully_shard(transformer, mesh=mesh, ignored_params=adapters)


def shard_blocks(model: nn.Module, crew: Crew, device: torch.device) -> None:
    """Divide the blocks of a language model over the processes, its trained adapters left out, and move it.

    Embeddings and the head, which may be one tensor, are whole in every process. The arguments are those of
    `shard_base`.
    """
    blocks = blocks_of(model)
    adapters = {p for n, p in model.named_parameters() if ".lora_" in n}
    inside = {p for block in blocks for p in block.parameters()} - adapters
    for tensor in [*({*model.parameters()} - inside), *model.buffers()]:
        tensor.data = tensor.data.to(device)
    mesh = init_device_mesh(device.type, (crew.size,))
    for block in blocks:  # no module holds them all, and by default such a block would stay gathered
        fully_shard(block, mesh=mesh, ignored_params=adapters, reshard_after_forward=True)


def blocks_of(transformer: nn.Module) -> list[nn.Module]:
    """The blocks that follow each other: the members of its outermost lists of one class of modules."""
    found = list[nn.Module]()
    lists = [name for name, module in transformer.named_modules() if isinstance(module, nn.ModuleList)]
    for name in lists:
        if any(name.startswith(f"{other}.") for other in lists):
            continue
        members = list(transformer.get_submodule(name).children())
        if len({type(member) for member in members}) == 1 and any(True for _ in members[0].parameters()):
            found += members
    return found
