"""A mistake in the words of a command, as one line like every other mistake."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import typer

# The base class is not exported; its subclass is, in every version of typer.
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]


def usage_line(error: Any, words: Sequence[str]) -> str:
    """What is wrong, the nearest right name of an option, and where the right words are listed.

    words: all that was given to `paretune`.
    """
    context = error.ctx
    told = str(error.format_message()).rstrip(".").replace(": Input should", ": it should")
    if hasattr(error, "possibilities"):  # an option that the command has not
        near = difflib.get_close_matches(error.option_name, _options(context), n=1)
        told = f"no such option: {error.option_name}" + (f"; did you mean {near[0]}?" if near else "")
    elif hasattr(error, "param_type") and error.param is not None:
        kind, name = error.param.param_type_name, error.param.name
        told = f"missing {kind} {error.param.opts[0] if kind == 'option' else name.upper()}"
    told = " ".join((told[:1].lower() + told[1:]).split())
    if context is not None:
        command = context.command_path
    else:
        command = f"paretune {words[0]}" if words and not words[0].startswith("-") else "paretune"
    return f"{told}{'' if told.endswith('?') else '.'} See `{command} --help`"


def _options(context: Any) -> list[str]:
    """The options of the command that was asked for."""
    params = [] if context is None else context.command.params
    names = [name for p in params for name in (*p.opts, *p.secondary_opts)]
    return [*(name for name in names if name.startswith("-")), "--help"]
