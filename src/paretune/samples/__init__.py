"""Samples of a model, as tensors and as files: pictures, clips and answers."""
