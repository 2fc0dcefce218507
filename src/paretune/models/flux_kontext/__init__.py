"""FLUX.1-Kontext, which edits a picture."""
