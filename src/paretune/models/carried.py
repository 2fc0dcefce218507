"""`lora.init: carried`: a new adapter begins along the directions that the earlier rounds changed most.

A fresh adapter sees its layer's input through a few random directions, and a short round is over before it
has turned them to useful ones. The earlier rounds have found such directions already.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..adapters.keys import PEFT_PREFIX
from ..ops.lowrank import LowRank, compress


def carry(parameters: Mapping[str, nn.Parameter], earlier: Mapping[str, LowRank]) -> None:
    """Turn the A of a new adapter to the main input directions of the earlier rounds' sum, in place.

    B stays zero, so that the model does not change. A module that the earlier rounds lack keeps its random A.

    Args:
        parameters: of the adapter, by peft's names.
        earlier: the sum of the earlier rounds, by module.
    """
    for name, parameter in parameters.items():
        module, mark, _ = name.removeprefix(PEFT_PREFIX).partition(".lora_A.")
        if mark and module in earlier:
            rows = parameter.data.flatten(1)  # a convolution has more than two dimensions
            parameter.data = turned(rows, earlier[module]).view_as(parameter.data)


def turned(start: Tensor, delta: LowRank) -> Tensor:
    """Random rows with the first ones replaced by the main right singular vectors of ΔW, greatest first.

    Args:
        start: [r, n].
        delta: ΔW, [m, n]. If its rank is less than r, the rows that are left stay random.

    Returns:
        [r, n]. Every new row has the mean length of the rows of `start`.
    """
    if delta.rank == 0:
        return start
    main = compress(delta, rank=len(start)).delta.A
    lengths = main.norm(dim=1, keepdim=True)  # the roots of the singular values
    found = main[lengths[:, 0] > 1e-3 * lengths.max()]
    directions = nn.functional.normalize(found, dim=1) * start.norm(dim=1).mean().cpu()
    return torch.cat([directions.to(start), start[len(directions) :]])
