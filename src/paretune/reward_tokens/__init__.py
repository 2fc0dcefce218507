"""Reward tokens: their notation, their files, and their use in text encoders and language models."""
