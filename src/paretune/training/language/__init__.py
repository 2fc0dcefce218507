"""Experts of language models, by TRL: `settings` from the recipe to TRL, `watch` from TRL to our records."""
