"""The commands of docs/clusters.md on clusters that they make themselves, whose machines are all this one.

Slurm's and SSH's own commands have stand-ins that carry out here what they are given. The clusters have ports
and folders of their own, and only their processes are ended: another cluster of this machine is left alone.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clusters_page import block

from .test_ray import FINAL

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
SCRIPTS = Path(sys.executable).parent  # of the commands `ray` and `paretune`


@pytest.fixture
def place() -> Iterator[Path]:
    """Ray's folder, with a short name as its sockets need. What was started with it is ended."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield folder
    for kind in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + 10
        while (left := started_in(folder)) and time.monotonic() < end:
            for process in left:
                os.kill(process, kind)
            time.sleep(0.5)
    shutil.rmtree(folder, ignore_errors=True)
    assert not left


def started_in(folder: Path, name: bytes = b"") -> list[int]:
    """The processes that have the folder in their environment, and the name in their command."""
    word, found = f"RAY_TMPDIR={folder}\0".encode(), list[int]()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ended = b") Z " in (process / "stat").read_bytes()
            named = name in (process / "cmdline").read_bytes()
            if named and word in (process / "environ").read_bytes() and not ended:
                found.append(int(process.name))
        except OSError:  # it has ended
            continue
    return found


def stand_ins(folder: Path, **scripts: str) -> Path:
    """A folder of commands."""
    for name, text in scripts.items():
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}")
        path.chmod(0o755)
    return folder / "bin"


def environment(place: Path, commands: Path) -> dict[str, str]:
    """Of a shell that finds the stand-ins first. A machine of the cluster has one CPU, and no token."""
    return {
        **os.environ, "PATH": f"{commands}:{SCRIPTS}:{os.environ['PATH']}",
        "RAY_TMPDIR": str(place), "HOME": str(place),
        "RAY_OVERRIDE_RESOURCES": '{"CPU": 1}', "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0",
        "TMPDIR": str(place), "RAY_worker_niceness": "0",  # a busy machine would starve them
    }  # fmt: skip


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("", 0))
        return str(free.getsockname()[1])


def machines(port: str, around: dict[str, str], wanted: int = 0) -> int:
    """Wait for so many machines in a cluster; on how many there were workers of tasks."""
    code = f"""
import time, ray, ray._private.state as state
from ray.core.generated.gcs_pb2 import ActorTableData
ray.init("127.0.0.1:{port}", log_to_driver=False, logging_level="error")
end = time.monotonic() + 140
while sum(node["Alive"] for node in ray.nodes()) < {wanted} and time.monotonic() < end:
    time.sleep(0.2)
actors = state.state._connect_and_get_accessor().get_actor_table(None, None)
print(len({{ActorTableData.FromString(actor).address.node_id for actor in actors}}))
assert sum(node["Alive"] for node in ray.nodes()) >= {wanted}
"""
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=around, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


# srun: its own options have one word each, or are two words. Each `ray start` that has begun leaves a file.
SRUN = r"""
while [[ $1 == -* ]]; do
    case $1 in -w|-x) shift 2;; --nodes=1|--ntasks=1|--overlap) shift;; *) exit 64;; esac
done
echo "$*" >> "$RAY_TMPDIR/tasks"
if [[ $1 == ray ]]; then exec "$@" > "$(mktemp "$RAY_TMPDIR/start-XXXX")" 2>&1; fi
exec "$@"
"""
# sleep: as long as it takes until all `ray start` that were given have begun.
SLEEP = r"""
[[ $1 == 20 ]] || exit 64
given() { grep -c "ray start" "$RAY_TMPDIR/tasks"; }
begun() { grep -l "Ray runtime started" "$RAY_TMPDIR"/start-* 2>/dev/null | wc -l; }
until [[ $(begun) == $(given) ]]; do /bin/sleep 0.2; done
"""
SCONTROL = '[[ "$*" == "show hostnames m[1-2]" ]] && printf "localhost\\nm2\\n"'


def test_the_script_for_slurm_gives_the_bits_of_local(
    recipe: Path, whole: Path, place: Path, tmp_path: Path
) -> None:
    """Two machines of one CPU, each of which trains an expert."""
    commands = stand_ins(place, srun=SRUN, scontrol=SCONTROL, sleep=SLEEP)
    around = environment(place, commands) | {"SLURM_JOB_NODELIST": "m[1-2]", "SLURM_NNODES": "2"}
    port, out, script = free_port(), tmp_path / "run", place / "script"
    text = block("sh", "#SBATCH").replace("6379", port).replace("RECIPE", str(recipe))
    script.write_text(text.replace("runs/NAME", f"{out} --quiet --set executor.workers=2"))
    done = subprocess.run(["bash", script], env=around, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    tasks = (place / "tasks").read_text().splitlines()
    starts = (f"--head --port {port}", f"--address localhost:{port}")
    assert tasks[:2] == [f"ray start {words} --block" for words in starts]
    assert (out / FINAL).read_bytes() == (whole / FINAL).read_bytes()
    assert (out / "evaluation.jsonl").read_text() == (whole / "evaluation.jsonl").read_text()
    assert machines(port, around) == 2


# ssh: the words after USER@IP are for a shell there, whose ~/.bash_profile knows where the stand-ins are.
SSH = r"""
until [[ $1 == me@127.0.0.* ]]; do shift; done
echo "${1#me@} ${*: -1}" >> "$RAY_TMPDIR/told"
shift
exec bash -c "$*"
"""
RSYNC = r"""
to=${*: -1}; to=${to#me@127.0.0.*:}
exec cp -r "${*: -2:1}" "${to/#\~/$HOME}"
"""
PIP = '[[ "$*" == "install paretune[ray]" ]]'
# ray: `stop` would end other clusters of this machine. Ray may mistake nodes for each other that start on one
# machine at the same moment.
OWN_RAY = f"""
case $1 in
    stop) ;;
    start) exec flock --close "$RAY_TMPDIR/starting" {SCRIPTS}/ray "$@";;
    *) exec {SCRIPTS}/ray "$@";;
esac
"""


def test_machines_with_ssh_give_the_bits_of_local(
    recipe: Path, whole: Path, place: Path, tmp_path: Path
) -> None:
    """`ray up`, the command of the page in the shell of `ray attach`, `ray down`."""
    commands = stand_ins(place, ssh=SSH, rsync=RSYNC, pip=PIP, ray=OWN_RAY)
    # Machines count as dead whose address is not the one that they were started with.
    around = environment(place, commands) | {"AUTOSCALER_HEARTBEAT_TIMEOUT_S": "1000"}
    (place / ".bash_profile").write_text(f"export PATH={around['PATH']}\n")
    port, out, file = free_port(), tmp_path / "run", place / "cluster.yaml"
    file.write_text(block("yaml", "cluster_name").replace("6379", port).replace("10.0.0.", "127.0.0."))
    words: Any = {"env": around, "capture_output": True, "text": True, "timeout": 600, "cwd": place}
    settings, up, attach, down = (line.partition(" #")[0] for line in block("sh", "ray up").splitlines())

    def do(line: str, text: str = "") -> None:
        done = subprocess.run(["bash", "-c", f"{settings}\n{line}"], input=text, **words)
        assert done.returncode == 0, done.stderr

    do(f"{up} --yes")
    machines(port, around, 3)
    two = "--set executor.kind=ray --set executor.workers=2"
    do(attach, f"paretune run {recipe} {two} --out {out} --quiet\n")
    assert (out / FINAL).read_bytes() == (whole / FINAL).read_bytes()
    assert machines(port, around) == 2
    for process in started_in(place, b"monitor.py"):  # as `ray stop`: it would start the machines again
        os.kill(process, signal.SIGKILL)
    do(f"{down} --yes")
    told = (place / "told").read_text()
    for machine in (1, 2, 3):
        assert re.search(rf"^127.0.0.{machine} .*pip install", told, re.M)
        kind = "--head" if machine == 1 else r"--address \$RAY_HEAD_IP"
        assert re.search(rf"^127.0.0.{machine} .*ray start {kind}.*{port}", told, re.M)
