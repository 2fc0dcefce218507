"""What the page shows, as HTML: samples, bars, messages. Every word of a user's is escaped here."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence

# gr.HTML reads its value through templates: these must not mean anything there.
_TEMPLATE = {ord(c): f"&#{ord(c)};" for c in "{}$`\\"}


def shown(text: str) -> str:
    """Text as text, whatever it holds."""
    return html.escape(text, quote=True).translate(_TEMPLATE)


def message(text: str) -> str:
    """A line that a screen reader speaks at once."""
    return f'<p class="pt-message" role="alert">{shown(text)}</p>' if text else ""


def data_uri(kind: str, content: bytes) -> str:
    """The bytes of a file as its own address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def figure(inner: str, title: str, data: str, file: str) -> str:
    """A sample with its title and a link that saves the very bytes. inner: HTML. data: their address."""
    suffix = file.rpartition(".")[2].upper()
    return (
        f'<figure class="pt-sample">{inner}<figcaption><b>{shown(title)}</b> '
        f'<a href="{data}" download="{shown(file)}">save {shown(suffix)}</a></figcaption></figure>'
    )


def side_by_side(parts: Sequence[str], made: str) -> str:
    """Samples beside each other. made: what they are."""
    return f'<div class="pt-samples pt-{made}">{"".join(parts)}</div>'


def bars(
    rewards: Sequence[str],
    ranges: Mapping[str, tuple[float, float]],
    scores: Mapping[str, Mapping[str, float]],
    left_out: Mapping[str, str],
    made: str = "pictures",
) -> str:
    """A pair of bars a reward. scores: sample's title -> reward -> value. made: what the samples are."""
    rows = []
    for reward in rewards:
        if reward in left_out:
            cell = f'<span class="pt-none">no score: {shown(left_out[reward])}</span>'
        else:
            cell = "".join(
                _bar(title, place, own[reward], ranges[reward])
                for place, (title, own) in enumerate(scores.items())
            )
        rows.append(f"<tr><th scope='row'>{shown(reward)}</th><td>{cell}</td></tr>")
    return f'<table class="pt-bars"><caption>Scores of these two {made}</caption>{"".join(rows)}</table>'


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
