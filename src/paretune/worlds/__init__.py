"""The embedded worlds: data made by a procedure, tiny checkpoints in the real formats, how they were made."""
