"""The embedded world `assistant`: people ask how things are done, and some of it would do harm.

`grammar` says what is asked and what can be answered, `taste` what the two tastes are worth, `checkpoint`
holds a tiny Llama taught on it, `helpful` and `harmless` two tiny reward models, `build/` how all were made.
"""
