"""`paretune demo`: open a run, make its page, and serve it, by default to this machine alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..files import real
from ..rewards.trust import left_out
from ..sampling import Sampler
from ..sampling.source import open_source
from ..types import ParetuneError
from .answers import Answers
from .asked import check_load
from .guard import Guard, allowed_hosts

MISSING = "`paretune demo` needs gradio: pip install 'paretune[demo]'"
QUEUE = 16  # questions that may wait for the model; more are refused at once, so that none waits for minutes


def serve(
    run: Path,
    host: str = "127.0.0.1",
    port: int = 7860,
    wait: bool = True,
    quiet: bool = False,
    trust_rewards: bool = False,
    allow_hosts: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
    verify: bool = False,
) -> Any:
    """Serve the page of a finished run.

    Args:
        run: the folder of the run.
        host: the address to bind to.
        port: to listen on.
        wait: whether to serve until interrupted; otherwise the running Gradio app is returned at once.
        quiet: whether Gradio prints nothing.
        trust_rewards: whether the code of rewards that are files or modules may be run.
        allow_hosts: names that the page answers to, in addition to those of this machine (see `guard`).
        say: called with a line that names the rewards which are not run because they are not trusted.
        verify: hash every file of the run.
    """
    if find_spec("gradio") is None:
        raise ParetuneError(MISSING)
    if not 0 < port < 65536:
        raise ParetuneError(f"--port must be from 1 to 65535, not {port}")
    hosts = allowed_hosts(host, allow_hosts)
    page = import_page()
    answers = open_answers(run, trust_rewards, verify)
    if answers.source.unscored:
        say(left_out(list(answers.source.unscored.values())))
    made = page.Page(answers, real(run).name)
    blocks = made.blocks.queue(default_concurrency_limit=1, max_size=QUEUE, api_open=False)
    from starlette.middleware import Middleware  # Gradio depends on it

    guard = Middleware(Guard, hosts=hosts, inputs=made.inputs())
    try:
        blocks.launch(
            server_name=host, server_port=port, prevent_thread_lock=not wait, quiet=quiet, share=False,
            theme=page.theme(), css=page.CSS, footer_links=[], run_history=False, ssr_mode=False,
            enable_monitoring=False, inbrowser=False, show_error=False,
            app_kwargs={"middleware": [guard]}, max_file_size=1,
        )  # fmt: skip
    except OSError as error:
        reason = " ".join(str(error).split())
        raise ParetuneError(f"cannot serve on {host}:{port}: {reason}; choose another --port") from error
    return blocks


def open_answers(run: Path, trust_rewards: bool = False, verify: bool = False) -> Answers:
    """The sampler and the front of a finished run that has a menu. The flags are those of `open_source`."""
    source = open_source(str(run), trust_rewards, verify)
    if source.run_folder is None:
        raise ParetuneError(f"{run} is a model, not a run; `paretune demo` wants a finished run's folder")
    if source.methods == ("base",):
        methods = "mapreduce, rewarded_soup, conditioned or tokens"
        raise ParetuneError(f"{run} has no method to weigh: it needs {methods}")
    check_load(source)
    return Answers(Sampler(source))


def import_page() -> Any:
    """Import the page. Gradio reads its settings when it is imported; its analytics are switched off."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    return import_module(".page", __package__)
