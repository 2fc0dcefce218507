"""Qwen-Image-Edit, which edits a picture."""
