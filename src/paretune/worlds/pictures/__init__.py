"""The embedded world `pictures`: captioned drawings of 32x32 pixels and a tiny Stable Diffusion 3.

`scenes` says what a picture shows and how it is put in words, `render` draws it, `checkpoint` knows
where the trained pipeline lies, `build/` holds the programs that trained it.
"""
