"""Tell trackers about a run: the process that drives it tells them what the workers report.

Workers write metrics.jsonl and report each epoch; so one process knows all experts, wherever they train. How
far each expert was told is kept in RUN/trackers.json: a resumed run repeats the epochs after its last
checkpoint, with the same values, and they are not told twice. What was trained and not told is read from
metrics.jsonl.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config import RunConfig
from ..files import parse_json, write_json
from ..records.manifest import METRICS
from ..records.read import read_metrics
from ..types import ParetuneError
from .board import Board
from .table import check_trackers

Event = dict[str, Any]
Report = Callable[[Event], None]
STATE = "trackers.json"
SHOWN = "shown"  # the folder of an expert's sample pictures
_PLACES = {"update", "epochs"}


class Tracking:
    """What the trackers have got so far. With no tracker it does nothing."""

    def __init__(self, config: RunConfig, out: Path, board: Board | None, state: dict[str, Any]) -> None:
        self._config, self._out, self._board, self._state = config, out, board, state
        self._rewards: dict[str, float] = {}

    def watching(self, report: Report) -> Report:
        """The same report, whose events the trackers see."""
        if self._board is None:
            return report

        def told(event: Event) -> None:
            report(event)
            if event.get("stage") == "map":
                self._rewards.clear()
            elif "folder" in event:
                self._progress(event)
            elif event.get("stage") == "reduce":
                self._round(event)

        return told

    def front(self, summary: Mapping[str, Any]) -> None:
        """The measured front: the rounds of MapReduce, and every method's values, as the summary has them."""
        if self._board is None or self._state["told"].get("front"):
            return
        for entry in summary["rounds"]:
            values = {**entry["means"], "hypervolume": entry["hypervolume"]}
            self._board.scalars("front", _numbers(values), entry["round"])
        last = summary["rounds"][-1]["round"] if summary["rounds"] else 0
        for method, means in summary["methods"].items():
            values = {**means, "hypervolume": summary["hypervolume"].get(method)}
            name = method.replace(":", "-").replace("@", "-")
            self._board.scalars(f"measured/{name}", _numbers(values), last)
        self._keep("front", 1)

    def plots(self) -> None:
        """The plots of the report."""
        if self._board is not None and not self._state["told"].get("plots"):
            for file in sorted((self._out / "plots").glob("*.png")):
                self._board.pictures(f"plots/{file.stem}", [file], 0)
            self._keep("plots", 1)

    def recipe(self) -> None:
        """The recipe, once."""
        if self._board is not None and not self._state["told"].get("recipe"):
            self._board.recipe(_flat(self._config.model_dump(mode="json")))
            self._keep("recipe", 1)

    def _progress(self, event: Event) -> None:
        folder, update = event["folder"], event["update"]
        if (reward := self._reward(event)) is not None:
            self._rewards[folder] = reward
        done = self._state["told"].get(folder, 0)
        if update <= done:
            return
        rows = [{k: v for k, v in event.items() if k not in {"folder", "epochs"}}]
        if update > done + 1 or not _scalars(rows[0]):
            trained = read_metrics(self._out / folder / METRICS)
            rows = [row for row in trained if done < row["update"] <= update]
        for row in rows:
            values = _scalars(row)
            if values:
                self._tell_epoch(folder, values, row["update"])
        if rows:
            self._keep(folder, update)

    def _reward(self, event: Event) -> float | None:
        """The training reward that an expert has reached; of one that was finished before, by its file."""
        if not _scalars(event) and (rows := read_metrics(self._out / event["folder"] / METRICS)):
            return _numbers(rows[-1]).get("reward")
        return _numbers(event).get("reward")

    def _tell_epoch(self, folder: str, values: dict[str, float], update: int) -> None:
        assert self._board is not None
        self._board.scalars(folder, values, update)
        files = sorted((self._out / folder / SHOWN).glob(f"epoch-{update:04d}-*.png"))
        self._board.pictures(f"{folder}/samples", files, update)

    def _round(self, event: Event) -> None:
        """After a Reduce: how the experts agreed, and the training reward of each at its last epoch."""
        assert self._board is not None
        name, round_ = f"rounds/{event['method']}", event["round"]
        if self._state["told"].get(name, 0) >= round_:
            return
        reached = {folder.rpartition("/")[2]: reward for folder, reward in self._rewards.items()}
        cosines = {f"cosine-{i}": c for i, c in enumerate(event.get("cosines", []))}
        told = {"spread": event.get("spread"), "contraction": event.get("contraction")}
        self._board.scalars(name, _numbers({**reached, **cosines, **told}), round_)
        self._keep(name, round_)

    def _keep(self, name: str, step: int) -> None:
        self._state["told"][name] = step
        write_json(self._out / STATE, self._state)


@contextmanager
def tracked(config: RunConfig, out: Path) -> Iterator[Tracking]:
    """The trackers of a run within a block. Raises ParetuneError, one line, for one that does not start."""
    if not config.trackers:
        yield Tracking(config, out, None, {"told": {}})
        return
    check_trackers(config.trackers)
    state = _read_state(out / STATE)
    board = Board(config.trackers, config.name, state["id"], out / "trackers")
    try:
        tracking = Tracking(config, out, board, state)
        tracking.recipe()
        yield tracking
    finally:
        board.close()


def _read_state(path: Path) -> dict[str, Any]:
    """How far the run was reported; a new id where it was not."""
    try:
        state = parse_json(path.read_bytes())
        if isinstance(state["id"], str) and isinstance(state["told"], dict):
            return state
    except FileNotFoundError:
        return {"id": secrets.token_hex(4), "told": {}}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ParetuneError(f"{path} cannot be read: delete it, and the trackers are told everything again")


def _scalars(row: Mapping[str, Any]) -> dict[str, float]:
    return {k: v for k, v in _numbers(row).items() if k not in _PLACES}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among values."""
    kept = {k: v for k, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return {k: float(v) for k, v in kept.items() if math.isfinite(v)}


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
