"""Peak memory of a command and all its processes together: python benchmarks/peak_memory.py COMMAND...

Sums the proportional set sizes (shared pages are counted once, dealt out among those who share them) of the
process tree twice a second. Linux only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path


def tree(root: int) -> list[int]:
    """`root` and its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it ended meanwhile
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found, frontier = [root], [root]
    while frontier:
        frontier = [child for pid in frontier for child in parents.get(pid, [])]
        found += frontier
    return found


def size(pid: int, file: str = "smaps_rollup", field: str = "Pss:") -> int:
    """Bytes of a process by a field of a file of /proc, by default its share of pages; 0 once it ended."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)


def main() -> None:
    """Run the command, print its peak and how long it took."""
    start, peak, processes = time.perf_counter(), 0, 0
    with subprocess.Popen(sys.argv[1:]) as command:
        while command.poll() is None:
            sizes = [size(pid) for pid in tree(command.pid)]
            if sum(sizes) > peak:
                peak, processes = sum(sizes), sum(one > 0 for one in sizes)
            time.sleep(0.5)
    print(json.dumps({
        "peak_gb": round(peak / 1e9, 2), "processes_then": processes,
        "seconds": round(time.perf_counter() - start, 1), "exit": command.returncode,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
