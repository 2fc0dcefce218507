"""Reward tokens: how they are asked for, kept in files, and put into text encoders and language models."""
