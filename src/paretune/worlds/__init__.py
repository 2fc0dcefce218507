"""The embedded worlds: procedural data and tiny checkpoints in the real formats.

tools/worlds/ holds the programs that made them; they are not part of the package.
"""
