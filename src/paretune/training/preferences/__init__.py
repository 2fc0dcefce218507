"""Preference learning of flow models: lists of samples, where they come from, and how they are compared."""
