"""Training of one expert (sample, score, compute advantages, update), and of one reward token."""
