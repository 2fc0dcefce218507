"""What a model makes, as tensors and as files: pictures, clips and answers."""
