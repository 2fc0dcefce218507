"""`paretune analyse`: what preferences hold, and whether a model learned them. One small file a report."""
