"""Reduce by on-policy distillation: one student learns from all experts of a round, on samples of its own.

`trainer` is the loop; what a sample is, and how student and expert are compared on it, is a lesson:
`flow_lesson` for pictures and clips, `text_lesson` for answers.
"""
