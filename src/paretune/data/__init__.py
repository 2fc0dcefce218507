"""Prompts: where the samples of a run begin."""

from .prompts import load_prompts, prompt_set_names

__all__ = ["load_prompts", "prompt_set_names"]
