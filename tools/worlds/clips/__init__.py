"""The programs that made the world: data, model, training, prompts, judges."""
