"""Pure tensor functions. They use torch, and no other part of paretune, no files and no models."""
