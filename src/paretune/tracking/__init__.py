"""What a running job shows: scalars, samples and the front, through the trackers of accelerate."""
