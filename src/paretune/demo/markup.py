"""The HTML of samples, bars and messages. All text of a user is escaped here."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence

# gr.HTML interprets its value as a template, in which these characters must have no meaning.
_TEMPLATE = {ord(c): f"&#{ord(c)};" for c in "{}$`\\"}


def shown(text: str) -> str:
    """Escape a text, so that it is shown as it is."""
    return html.escape(text, quote=True).translate(_TEMPLATE)


def message(text: str) -> str:
    """A message, which a screen reader speaks at once."""
    return f'<p class="pt-message" role="alert">{shown(text)}</p>' if text else ""


def data_uri(kind: str, content: bytes) -> str:
    """A data URI with the bytes of a file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def figure(inner: str, title: str, data: str, file: str) -> str:
    """A sample with its title and a link that saves its file.

    inner: the HTML of the sample. data: the data URI of its file. file: the name to save it under.
    """
    suffix = file.rpartition(".")[2].upper()
    return (
        f'<figure class="pt-sample">{inner}<figcaption><b>{shown(title)}</b> '
        f'<a href="{data}" download="{shown(file)}">save {shown(suffix)}</a></figcaption></figure>'
    )


def side_by_side(parts: Sequence[str], made: str) -> str:
    """Samples beside each other. made: the kind of the samples."""
    return f'<div class="pt-samples pt-{made}">{"".join(parts)}</div>'


def bars(
    rewards: Sequence[str],
    ranges: Mapping[str, tuple[float, float]],
    scores: Mapping[str, Mapping[str, float]],
    left_out: Mapping[str, str],
    made: str = "pictures",
) -> str:
    """The table of scores, with one bar for each reward and sample.

    Args:
        rewards: in order.
        ranges: reward -> the ends of its bars.
        scores: title of a sample -> reward -> value.
        left_out: reward -> the reason why it gives no score.
        made: the kind of the samples.
    """
    rows = []
    for reward in rewards:
        if reward in left_out:
            cell = f'<span class="pt-none">no score: {shown(left_out[reward])}</span>'
        else:
            cell = "".join(
                _bar(title, place, values[reward], ranges[reward])
                for place, (title, values) in enumerate(scores.items())
            )
        rows.append(f"<tr><th scope='row'>{shown(reward)}</th><td>{cell}</td></tr>")
    return f'<table class="pt-bars"><caption>Scores of these two {made}</caption>{"".join(rows)}</table>'


def fitted(rows: Sequence[tuple[str, float, float]], choices: int, explained: float) -> str:
    """The weights that choices show. rows: (reward, weight, its standard deviation)."""
    lines = []
    for name, share, error in rows:
        low, high = 100 * max(0.0, share - error), 100 * min(1.0, share + error)
        lines.append(
            f"<tr><th scope='row'>{shown(name)}</th><td><span class='pt-fit'>"
            f"<span class='pt-likely' style='left:{low:.1f}%;width:{high - low:.1f}%'></span>"
            f"<span class='pt-best' style='left:{100 * share:.1f}%'></span></span></td>"
            f"<td class='pt-value'>{share:.2f} ± {error:.2f}</td></tr>"
        )
    told = f"Weights from {choices} choices; they explain {explained:g}. Band: one standard deviation."
    return f'<table class="pt-fitted"><caption>{told}</caption>{"".join(lines)}</table>'


def _bar(title: str, place: int, value: float, span: tuple[float, float]) -> str:
    low, high = span
    share = (value - low) / (high - low) if high > low else 0.0
    width = 100 * min(1.0, max(0.0, share)) if math.isfinite(share) else 0.0
    kind = "pt-base" if place == 0 else "pt-aligned"
    return (
        f'<span class="pt-bar {kind}"><span class="pt-name">{shown(title)}</span>'
        f'<span class="pt-track"><span style="width:{width:.1f}%"></span></span>'
        f'<span class="pt-value">{value:.3f}</span></span>'
    )
