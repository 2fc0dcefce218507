"""The command that serves rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import AsJson, Quiet
from .printing import print_line, speaker
from .results import results

commands = typer.Typer()


@commands.command()
def serve(
    rewards: Annotated[
        list[str],
        typer.Argument(help="Rewards by name, module:Name or file.py:Name; NAME=SPEC calls one NAME."),
    ],
    port: Annotated[int, typer.Option("--port", help="Where it listens; 0: a free port.")] = 8600,
    host: Annotated[
        str, typer.Option("--host", help="Other machines need 0.0.0.0 and a token.")
    ] = "127.0.0.1",
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, cuda or cuda:N; several with commas are dealt out.")
    ] = "auto",
    workers: Annotated[int, typer.Option("--workers", help="Processes that score, for each reward.")] = 1,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="PARETUNE_TOKEN", help="What callers must bear."),
    ] = None,
    env: Annotated[
        Path | None,
        typer.Option("--env", help="Requirements, which pip installs in an environment for it."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME.KEY=VALUE", help="An option of a reward. May be repeated."),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", help="Samples of callers that are scored together; 0: each call alone.")
    ] = 64,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds that scoring a batch may take.")
    ] = 120.0,
    limit: Annotated[int, typer.Option("--limit", help="MiB that a question may have.")] = 256,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Serve rewards to runs on this machine or others: `reward: remote` in a recipe asks them."""
    from ..commands.serve import Serving
    from ..commands.serve import serve as serve_rewards

    def ready(facts: dict[str, Any]) -> None:
        if as_json:
            print_line(facts)
        else:
            typer.echo(f"serving {', '.join(facts['rewards'])} on {facts['url']} (Ctrl-C stops)")
        results().flush()

    serving = Serving(host, port, device, workers, token, env, batch, timeout, limit)
    serve_rewards(rewards, option or (), serving, ready, speaker(quiet))
