"""The embedded world `pictures`: captioned drawings of 32x32 pixels and a tiny Stable Diffusion 3.

`scenes` defines what a picture shows and its caption, `render` draws it, and `checkpoint`, `told` and
`flux` hold the trained pipelines.
"""
