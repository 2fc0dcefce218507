"""LoRA files of any tool: read, translate keys, write, merge, fold, inspect. Independent of runs."""
