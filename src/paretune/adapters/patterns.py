"""Which of peft's patterns a module's name meets: `rank_pattern`, `alpha_pattern`.

peft reads each key as a regular expression on the name or its end, and the first that matches counts.
Most keys are plain names, which are looked up. A real expression may take for ever, and Python's `re`
cannot be stopped from inside (it holds the interpreter's lock), so those are matched in a process of
their own that is ended when its time is over.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence

SECONDS = 5.0
PLACE = "among the patterns"
_PLAIN = re.compile(r"\^?[A-Za-z0-9_-]+(?:\\?\.[A-Za-z0-9_-]+)*\$?")
# Reads [patterns, names], prints one line a pattern: the places of the names that it matches.
_CHILD = """
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
except (ImportError, OSError, ValueError):
    pass
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    try:
        match = re.compile(r"(.*\\.)?(%s)$" % pattern).match
    except (re.error, OverflowError, RecursionError) as error:
        print(json.dumps(str(error)), flush=True)
        break
    print(json.dumps([i for i, name in enumerate(names) if match(name)]), flush=True)
"""


def first_matches(patterns: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Name -> the first pattern that it meets; names that meet none are left out.

    Raises ValueError when one is no expression or takes too long; PLACE in its words stands for where it is.
    """
    best: dict[str, int] = {}
    plain = {key: i for i, key in reversed(list(enumerate(patterns))) if _PLAIN.fullmatch(key)}
    exact = {_bare(key): i for key, i in reversed(plain.items()) if key.startswith("^")}
    ends = {_bare(key): i for key, i in reversed(plain.items()) if not key.startswith("^")}
    for name in names:
        parts = name.split(".")
        tails = (".".join(parts[i:]) for i in range(len(parts)))
        found = [ends[tail] for tail in tails if tail in ends] if ends else []
        found += [exact[name]] if name in exact else []
        if found:
            best[name] = min(found)
    others = [i for i, key in enumerate(patterns) if key not in plain]
    for i, places in zip(others, _match([patterns[i] for i in others], names), strict=True):
        for place in places:
            best[names[place]] = min(best.get(names[place], i), i)
    return {name: patterns[i] for name, i in best.items()}


def _bare(key: str) -> str:
    return key.removeprefix("^").removesuffix("$").replace("\\.", ".")


def _match(patterns: Sequence[str], names: Sequence[str]) -> list[list[int]]:
    """For each pattern the places of the names that it matches, found in a process of its own."""
    if not patterns:
        return []
    command = [sys.executable, "-I", "-S", "-c", _CHILD]
    told = json.dumps([list(patterns), list(names)])
    try:
        done = subprocess.run(command, input=told, capture_output=True, text=True, timeout=SECONDS)
        lines, reason = done.stdout.splitlines(), "cannot be matched"
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        text = output.decode() if isinstance(output, bytes) else output
        lines, reason = text.splitlines(), f"takes more than {SECONDS:g} s to match: write the names out"
    found = [json.loads(line) for line in lines]
    for pattern, places in zip(patterns, found, strict=False):
        if isinstance(places, str):
            raise ValueError(f"{pattern} {PLACE} is no pattern: {places}")
    if len(found) < len(patterns):
        raise ValueError(f"{patterns[len(found)]} {PLACE} {reason}")
    return found
