"""Objectives: what an expert minimises. Each objective is one file; `table` finds it by its name.

Such a file holds the loss, its options, how rollouts are drawn and what they cost. `base` has the questions
that every objective answers before a model is loaded; `flow` and `trl` have those that the two kinds of
trainers ask. Nothing here imports a library of models, so recipes can be checked and planned without one.
"""
