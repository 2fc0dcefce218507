"""The table of docs/scale.md: four models on 8 and 96 GPUs, as `paretune plan RECIPE --gpus N` tells.

    python benchmarks/scale_on_paper.py

Prints a Markdown table. Nothing is measured, and nothing is downloaded.
"""

from __future__ import annotations

from paretune.commands.plan_recipe import plan_recipe
from paretune.planning.scale import short

WAN = [
    "model.path=Wan-AI/Wan2.1-T2V-14B-Diffusers", "model.height=480", "model.width=832",
    "model.options.frames=81",
]  # fmt: skip
MODELS: dict[str, tuple[str, list[str]]] = {
    "SD3.5-M": ("sd35-medium", []),
    "Qwen-Image": ("qwen-image", []),
    "Wan 14B": ("wan2.1-1.3b", WAN),
    "Llama-2 7B": ("llama2-7b", []),
}
COLUMNS = (
    "model", "GPUs", "an expert", "busy", "shard", "memory each", "hours", "network a round",
    "an update, each device", "a pass, each device",
)  # fmt: skip


def main() -> None:
    """Print the table."""
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for name, (recipe, sets) in MODELS.items():
        for gpus in (8, 96):
            each = 0
            for shard in ("none", "full"):
                own = [*sets, "methods=[mapreduce]"]
                if each:
                    own += [f"executor.shard={shard}", f"executor.devices_per_expert={each}"]
                found = plan_recipe(recipe, own, False, False, lambda line: None, gpus).scale
                assert found is not None
                each = found.each
                gathered = f"{found.gather_gb:.1f} GB" if found.gather_gb else "nothing"
                cells = (
                    name, gpus, found.each, found.busy, shard, f"{found.memory_gb:.0f} GB",
                    short(found.hours["mapreduce"]), f"{found.round_mb / 1e3:.2f} GB",
                    f"{found.update_mb / 1e3:.2f} GB", gathered,
                )  # fmt: skip
                print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
