"""The embedded world `clips`: captioned clips of 8 frames of 32x32 pixels and a tiny HunyuanVideo.

`scenes` defines what a clip shows and its caption, `render` draws it, and `checkpoint` holds the trained
pipeline.
"""
