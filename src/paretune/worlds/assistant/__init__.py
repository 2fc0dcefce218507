"""The embedded world `assistant`: people ask how things are done, and some requests are harmful.

`grammar` defines the requests and the possible answers, and `taste` how two tastes value them. `checkpoint`
holds a tiny Llama that was trained on them, `helpful` and `harmless` hold two tiny reward models.
"""
