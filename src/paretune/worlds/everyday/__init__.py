"""Everyday questions as prompt sets. tools/worlds/everyday wrote them."""
