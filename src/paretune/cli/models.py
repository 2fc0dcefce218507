"""The commands that use a finished run's model: sample, demo, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..types import ParetuneError
from .options import AsJson, Format, NewFolder, Quiet, RunFolder, TrustRewards, Verify
from .printing import print_json, speaker

commands = typer.Typer()
Beams = Annotated[
    int, typer.Option("--beams", help="Of a language model: the likeliest answers of a search, not draws.")
]
Revise = Annotated[
    int, typer.Option("--revise", help="Of a language model: how often it revises each of its answers.")
]
Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="FILE",
        help="The input picture, for a model that edits one; once for all prompts, or once a prompt.",
    ),
]


@commands.command()
def sample(
    source: Annotated[str, typer.Argument(help="A finished run's folder, a model's folder, or a hub id.")],
    prompt: Annotated[list[str], typer.Option("--prompt", help="What is asked for. May be repeated.")],
    out: NewFolder,
    prefer: Annotated[
        str | None, typer.Option("--prefer", help="Weights of the run's rewards, as \"ocr=0.7 beauty=0.3\".")
    ] = None,
    prefer_from: Annotated[
        Path | None,
        typer.Option(
            "--prefer-from", metavar="FILE",
            help="Fit the weights to choices in a .jsonl file: 4 or more of prompt, chosen, rejected.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="mapreduce (the default of a run), mix (experts mixed by the preference), rate (reward "
            "tokens), conditioned (one policy that is given the preference), or base.",
        ),
    ] = None,
    tokens: Annotated[
        str, typer.Option("--tokens", help="Reward tokens by hand, beside any method: \"ocr:2 beauty@0.5\".")
    ] = "",
    count: Annotated[int, typer.Option("-n", "--count", help="Samples a prompt.")] = 4,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same bytes.")] = 0,
    steps: Annotated[int | None, typer.Option("--steps", help="Default: the recipe's evaluation.")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", help="Default: the recipe's.")] = None,
    image: Images = None,
    beams: Beams = 0,
    revise: Revise = 0,
    trust_rewards: TrustRewards = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    verify: Verify = False,
) -> None:
    """Draw pictures, clips or answers at a preference, with their scores and their settings."""
    from ..sampling.command import sample_folder

    table = sample_folder(
        source, prompt, out,
        prefer=prefer, method=method, tokens=tokens, count=count, seed=seed, steps=steps, guidance=guidance,
        images=image or (), beams=beams, revisions=revise, trust_rewards=trust_rewards, verify=verify,
        say=speaker(quiet), prefer_from=prefer_from,
    )  # fmt: skip
    if as_json:
        print_json(table)
        return
    from .tables import sample_places, sample_table

    Console().print(sample_table(table))
    typer.echo(sample_places(table, out))
    for line in [] if quiet else table["cut"]:
        typer.echo(f"note: {line}")


@commands.command()
def demo(
    run_folder: RunFolder,
    port: Annotated[int, typer.Option("--port", help="Where the page is served.")] = 7860,
    host: Annotated[str, typer.Option("--host", help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Another name that the page answers to."),
    ] = None,
    trust_rewards: TrustRewards = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    verify: Verify = False,
) -> None:
    """A page with a slider a reward: the base beside the aligned model, scores, the measured front."""
    from ..demo.serving import serve

    page = serve(
        run_folder, host, port, wait=not as_json, quiet=quiet or as_json, trust_rewards=trust_rewards,
        verify=verify, allow_hosts=allow_host or (), say=speaker(quiet),
    )  # fmt: skip
    if as_json:
        print_json({"url": page.local_url, "run": str(run_folder)})
        page.block_thread()


@commands.command()
def export(
    run_folder: RunFolder,
    out: NewFolder,
    rank: Annotated[int | None, typer.Option("--rank", help="Compress the adapter to this rank.")] = None,
    pipeline: Annotated[
        bool, typer.Option("--pipeline", help="Write the whole pipeline with the adapter folded in.")
    ] = False,
    form: Format = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    verify: Verify = False,
) -> None:
    """Write the aligned model: one adapter for peft and diffusers, or a whole diffusers pipeline."""
    from ..commands.export import WITHOUT_T5, export_adapter, export_format, export_pipeline

    if pipeline and form is not None:
        raise ParetuneError("--format is an adapter's, and --pipeline writes none: give one of them")
    if pipeline and rank is not None:
        raise ParetuneError("--rank compresses an adapter, and --pipeline writes none: give one of them")
    if pipeline:
        whole = export_pipeline(run_folder, out, verify)
        if as_json:
            print_json({"pipeline": str(out), "whole": whole})
            return
        typer.echo(f"pipeline: {out}")
        if not whole and not quiet:
            typer.echo(WITHOUT_T5)
        return
    if form is not None:
        error = export_format(run_folder, out, rank, form, verify)
    else:
        error = export_adapter(run_folder, out, rank, verify)
    if as_json:
        print_json({"adapter": str(out), "compression_error": error})
        return
    typer.echo(f"adapter: {out} (relative error of the compression {error:.2e})")
