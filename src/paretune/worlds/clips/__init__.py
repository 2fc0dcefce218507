"""The embedded world `clips`: captioned clips of 8 frames of 32x32 pixels and a tiny HunyuanVideo.

`scenes` says what a clip shows and how it is put in words, `render` draws it, `checkpoint` holds the trained
pipeline, `build/` the programs that trained it.
"""
