"""A language model without its weights: what tells the tokens of prompts and of given answers."""

from __future__ import annotations

from ...config import ModelConfig
from ..options import read_options
from .family import TextOptions
from .loading import load_text_facts
from .policy import CausalLMPolicy, context_of


class UnloadedPolicy(CausalLMPolicy):
    """`CausalLMPolicy` as far as it renders and tokenises; it draws nothing."""

    def __init__(self, config: ModelConfig) -> None:
        self.config, self.settings = config, read_options(TextOptions, config)
        self.transformer, self.tokenizer = load_text_facts(config)
        self.context = context_of(self.transformer)
