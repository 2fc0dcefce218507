"""The commands. No logic: each reads its arguments, calls one function, and prints what came back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..config import RunConfig
from ..recipes import find_recipe, in_run, load_config
from ..types import ParetuneError
from .adapters import commands as adapter_commands
from .choose import commands as choose_commands
from .models import commands as model_commands
from .options import AsJson, Quiet, Recipe, Renames, Resume, RunFolder, Set, TrustRewards, Verify
from .preferences import commands as preference_commands
from .prepare import commands as prepare_commands
from .printing import console, print_error, print_json, print_line, speaker
from .progress import make_progress
from .prompt_sets import commands as prompt_commands
from .results import only_results
from .reward_card import commands as card_commands
from .serving import commands as serving_commands
from .stopping import stoppable
from .usage import USAGE_ERROR, usage_line
from .watching import commands as watch_commands
from .watching import detached

app = typer.Typer(
    help="Align a generative model to several rewards at once.\n\n"
    "Start with `paretune quickstart` (a whole run on the CPU), or `paretune plan RECIPE` to see what a "
    "recipe will do and cost, then `paretune run RECIPE --out runs/NAME`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2. Without words it is --help."""
    as_json = "--json" in sys.argv and "--help" not in sys.argv
    try:
        with only_results(as_json):
            code = app(sys.argv[1:] or ["--help"], prog_name="paretune", standalone_mode=False)
    except USAGE_ERROR as error:
        print_error(usage_line(error, sys.argv[1:]))
        sys.exit(2)
    except ParetuneError as error:
        print_error(str(error))
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.")] = Path("runs/quickstart"),
    set_: Set = None,
    resume: Resume = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """The whole job on the embedded model: train, merge, evaluate, report. Minutes on two CPU cores."""
    _run(load_config(find_recipe("quickstart"), set_ or ()), out, resume, quiet, as_json)


@app.command()
def run(
    recipe: Recipe,
    out: Annotated[Path | None, typer.Option("--out", help="Folder; default runs/NAME.")] = None,
    set_: Set = None,
    resume: Resume = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    verify: Verify = False,
    apart: Annotated[
        bool, typer.Option("--detach", help="Work on when this terminal ends; see `paretune status`.")
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option("--mirror", metavar="URL", help="Keep a copy of the run there, such as s3://BUCKET/RUN."),
    ] = None,
) -> None:
    """Run a recipe: K rounds of Map and Reduce, evaluation, report.

    Ctrl-C stops at the next checkpoint; the same command with --resume goes on, bit for bit.
    """
    config = load_config(find_recipe(recipe), set_ or ())
    place = out or Path("runs") / config.name
    if not apart:
        _run(config, place, resume, quiet, as_json, verify, mirror)
        return
    words = ["run", recipe, "--out", str(place), *(f"--set={item}" for item in set_ or ())]
    words += [word for word, given in (("--resume", resume), ("--verify", verify)) if given]
    words += ["--mirror", mirror] if mirror else []
    detached(words, place, quiet, as_json)


def _run(
    config: RunConfig, out: Path, resume: bool, quiet: bool, as_json: bool, verify: bool = False,
    mirror: str | None = None,
) -> None:  # fmt: skip
    from ..run import run as run_all

    def work(progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        if mirror is None:
            return run_all(config, out, progress, resume, verify)
        from ..commands.mirror import mirrored

        with mirrored(out, mirror, resume, progress) as watched:
            return run_all(config, out, watched, resume, verify)

    _finish(work, out, quiet, as_json)


@app.command()
def tokens(
    run_folder: RunFolder,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key: --set tokens.steps=800.", metavar="tokens.KEY=VALUE"),
    ] = None,
    trust_rewards: TrustRewards = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    verify: Verify = False,
) -> None:
    """Train one reward token an expert (RaTE) and measure them beside the run's other models.

    Ctrl-C stops at the next checkpoint; the same command goes on, bit for bit.
    """
    from ..commands.add_tokens import add_tokens

    def work(progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        return add_tokens(run_folder, set_ or (), progress, trust_rewards, verify)

    _finish(work, run_folder, quiet, as_json, "the same command")


def _finish(
    work: Callable[[Callable[[dict[str, Any]], None]], dict[str, Any]],
    out: Path,
    quiet: bool,
    as_json: bool,
    again: str = "the same command and --resume",
) -> None:
    """Do a run's work under its progress and print the summary that it returns."""
    with stoppable(out, again), make_progress(console, quiet, as_json) as progress:
        summary = work(progress)
    if as_json:
        print_line({"summary": summary, "report": str(out / "report.html")})
    else:
        from .tables import summary_table

        wide = Console(width=None if sys.stdout.isatty() else 160)
        wide.print(summary_table(summary, judges=wide.width >= 150))
        typer.echo(f"report: {out / 'report.html'}   adapter: {out / 'final'}")


@app.command("eval")
def evaluate(
    recipe: Recipe,
    adapter: Annotated[
        list[str] | None,
        typer.Option("--adapter", help="A LoRA folder, file or hub id over the base. May be repeated."),
    ] = None,
    rename: Renames = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for eval.json, the rows and the pictures.")
    ] = Path("runs/eval"),
    set_: Set = None,
    trust_rewards: TrustRewards = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    verify: Verify = False,
) -> None:
    """Measure adapters on a recipe's held-out prompts, beside the base model.

    Ctrl-C stops; the same command goes on with what was not measured yet.
    """
    from ..commands.measure import measure_adapters
    from ..rewards.trust import registered_only

    found = find_recipe(recipe)
    config = load_config(found, set_ or ())
    config = registered_only(config, trust_rewards or not in_run(found), speaker(quiet))
    with stoppable(out, "the same command"), make_progress(console, quiet, as_json) as progress:
        table = measure_adapters(config, adapter or [], out, progress, rename or (), verify)
    if as_json:
        print_line(table)
        return
    from .tables import measure_table

    Console().print(measure_table(table))


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(help="A run's folder.")],
    quiet: Quiet = False,
    as_json: AsJson = False,
    verify: Verify = False,
) -> None:
    """Make report.html of a run again, also of one made in part."""
    from ..report import write_report

    if not (run_folder / "config.yaml").exists():
        raise ParetuneError(f"{run_folder} holds no run: config.yaml is missing")
    page = write_report(run_folder, verify)
    if as_json:
        print_json({"report": str(page)})
    else:
        typer.echo(page)


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Run folders, or LABEL=FOLDER; one label is pooled.")],
    against: Annotated[
        str | None,
        typer.Option(
            "--against", help="The method that hypervolumes are measured from; rewarded_soup by default."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("comparison.html"),
    quiet: Quiet = False,
    as_json: AsJson = False,
    verify: Verify = False,
) -> None:
    """Put runs into one table and one page: methods, seeds, recipes, side by side."""
    from ..commands.measured_alike import check_measured_alike
    from ..report import write_comparison
    from ..report.compare import compare_runs
    from .tables import comparison_table

    check_measured_alike(runs)
    comparison = compare_runs(runs, against, verify=verify)
    page = write_comparison(comparison, out)
    if as_json:
        print_json(comparison)
        return
    Console().print(comparison_table(comparison))
    typer.echo(f"page: {page}")


@app.command()
def score(
    reward: Annotated[str, typer.Argument(help="A reward's name, package.module:Name, or file.py:Name.")],
    images: Annotated[Path, typer.Argument(help="A folder of pictures, clips or .txt answers.")],
    prompts: Annotated[Path, typer.Option("--prompts", help="One prompt a sample (.txt or .jsonl).")],
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds that one sample may take.")] = 120.0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Score samples with one reward: a way to try a reward of one's own."""
    from ..commands.measure import score_folder

    rows = score_folder(reward, images, str(prompts), timeout)
    if as_json:
        print_json(rows)
        return
    from .tables import shown

    for row in rows:
        typer.echo(f"{row['value']:.4f}  {shown(row['image'])}  {shown(row['prompt'])}")


@app.command()
def doctor(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe: check access, licences and disk of what it needs.")
    ] = None,
    set_: Set = None,
    trust_rewards: TrustRewards = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Check the installation: versions, CPU and GPU, disk, the embedded model, the optional judges.

    With a recipe, the hub is asked about every model and dataset that it names; nothing is downloaded.
    """
    from ..commands.doctor import examine

    findings = examine()
    if recipe is not None:
        from ..commands.doctor_recipe import examine_recipe

        found = find_recipe(recipe)
        config = load_config(found, set_ or ())
        findings += examine_recipe(config, trust_rewards or not in_run(found))
    if as_json:
        print_json([vars(f) for f in findings])
    for finding in [] if as_json else findings:
        mark = "[green]ok[/green]" if finding.ok else "[red]!![/red]"
        Console().print(f"{mark} {finding.what}: {finding.detail}", highlight=False, soft_wrap=True)
    if any(f.needed and not f.ok for f in findings):
        raise typer.Exit(1)


app.add_typer(prepare_commands)
app.add_typer(prompt_commands)
app.add_typer(preference_commands)
app.add_typer(choose_commands)
app.add_typer(card_commands)
app.add_typer(model_commands)
app.add_typer(adapter_commands)
app.add_typer(serving_commands)
app.add_typer(watch_commands)
