"""Prompt sets: read prompts from files, embedded worlds and the hub."""

from .prompts import load_prompts, prompt_set_names

__all__ = ["load_prompts", "prompt_set_names"]
