"""Matching of module names with peft's patterns, `rank_pattern` and `alpha_pattern`.

peft reads each key as a regular expression for the name or its end, and the first match counts. Most keys are
plain names, which are looked up. Matching any other expression may never end, and Python's `re` cannot be
interrupted (it holds the interpreter's lock), so a separate process does it within a time limit.
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
# Reads [patterns, names] and prints one line per pattern: the indices of the names that it matches.
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
    """Name -> the first pattern that matches it; names without a match are left out.

    Raises ValueError for an invalid pattern, and for one that takes too long. The caller replaces PLACE in
    the message by the position of the patterns.
    """
    best: dict[str, int] = {}
    plain = {key: i for i, key in reversed(list(enumerate(patterns))) if _PLAIN.fullmatch(key)}
    exact = {_bare(key): i for key, i in reversed(plain.items()) if key.startswith("^")}
    ends = {_bare(key): i for key, i in reversed(plain.items()) if not key.startswith("^")}
    for name in names:
        parts = name.split(".")
        tails = (".".join(parts[i:]) for i in range(len(parts)))
        matching = [ends[tail] for tail in tails if tail in ends] if ends else []
        matching += [exact[name]] if name in exact else []
        if matching:
            best[name] = min(matching)
    others = [i for i, key in enumerate(patterns) if key not in plain]
    for i, indices in zip(others, _match([patterns[i] for i in others], names), strict=True):
        for index in indices:
            best[names[index]] = min(best.get(names[index], i), i)
    return {name: patterns[i] for name, i in best.items()}


def _bare(key: str) -> str:
    return key.removeprefix("^").removesuffix("$").replace("\\.", ".")


def _match(patterns: Sequence[str], names: Sequence[str]) -> list[list[int]]:
    """For each pattern the indices of the names that it matches, from a separate process."""
    if not patterns:
        return []
    command = [sys.executable, "-I", "-S", "-c", _CHILD]
    request = json.dumps([list(patterns), list(names)])
    try:
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=SECONDS)
        lines, reason = done.stdout.splitlines(), "cannot be matched"
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        text = output.decode() if isinstance(output, bytes) else output
        lines, reason = text.splitlines(), f"takes more than {SECONDS:g} s to match: write the names out"
    results = [json.loads(line) for line in lines]
    for pattern, result in zip(patterns, results, strict=False):
        if isinstance(result, str):
            raise ValueError(f"{pattern} {PLACE} is no pattern: {result}")
    if len(results) < len(patterns):
        raise ValueError(f"{patterns[len(results)]} {PLACE} {reason}")
    return results
