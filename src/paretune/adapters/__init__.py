"""Anyone's LoRA files: read, keys, write, merge, fold, inspect. Nothing here knows of a run."""
