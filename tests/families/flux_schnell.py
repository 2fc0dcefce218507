"""FLUX.1-schnell: a FLUX without an input for guidance, whose schedule is not shifted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.pipelines import make_flux

from . import flux


def _make(folder: Path) -> Path:
    return make_flux(folder, guidance=False, use_dynamic_shifting=False, shift=1.0)


CASE = replace(flux.CASE, make=_make, recipe="flux1-schnell")
