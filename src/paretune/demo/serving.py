"""`paretune demo`: open a run, make its page, serve it on this machine alone unless told otherwise."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..sampling import Sampler
from ..sampling.source import open_source
from ..types import ParetuneError
from .answers import Answers

MISSING = "`paretune demo` needs gradio: pip install 'paretune[demo]'"


def serve(
    run: Path,
    host: str = "127.0.0.1",
    port: int = 7860,
    wait: bool = True,
    quiet: bool = False,
    verify: bool = False,
) -> Any:
    """Serve the page of a finished run until interrupted; without `wait`, return the running Gradio app."""
    if find_spec("gradio") is None:
        raise ParetuneError(MISSING)
    if not 0 < port < 65536:
        raise ParetuneError(f"--port must be from 1 to 65535, not {port}")
    page = import_page()
    made = page.Page(open_answers(run, verify), run.resolve().name)
    blocks = made.blocks.queue(default_concurrency_limit=2)
    try:
        blocks.launch(
            server_name=host, server_port=port, prevent_thread_lock=not wait, quiet=quiet, share=False,
            theme=page.theme(), css=page.CSS, footer_links=[], run_history=False, ssr_mode=False,
            enable_monitoring=False, inbrowser=False, show_error=True,
        )  # fmt: skip
    except OSError as error:
        told = " ".join(str(error).split())
        raise ParetuneError(f"cannot serve on {host}:{port}: {told}; choose another --port") from error
    return blocks


def open_answers(run: Path, verify: bool = False) -> Answers:
    """The sampler of a finished run that has something to trade."""
    source = open_source(str(run), verify)
    if source.run is None:
        raise ParetuneError(f"{run} is a model, not a run; `paretune demo` wants a finished run's folder")
    if source.methods == ("base",):
        raise ParetuneError(f"{run} has no method to weigh: it needs mapreduce, rewarded_soup or tokens")
    return Answers(Sampler(source))


def import_page() -> Any:
    """The page's module. Gradio reads its settings when it is imported: nothing is told to anyone."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    return import_module(".page", __package__)
