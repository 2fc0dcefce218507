"""Silence of the libraries while they load."""

from __future__ import annotations


def quiet() -> None:
    """Turn off the progress bars and the advice of the libraries; paretune shows its own progress."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
