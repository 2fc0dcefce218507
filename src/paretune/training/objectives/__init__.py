"""What an expert minimises: one file an objective, found by its name in `table`.

Each file holds the loss, the options of its own, how rollouts are drawn and what they cost. `base` says what
every objective answers before a model is loaded, `flow` and `trl` what the two kinds of trainers ask. Nothing
here imports a library of models, so that recipes are checked and planned without them.
"""
