"""Training one expert: sample, score, advantage, update."""
