"""How often do the experts of a round agree in the sign of a weight's change, module by module?

    python benchmarks/sign_agreement.py runs/NAME/round-1

Where all N experts agree no more often than chance, 2 / 2^N, a step of its own for each module has nothing
to go by. Modules that no expert changes are left out.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch

from paretune.adapters.read import read_adapter


def agreements(round_folder: Path) -> tuple[int, dict[str, float]]:
    """The number of experts, and module -> the share of its weights whose change has one sign in all."""
    experts = [read_adapter(folder) for folder in sorted((round_folder / "experts").iterdir())]
    found: dict[str, float] = {}
    for module in experts[0]:
        signs = torch.stack([(e[module].B.float() @ e[module].A.float()).sign() for e in experts])
        if signs.any():
            found[module] = float((signs.sum(0).abs() == len(experts)).float().mean())
    return len(experts), found


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("round_folder", type=Path)
    count, found = agreements(parser.parse_args().round_folder)
    least, most = min(found.values()), max(found.values())
    print(f"{len(found)} modules, {count} experts: all agree in {statistics.mean(found.values()):.1%} of a "
          f"module's weights (least {least:.1%}, most {most:.1%}); chance is {2 / 2**count:.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
