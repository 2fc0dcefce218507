"""paretune: align a generative model to several rewards at once, without an alignment tax."""
