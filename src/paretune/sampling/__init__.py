"""Samples from a finished run or a bare model: what `paretune sample` writes and the page shows."""

from .request import Request
from .sampler import Drawn, Sampler

__all__ = ["Drawn", "Request", "Sampler"]
