"""The counters of a reward server, as text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .batching import Batcher

Requests = Mapping[tuple[str, int], int]  # by reward and status

_KINDS = {
    "paretune_requests_total": ("counter", "Questions by reward and status."),
    "paretune_repeated_total": ("counter", "Questions that were asked again and scored once."),
    "paretune_samples_total": ("counter", "Samples scored."),
    "paretune_batches_total": ("counter", "Calls of the reward."),
    "paretune_scoring_seconds_total": ("counter", "Seconds in calls of the reward."),
    "paretune_waiting_samples": ("gauge", "Samples that wait."),
}


def metrics_text(requests: Requests, repeated: int, served: Mapping[str, Batcher]) -> str:
    """All counters. repeated: questions that came again. served: by the reward's name."""
    lines: dict[str, list[str]] = {name: [] for name in _KINDS}
    for name, labels, value in _values(requests, repeated, served):
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        lines[name].append(f"{name}{{{inside}}} {value}" if inside else f"{name} {value}")
    return "".join(
        f"# HELP {name} {text}\n# TYPE {name} {kind}\n" + "".join(f"{line}\n" for line in lines[name])
        for name, (kind, text) in _KINDS.items()
    )


def _values(
    requests: Requests, repeated: int, served: Mapping[str, Batcher]
) -> Iterator[tuple[str, dict[str, str], float]]:
    for (reward, status), count in sorted(requests.items()):
        yield "paretune_requests_total", {"reward": reward, "status": str(status)}, count
    yield "paretune_repeated_total", {}, repeated
    for name, batcher in served.items():
        counts, labels = batcher.counts, {"reward": name}
        yield "paretune_samples_total", labels, counts.samples
        yield "paretune_batches_total", labels, counts.batches
        yield "paretune_scoring_seconds_total", labels, counts.seconds
        yield "paretune_waiting_samples", labels, batcher.waiting


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
