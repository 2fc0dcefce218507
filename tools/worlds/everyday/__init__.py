"""Everyday questions: 313 written by hand, and the same with instructions that a program can check."""
